"""GetJob and GetJobResult, and the shard's totals: commands that decide nothing."""

from __future__ import annotations

import attrs

from silo.domain.jobs import AttemptStatus, JobStatus
from silo.errors import WrongState
from silo.projections.attempts import ATTEMPTS, AttemptRow, attempt_keys
from silo.projections.counters import COUNTS, NOTHING, WHOLE_SHARD, CountRow
from silo.projections.jobs import JobRow
from silo.projections.payloads import PAYLOADS
from silo.projections.view import View
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, rows, the_job


@attrs.frozen
class Attempt:
    """One attempt with its number and its result or error data."""

    number: int
    row: AttemptRow
    data: bytes


@attrs.frozen(kw_only=True)
class GetJob:
    name: JobName
    include_attempts: bool


@attrs.frozen(kw_only=True)
class JobView:
    """A job as GetJob shows it; `result` only if it succeeded."""

    row: JobRow
    payload: bytes
    attempts: list[Attempt]
    result: bytes | None


def get_job(query: GetJob, draft: Draft) -> JobView:
    """The job as it stands.  Raises JobNotFound."""
    view = draft.view
    row = the_job(query.name, view)
    attempts = _attempts(query.name, row, view, last_only=not query.include_attempts)
    succeeded = [attempt for attempt in attempts if attempt.row.status is AttemptStatus.SUCCEEDED]
    result = None
    if row.status is JobStatus.SUCCEEDED:
        result = (succeeded or attempts)[-1].data
    return JobView(
        row=row,
        payload=rows(view, PAYLOADS, [(row.payload_seq,)])[0],
        attempts=attempts if query.include_attempts else [],
        result=result,
    )


@attrs.frozen(kw_only=True)
class JobResult:
    """How a job ended; `attempt` is its last one, None if it was cancelled before any."""

    status: JobStatus
    finished_ms: int
    attempt: Attempt | None


def get_result(name: JobName, draft: Draft) -> JobResult:
    """How the job ended.  Raises JobNotFound, or WrongState if it has not ended."""
    row = the_job(name, draft.view)
    if not row.status.is_terminal:
        raise WrongState(f"job is not complete: status is {row.status.kind}")
    attempts = _attempts(name, row, draft.view, last_only=True)
    last = attempts[-1] if attempts else None
    finished_ms = row.changed_ms
    # A job that was cancelled while it waited for its next try ended then, not when that try's forerunner failed.
    if last is not None and (row.status is not JobStatus.CANCELLED or last.row.status is AttemptStatus.CANCELLED):
        finished_ms = last.row.finished_ms or row.changed_ms
    return JobResult(status=row.status, finished_ms=finished_ms, attempt=last)


def get_history(name: JobName, draft: Draft) -> int:
    """The sequence number of the job's newest event.  Raises JobNotFound."""
    return the_job(name, draft.view).last_seq


def get_counts(tenant: str, draft: Draft) -> CountRow:
    """How many jobs a tenant has, or with an empty name the whole shard."""
    return draft.view.get(COUNTS, (tenant or WHOLE_SHARD,)) or NOTHING


def _attempts(name: JobName, row: JobRow, view: View, *, last_only: bool) -> list[Attempt]:
    keys = attempt_keys(name.tenant, name.job_id, row.attempts)
    wanted = keys[-1:] if last_only else keys
    found = rows(view, ATTEMPTS, wanted)
    view.require(PAYLOADS, [(attempt.data_seq,) for attempt in found if attempt.data_seq])
    return [
        Attempt(int(key[2]), attempt, _data(attempt, view)) for key, attempt in zip(wanted, found, strict=True)
    ]


def _data(attempt: AttemptRow, view: View) -> bytes:
    return rows(view, PAYLOADS, [(attempt.data_seq,)])[0] if attempt.data_seq else b""
