"""GetJob and GetJobResult, and the shard's totals: commands that decide nothing."""

from __future__ import annotations

import attrs

from silo.domain.jobs import JobStatus
from silo.errors import WrongState
from silo.projections.counters import COUNTS, NOTHING, WHOLE_SHARD, CountRow
from silo.projections.jobs import JobRow
from silo.shard.draft import Draft
from silo.shard.jobs import Attempt, JobName, all_attempts, last_attempt, payloads, the_job


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
    """How a job ended; `attempt` is its last one, None if it was cancelled before any."""

    status: JobStatus
    finished_ms: int
    attempt: Attempt | None


def get_result(name: JobName, draft: Draft) -> JobResult:
    """How the job ended.  Raises JobNotFound, or WrongState if it has not ended."""
    row = the_job(name, draft.view)
    if not row.status.is_terminal:
        raise WrongState(f"job is not complete: status is {row.status.kind}")
    return JobResult(status=row.status, finished_ms=row.changed_ms, attempt=last_attempt(row, draft.view))


def get_history(name: JobName, draft: Draft) -> int:
    """The sequence number of the job's newest event.  Raises JobNotFound."""
    return the_job(name, draft.view).last_seq


def get_counts(tenant: str, draft: Draft) -> CountRow:
    """How many jobs a tenant has, or with an empty name the whole shard."""
    return draft.view.get(COUNTS, (tenant or WHOLE_SHARD,)) or NOTHING
