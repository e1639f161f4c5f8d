"""Rows of the tables that are about jobs: jobs, their attempts, their pending tasks, and the queues in which they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from silo.domain.jobs import JobStatus
from silo.domain.limits import ConcurrencyLimit, FloatingLimit
from silo.events.shown import as_json, limits_as_json
from silo.projections.attempt import AttemptRow
from silo.projections.attempts import ATTEMPTS
from silo.projections.counters import COUNTS, WHOLE_SHARD
from silo.projections.jobs import (
    INDEXED_VALUE_CHARS,
    JOBS,
    JOBS_BY_METADATA,
    JOBS_BY_STATUS,
    Chain,
    JobRow,
    Place,
)
from silo.projections.payloads import PAYLOADS
from silo.projections.refreshes import REFRESHES
from silo.projections.view import Key
from silo.query.jobs_of_image import JobsOfImage, jobs_of_image
from silo.query.plan import Wanted
from silo.query.snapshot import ShardSnapshot

Jobs = Iterator[list[tuple[Key, JobRow]]]
Columns = frozenset[str]
Lists = Iterator[list[tuple[Any, ...]]]

READ_FIRST = 64
READ_TOGETHER = 256
"""So many jobs are read at first, and at most, for what an index names."""

READ_ALONE_MAX = 50_000
"""More jobs than that are sought by a walk through all."""

PENDING = (JobStatus.SCHEDULED,)
AT_WORK = (JobStatus.SCHEDULED, JobStatus.RUNNING)


# --- which jobs ----------------------------------------------------------------------------------------------------------


def strategy(wanted: Wanted) -> str:
    """Which index answers, for EXPLAIN."""
    tenant = wanted.one("tenant")
    where = f"tenant={tenant!r}, " if tenant is not None else ""
    if "id" in wanted.equal:
        return f"ExactId({where}id={_told(wanted.equal['id'])})"
    if wanted.metadata is not None:
        key, value = wanted.metadata
        kind = "MetadataPrefix" if wanted.is_prefix else "MetadataExact"
        return f"{kind}({where}key={key!r}, value={value!r})"
    if (statuses := wanted.statuses) is not None:
        return f"Status({where}status={_told(tuple(status.kind for status in statuses))})"
    return f"FullScan({where.removesuffix(', ')})"


def _told(values: Sequence[Any]) -> str:
    return repr(values[0]) if len(values) == 1 else repr(list(values))


def jobs_wanted(snapshot: ShardSnapshot, wanted: Wanted) -> Jobs:
    """The jobs that may be wanted, and perhaps others, in pages."""
    tenant = wanted.one("tenant")
    if "id" in wanted.equal:
        names: list[Key] = [
            (each, str(job_id)) for each in _tenants(snapshot, tenant) for job_id in wanted.equal["id"]
        ]
        for at in range(0, len(names), READ_TOGETHER):
            yield list(snapshot.found(JOBS, names[at : at + READ_TOGETHER]).items())
    elif wanted.metadata is not None:
        for each in _tenants(snapshot, tenant):
            yield from _by_metadata(snapshot, each, wanted)
    elif wanted.statuses is not None:
        yield from _by_status(snapshot, tenant, wanted.statuses)
    else:
        yield from snapshot.rows(JOBS, (tenant,) if tenant is not None else ())


def count(snapshot: ShardSnapshot, tenant: str | None) -> int:
    """How many jobs there are, of a tenant or of all: from the counters, without looking at any."""
    names: list[Key] = [(tenant if tenant is not None else WHOLE_SHARD,)]
    return sum(row.total for row in snapshot.found(COUNTS, names).values())


def _by_metadata(snapshot: ShardSnapshot, tenant: str, wanted: Wanted) -> Jobs:
    assert wanted.metadata is not None
    key, value = wanted.metadata
    indexed = value[:INDEXED_VALUE_CHARS]
    changed = snapshot.changed[JOBS]
    # A prefix is no part of a key, so all values of the name are walked; their rows are read only if they fit.
    prefix = (tenant, key) if wanted.is_prefix else (tenant, key, indexed)
    for page in snapshot.keys(JOBS_BY_METADATA, prefix):
        names = [
            (entry[0], entry[3])
            for entry in page
            if not wanted.is_prefix or str(entry[2]).startswith(indexed)
        ]
        yield list(snapshot.found(JOBS, [name for name in names if name not in changed]).items())
    yield [(name, job) for name, job in changed.items() if job is not None and name[0] == tenant]


def _by_status(snapshot: ShardSnapshot, tenant: str | None, statuses: Sequence[JobStatus]) -> Jobs:
    changed, together = snapshot.changed[JOBS], READ_FIRST
    for each in _tenants(snapshot, tenant):
        for status in statuses:
            # The newest first: jobs leave a status in about the order in which they came, and what a tree has deleted it
            # walks through until its files are merged.
            for page in snapshot.keys_backward(JOBS_BY_STATUS, (each, int(status))):
                names = [(entry[0], entry[3]) for entry in page if (entry[0], entry[3]) not in changed]
                while names:
                    # Few at first: a page of a list wants no more, and rows that lie apart cost a read each.
                    yield list(snapshot.found(JOBS, names[:together]).items())
                    names, together = names[together:], min(2 * together, READ_TOGETHER)
    yield [
        (name, job)
        for name, job in changed.items()
        if job is not None and job.status in statuses and tenant in (None, name[0])
    ]


def _tenants(snapshot: ShardSnapshot, only: str | None) -> list[str]:
    """All tenants that have jobs, or the only one that is wanted."""
    if only is not None:
        return [only]
    return [str(key[0]) for page in snapshot.rows(COUNTS) for key, _ in page if key[0] != WHOLE_SHARD]


# --- what stands in a row ------------------------------------------------------------------------------------------------


def job_rows(snapshot: ShardSnapshot, wanted: Wanted, columns: Columns) -> Lists:
    for page in jobs_wanted(snapshot, wanted):
        payloads = _long_payloads(snapshot, page) if "payload" in columns else {}
        yield [_job(snapshot, name, job, payloads, columns) for name, job in page]


def jobs_in_columns(
    snapshot: ShardSnapshot, wanted: Wanted, columns: Columns
) -> tuple[Iterator[pa.RecordBatch], Lists] | None:
    """All jobs, mostly by columns; None if something else is sooner read, or there is no image."""
    if (
        "id" in wanted.equal
        or wanted.metadata is not None
        or wanted.statuses is not None
        or "payload" in columns
        # Its part is walked by itself.
        or wanted.one("tenant") is not None
        # A few are sooner read than it is known which of the image still hold.
        or (wanted.rows is not None and wanted.rows <= READ_ALONE_MAX)
    ):
        return None
    found = jobs_of_image(snapshot)
    if found is None:
        return None
    return found.batches(snapshot, columns), _touched_rows(snapshot, found, columns)


def _touched_rows(snapshot: ShardSnapshot, found: JobsOfImage, columns: Columns) -> Lists:
    names = list(found.touched)
    if len(names) < READ_ALONE_MAX:
        for at in range(0, len(names), READ_TOGETHER):
            jobs = snapshot.found(JOBS, names[at : at + READ_TOGETHER])
            yield [_job(snapshot, name, job, {}, columns) for name, job in jobs.items()]
    else:
        for page in snapshot.rows(JOBS, only=found.touched):
            yield [_job(snapshot, name, job, {}, columns) for name, job in page]


def _job(
    snapshot: ShardSnapshot, name: Key, job: JobRow, payloads: dict[Key, bytes], columns: Columns
) -> tuple[Any, ...]:
    spec, chain = job.spec, job.chain if job.status is JobStatus.SCHEDULED else None
    payload = payloads.get((job.payload_seq,), b"") if job.payload_seq else job.payload
    return (
        snapshot.shard_id,
        name[0],
        name[1],
        spec.priority,
        spec.enqueue_time_ms,
        as_json(payload) if "payload" in columns else None,
        status_kind(job, snapshot.now_ms),
        job.changed_ms,
        spec.task_group,
        chain.attempt if chain is not None else None,
        job.next_start_ms if chain is not None else None,
        spec.metadata if "metadata" in columns else (),
        limits_as_json(spec.limits) if "limits" in columns else None,
    )


def status_kind(job: JobRow, now_ms: int) -> str:
    """The status as it is displayed: what is due, and has not started, is waiting."""
    if job.status is JobStatus.SCHEDULED and (job.next_start_ms is None or job.next_start_ms <= now_ms):
        return "Waiting"
    return job.status.kind


def _long_payloads(snapshot: ShardSnapshot, page: list[tuple[Key, JobRow]]) -> dict[Key, bytes]:
    wanted: list[Key] = [(job.payload_seq,) for _, job in page if job.payload_seq]
    return snapshot.found(PAYLOADS, wanted) if wanted else {}


def task_rows(snapshot: ShardSnapshot, wanted: Wanted, _: Columns) -> Lists:
    """What no worker has yet: the pending attempt of each job, and refreshes."""
    for page in _by_status(snapshot, wanted.one("tenant"), PENDING):
        yield [_task(snapshot, name, job, job.chain) for name, job in page if job.chain is not None]
    for refreshes in snapshot.rows(REFRESHES):
        yield [
            (
                snapshot.shard_id,
                row.tenant,
                key[0],
                key[1],
                0,
                "",
                0,
                "RefreshFloatingLimit",
                "",
                "",
            )
            for key, row in refreshes
        ]


def _task(snapshot: ShardSnapshot, name: Key, job: JobRow, chain: Chain) -> tuple[Any, ...]:
    held = ",".join(queue for queue, _ in chain.held)
    return (
        snapshot.shard_id,
        name[0],
        job.spec.task_group,
        chain.start_ms,
        job.spec.priority,
        name[1],
        chain.attempt,
        _variant(job, chain),
        chain.task_id,
        held,
    )


def _variant(job: JobRow, chain: Chain) -> str:
    if chain.place is Place.READY or chain.gate >= len(job.spec.limits):
        return "RunAttempt"
    is_slot = isinstance(job.spec.limits[chain.gate], ConcurrencyLimit | FloatingLimit)
    return "RequestTicket" if is_slot else "CheckRateLimit"


def queue_rows(snapshot: ShardSnapshot, wanted: Wanted, _: Columns) -> Lists:
    """Who holds a slot, and who waits for one."""
    for page in _by_status(snapshot, wanted.one("tenant"), AT_WORK):
        yield [
            row
            for name, job in page
            if job.chain is not None
            for row in _entries(snapshot, name, job, job.chain)
        ]


def _entries(snapshot: ShardSnapshot, name: Key, job: JobRow, chain: Chain) -> Iterator[tuple[Any, ...]]:
    tenant, job_id = name
    for queue, since_ms in chain.held:
        yield (snapshot.shard_id, tenant, queue, "holder", chain.task_id, None, None, since_ms)
    if chain.place is Place.WAITING:
        limit = job.spec.limits[chain.gate]
        assert isinstance(limit, ConcurrencyLimit | FloatingLimit)
        task_id = f"{job_id}:{chain.attempt}:{chain.task_id}"
        shown = (job_id, job.spec.priority, chain.start_ms)
        yield (snapshot.shard_id, tenant, limit.key, "requester", task_id, *shown)


def attempt_rows(snapshot: ShardSnapshot, wanted: Wanted, columns: Columns) -> Lists:
    tenant, job_id = wanted.one("tenant"), wanted.one("job_id")
    if tenant is not None and job_id is not None:
        prefix: Key = (tenant, job_id)
        newest = iter([list(snapshot.found(JOBS, [prefix]).items())])
    else:
        prefix = (tenant,) if tenant is not None else ()
        newest = snapshot.rows(JOBS, prefix)
    for page in snapshot.rows(ATTEMPTS, prefix):
        yield _attempts(snapshot, [((key[0], key[1]), int(key[2]), row) for key, row in page], columns)
    for jobs in newest:
        last = [(name, job.attempts, job.last_attempt) for name, job in jobs if job.last_attempt is not None]
        yield _attempts(snapshot, last, columns)


def _attempts(
    snapshot: ShardSnapshot, page: Sequence[tuple[Key, int, AttemptRow]], columns: Columns
) -> list[tuple[Any, ...]]:
    seqs: list[Key] = [(row.data_seq,) for _, _, row in page if row.data_seq]
    data = snapshot.found(PAYLOADS, seqs) if seqs and "data" in columns else {}
    return [
        (
            snapshot.shard_id,
            name[0],
            name[1],
            number,
            row.task_id,
            row.status.name.capitalize(),
            row.started_ms,
            row.finished_ms,
            row.error_code,
            as_json(data.get((row.data_seq,), row.data)) if "data" in columns else None,
        )
        for name, number, row in page
    ]
