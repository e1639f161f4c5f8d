"""Rows of the tables that are not about single jobs: counts, leases, and the log."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from silo.archive.archive import Archive
from silo.domain.jobs import JobStatus
from silo.events.shown import values
from silo.projections.concurrency import QUEUES
from silo.projections.counters import COUNTS, WHOLE_SHARD
from silo.projections.leases import LEASES
from silo.query.jobs import Columns, Lists
from silo.query.plan import Wanted
from silo.query.snapshot import ShardSnapshot
from silo.query.tables import EVENTS

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


def events_in_columns(
    snapshot: ShardSnapshot, wanted: Wanted, columns: Columns
) -> tuple[Iterator[pa.RecordBatch], Lists] | None:
    """The log, by columns as far as the archive has it."""
    if snapshot.archive is None:
        return None
    return _archived(snapshot, snapshot.archive, wanted, columns), event_rows(snapshot, wanted, columns)


def _archived(
    snapshot: ShardSnapshot, archive: Archive, wanted: Wanted, columns: Columns
) -> Iterator[pa.RecordBatch]:
    first, last = _asked_for(wanted)
    end = min(last, snapshot.archived_seq) + 1
    # Without a column a batch would have no rows.
    names = [name for name in EVENTS.names if name in columns] or ["seq"]
    for batch in archive.batches(first, end, [name for name in names if name != "shard_id"]):
        snapshot.go_on()
        arrays = [
            pa.repeat(snapshot.shard_id, batch.num_rows) if name == "shard_id" else batch.column(name)
            for name in names
        ]
        yield pa.RecordBatch.from_arrays(arrays, names=names)


def _asked_for(wanted: Wanted) -> tuple[int, int]:
    """The first and the last number that may be meant."""
    only = wanted.one("seq")
    first = only if only is not None else wanted.least.get("seq", 1)
    last = only if only is not None else wanted.most.get("seq", SEQ_MAX)
    return int(first), int(last)


def event_rows(snapshot: ShardSnapshot, wanted: Wanted, columns: Columns) -> Lists:
    """The log, or the part of it that is named by sequence numbers."""
    first, last = _asked_for(wanted)
    # The archive has the others in columns.
    for events in snapshot.events(max(first, snapshot.archived_seq + 1), last + 1):
        yield [(snapshot.shard_id, *values(event, with_data="data" in columns)) for event in events]
