"""What every command that names jobs begins with: reading them, all that are missing at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import attrs

from silo.domain.jobs import JobSpec
from silo.errors import Corrupt, JobNotFound, WrongState
from silo.projections.attempt import AttemptRow
from silo.projections.attempts import ATTEMPTS, earlier_keys
from silo.projections.concurrency import QUEUES, queue_keys
from silo.projections.counters import COUNTS
from silo.projections.jobs import JOBS, JobRow
from silo.projections.payloads import PAYLOADS
from silo.projections.rates import BUCKETS, bucket_keys
from silo.projections.view import Key, Table, View

Row = TypeVar("Row")


@attrs.frozen
class JobName:
    """The job that a command is about."""

    tenant: str
    job_id: str


def the_job(name: JobName, view: View) -> JobRow:
    """The job's row.  Raises JobNotFound."""
    row = view.get(JOBS, (name.tenant, name.job_id))
    if row is None:
        raise JobNotFound
    return row


def rows(view: View, table: Table[Row], keys: Sequence[Key], *, ahead: Iterable[Key] = ()) -> list[Row]:
    """The rows under these keys, which another row says exist.  Raises Corrupt if one does not."""
    view.require(table, keys, ahead=ahead)
    found = [view.get(table, key) for key in keys]
    for key, row in zip(keys, found, strict=True):
        if row is None:
            raise Corrupt(f"{table.name} {key} is missing")
    return [row for row in found if row is not None]


def require_jobs(names: Sequence[JobName], view: View, *, ahead: Iterable[JobName] = ()) -> list[JobRow]:
    """The rows of jobs that a queue or a lease names, with what a change of their status will read besides.

    Without this a command about many jobs would load their rows one by one, and begin anew after each.
    """
    keys = [(name.tenant, name.job_id) for name in names]
    jobs = rows(view, JOBS, keys, ahead=((name.tenant, name.job_id) for name in ahead))
    view.require(COUNTS, sorted({(name.tenant,) for name in names}))
    return jobs


def require_chains(names: Sequence[JobName], view: View) -> list[JobRow]:
    """The same for jobs whose chains end or go on: with the queues and buckets at their gates."""
    jobs = require_jobs(names, view)
    require_gates([(name.tenant, job.spec) for name, job in zip(names, jobs, strict=True)], view)
    return jobs


def require_gates(jobs: Iterable[tuple[str, JobSpec]], view: View) -> None:
    """Say that the gates of these jobs, each with its tenant, will be asked or left."""
    queues: list[Key] = []
    buckets: list[Key] = []
    for tenant, spec in jobs:
        if spec.limits:
            queues += queue_keys(tenant, spec)
            buckets += bucket_keys(tenant, spec)
    if queues:
        view.require(QUEUES, queues)
    if buckets:
        view.require(BUCKETS, buckets)


def refusal(verb: str, name: JobName, job: JobRow, reason: str) -> WrongState:
    """The error of a command that the job's state rules out."""
    return WrongState(f"cannot {verb} job {name.job_id}: {reason} (status: {job.status.kind})")


@attrs.frozen
class Attempt:
    """One attempt with its number and its result or error data."""

    number: int
    row: AttemptRow
    data: bytes


def all_attempts(name: JobName, job: JobRow, view: View) -> list[Attempt]:
    """All attempts of a job, oldest first."""
    earlier = rows(view, ATTEMPTS, earlier_keys(name.tenant, name.job_id, job))
    return _with_data([*earlier, *_newest(job)], view, first_number=1)


def last_attempt(job: JobRow, view: View) -> Attempt | None:
    """The newest attempt of a job, if any has started."""
    found = _with_data(_newest(job), view, first_number=job.attempts)
    return found[0] if found else None


def payloads(jobs: Sequence[JobRow], view: View, *, ahead: Iterable[Key] = ()) -> list[bytes]:
    """The payloads of these jobs."""
    view.require(PAYLOADS, [(job.payload_seq,) for job in jobs if job.payload_seq], ahead=ahead)
    return [_long(job.payload_seq, view) if job.payload_seq else job.payload for job in jobs]


def _long(seq: int, view: View) -> bytes:
    return rows(view, PAYLOADS, [(seq,)])[0]


def _newest(job: JobRow) -> list[AttemptRow]:
    return [job.last_attempt] if job.last_attempt is not None else []


def _with_data(attempts: Sequence[AttemptRow], view: View, *, first_number: int) -> list[Attempt]:
    view.require(PAYLOADS, [(attempt.data_seq,) for attempt in attempts if attempt.data_seq])
    return [
        Attempt(
            number,
            attempt,
            _long(attempt.data_seq, view) if attempt.data_seq else attempt.data,
        )
        for number, attempt in enumerate(attempts, start=first_number)
    ]
