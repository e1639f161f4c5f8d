"""Rows of the tables that are not about single jobs: counts, leases, and the log."""

from __future__ import annotations

from typing import Any

from silo.domain.jobs import JobStatus
from silo.events.catalogue import Event
from silo.events.shown import other_fields
from silo.projections.concurrency import QUEUES
from silo.projections.counters import COUNTS, WHOLE_SHARD
from silo.projections.leases import LEASES
from silo.query.jobs import Columns, Lists
from silo.query.plan import Wanted
from silo.query.snapshot import ShardSnapshot

SEQ_MAX = (1 << 63) - 1


def tenant_count_rows(snapshot: ShardSnapshot, wanted: Wanted, _: Columns) -> Lists:
    """Of each tenant, how many jobs have each stored status."""
    tenant = wanted.one("tenant")
    for page in snapshot.rows(COUNTS, (tenant,) if tenant else ()):
        yield [
            (snapshot.shard_id, key[0], status.kind, row.by_status[status])
            for key, row in page
            if key[0] != WHOLE_SHARD
            for status in JobStatus
            if row.by_status[status] > 0
        ]


def queue_count_rows(snapshot: ShardSnapshot, wanted: Wanted, _: Columns) -> Lists:
    tenant = wanted.one("tenant")
    for page in snapshot.rows(QUEUES, (tenant,) if tenant is not None else ()):
        yield [
            (
                snapshot.shard_id,
                key[0],
                key[1],
                row.holders,
                row.waiters,
                row.floating.maximum if row.floating is not None else row.maximum,
                "floating" if row.floating is not None else "fixed",
            )
            for key, row in page
        ]


def lease_rows(snapshot: ShardSnapshot, _: Wanted, __: Columns) -> Lists:
    """Who is at work on what.  The expiry is the one that the log has; a heartbeat may have moved it on."""
    for page in snapshot.rows(LEASES):
        yield [
            (
                snapshot.shard_id,
                row.tenant,
                key[0],
                row.job_id if row.queue is None else None,
                row.queue,
                row.worker_id,
                row.expires_ms,
            )
            for key, row in page
        ]


def event_rows(snapshot: ShardSnapshot, wanted: Wanted, columns: Columns) -> Lists:
    """The log, or the part of it that is named by sequence numbers."""
    only = wanted.one("seq")
    first = only if only is not None else wanted.least.get("seq", 1)
    last = only if only is not None else wanted.most.get("seq", SEQ_MAX)
    for events in snapshot.events(int(first), int(last) + 1):
        yield [_event(snapshot, event, columns) for event in events]


def _event(snapshot: ShardSnapshot, event: Event, columns: Columns) -> tuple[Any, ...]:
    return (
        snapshot.shard_id,
        event.seq,
        event.time_ms,
        type(event).__name__,
        getattr(event, "tenant", None),
        getattr(event, "job_id", None),
        getattr(event, "task_id", None),
        getattr(event, "attempt", None),
        getattr(event, "queue", None),
        getattr(event, "worker_id", None),
        event.actor,
        event.method,
        other_fields(event) if "data" in columns else "",
    )
