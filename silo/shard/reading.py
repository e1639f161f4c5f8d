"""GetJob and GetJobResult, and the shard's totals: commands that decide nothing."""

from __future__ import annotations

import attrs

from silo.domain.jobs import JobStatus
from silo.errors import WrongState
from silo.events.packing import to_bytes
from silo.projections.counters import COUNTS, NOTHING, WHOLE_SHARD, CountRow
from silo.projections.jobs import JobRow
from silo.shard.draft import Draft
from silo.shard.jobs import Attempt, JobName, all_attempts, last_attempt, payloads, the_job
from silo.shard.rates import RATE_LIMIT_EXHAUSTED

REASONS = {RATE_LIMIT_EXHAUSTED: "the rate limit was still used up at the last retry that its policy allows"}
"""What the error codes of jobs mean that failed without an attempt that says so."""


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
    last = last_attempt(row, view)
    return JobView(
        row=row,
        payload=payloads([row], view)[0],
        attempts=all_attempts(query.name, row, view) if query.include_attempts else [],
        result=last.data if last is not None and row.status is JobStatus.SUCCEEDED else None,
    )


@attrs.frozen(kw_only=True)
class JobResult:
    """How a job ended.

    Attributes:
        attempt: its last one, None if it ended before any.
        error_code, error_data: of a failed job; empty for any other.
    """

    status: JobStatus
    finished_ms: int
    attempt: Attempt | None
    error_code: str
    error_data: bytes


def get_result(name: JobName, draft: Draft) -> JobResult:
    """How the job ended.  Raises JobNotFound, or WrongState if it has not ended."""
    row = the_job(name, draft.view)
    if not row.status.is_terminal:
        raise WrongState(f"job is not complete: status is {row.status.kind}")
    attempt = last_attempt(row, draft.view)
    error_code, error_data = _failure(row, attempt)
    return JobResult(
        status=row.status,
        finished_ms=row.changed_ms,
        attempt=attempt,
        error_code=error_code,
        error_data=error_data,
    )


def _failure(row: JobRow, attempt: Attempt | None) -> tuple[str, bytes]:
    """Why the job failed: for a reason of its own, or because its last attempt did."""
    if row.status is not JobStatus.FAILED:
        return "", b""
    if row.error_code:
        return row.error_code, to_bytes(REASONS.get(row.error_code, row.error_code))
    return ((attempt.row.error_code or ""), attempt.data) if attempt is not None else ("", b"")


def get_history(name: JobName, draft: Draft) -> int:
    """The sequence number of the job's newest event.  Raises JobNotFound."""
    return the_job(name, draft.view).last_seq


def get_counts(tenant: str, draft: Draft) -> CountRow:
    """How many jobs a tenant has, or with an empty name the whole shard."""
    return draft.view.get(COUNTS, (tenant or WHOLE_SHARD,)) or NOTHING
