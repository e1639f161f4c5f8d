"""ImportJobs: jobs that come with a history, from another server or from a client's own records.

A job that is new here is taken in with all its attempts.  One that is known must tell the same story as before and more of
it: the attempts on record are compared one by one, the new ones are appended, and the job goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from silo.domain.jobs import AttemptStatus, JobSpec, JobStatus
from silo.domain.retry import RetryPolicy
from silo.errors import Invalid, Refused
from silo.events.catalogue import AttemptImported, JobImported, JobReimported
from silo.projections.jobs import JOBS, JobRow
from silo.projections.view import View
from silo.shard.chains import start_chain
from silo.shard.draft import Draft
from silo.shard.jobs import Attempt, JobName, all_attempts, refusal, require_gates


@attrs.frozen(kw_only=True)
class ImportedAttempt:
    """One attempt as its source tells it; `data` is its result or its error data."""

    status: AttemptStatus
    started_ms: int
    finished_ms: int
    error_code: str
    data: bytes


@attrs.frozen(kw_only=True)
class ImportJob:
    """A job with its history.  `start_ms` of 0 or less means now."""

    name: JobName
    spec: JobSpec
    start_ms: int
    payload: bytes
    attempts: tuple[ImportedAttempt, ...]


@attrs.frozen
class Imported:
    """The job was taken in and has this status now."""

    status: JobStatus


@attrs.frozen
class NotImported:
    """The job was left as it is, for this reason."""

    error: str


def refuse_running(jobs: Sequence[ImportJob], draft: Draft) -> None:
    """Refuse the whole call if one of the jobs is running.  Raises WrongState."""
    draft.view.require(JOBS, [(job.name.tenant, job.name.job_id) for job in jobs])
    for job in jobs:
        row = draft.view.get(JOBS, (job.name.tenant, job.name.job_id))
        if row is not None and row.status is JobStatus.RUNNING:
            raise refusal("reimport", job.name, row, "job is currently running")


def import_jobs(jobs: Sequence[ImportJob], draft: Draft) -> list[Imported | NotImported]:
    """Take in jobs in this order; one that is refused does not stop the others."""
    draft.view.require(JOBS, [(job.name.tenant, job.name.job_id) for job in jobs])
    require_gates([(job.name.tenant, job.spec) for job in jobs], draft.view)
    return [_import_one(job, draft) for job in jobs]


def _import_one(job: ImportJob, draft: Draft) -> Imported | NotImported:
    known = draft.view.get(JOBS, (job.name.tenant, job.name.job_id))
    try:
        # Every refusal comes before the first fact, so a refused job leaves nothing behind.
        if known is None:
            _check_only_last_may_not_be_failed(job.attempts)
        else:
            _check_reimport(job, known, draft.view)
    except Invalid as error:
        return NotImported(f"invalid argument: {error}")
    except Refused as error:
        return NotImported(f"cannot reimport job: {error}")
    return Imported(_take_in(job, draft) if known is None else _go_on(job, known, draft))


def _check_only_last_may_not_be_failed(attempts: Sequence[ImportedAttempt]) -> None:
    for index, attempt in enumerate(attempts[:-1]):
        if attempt.status is not AttemptStatus.FAILED:
            raise Invalid(f"import attempt {index} must be Failed (only the last attempt may be non-Failed)")


def _check_reimport(job: ImportJob, known: JobRow, view: View) -> None:
    if known.status is JobStatus.RUNNING:
        raise refusal("reimport", job.name, known, "job is currently running")
    # SILO-JOB-2: a job that has succeeded stays so, whatever its source says.
    if known.status is JobStatus.SUCCEEDED:
        raise refusal("reimport", job.name, known, "job already succeeded")
    stored = all_attempts(job.name, known, view)
    if len(job.attempts) < len(stored):
        reason = f"reimport has {len(job.attempts)} attempts but job has {len(stored)} existing attempts"
        raise refusal("reimport", job.name, known, reason)
    for index, (attempt, told) in enumerate(zip(stored, job.attempts, strict=False)):
        if _as_imported(attempt) != told:
            raise refusal(
                "reimport", job.name, known, f"existing attempt {index} does not match reimport data"
            )
    if len(job.attempts) == len(stored):
        raise refusal("reimport", job.name, known, "reimport must include at least one new attempt")
    _check_only_last_may_not_be_failed(job.attempts[len(stored) :])


def _as_imported(attempt: Attempt) -> ImportedAttempt:
    """An attempt on record, as its source would have to tell it."""
    return ImportedAttempt(
        status=attempt.row.status,
        started_ms=attempt.row.started_ms,
        finished_ms=attempt.row.finished_ms or 0,
        error_code=attempt.row.error_code or "",
        data=attempt.data,
    )


def _take_in(job: ImportJob, draft: Draft) -> JobStatus:
    status = _status_after(job.attempts, job.spec.retry_policy)
    draft.emit(
        JobImported(
            tenant=job.name.tenant,
            job_id=job.name.job_id,
            spec=job.spec,
            payload=job.payload,
            status=status,
            changed_ms=_changed_ms(status, job, draft),
            forget_ms=_forget_ms(status, draft),
        )
    )
    _append_attempts(job, after=0, draft=draft)
    _schedule(job, job.spec, status, draft)
    return status


def _go_on(job: ImportJob, known: JobRow, draft: Draft) -> JobStatus:
    status = _status_after(job.attempts, job.spec.retry_policy)
    draft.emit(
        JobReimported(
            tenant=job.name.tenant,
            job_id=job.name.job_id,
            retry_policy=job.spec.retry_policy,
            status=status,
            changed_ms=_changed_ms(status, job, draft),
            forget_ms=_forget_ms(status, draft),
        )
    )
    _append_attempts(job, after=known.attempts, draft=draft)
    _schedule(job, known.spec, status, draft)
    return status


def _status_after(attempts: Sequence[ImportedAttempt], policy: RetryPolicy | None) -> JobStatus:
    """What a history makes of a job."""
    if not attempts:
        return JobStatus.SCHEDULED
    match attempts[-1].status:
        case AttemptStatus.SUCCEEDED:
            return JobStatus.SUCCEEDED
        case AttemptStatus.CANCELLED:
            return JobStatus.CANCELLED
    failures = sum(attempt.status is AttemptStatus.FAILED for attempt in attempts)
    return JobStatus.FAILED if policy is None or failures > policy.retry_count else JobStatus.SCHEDULED


def _changed_ms(status: JobStatus, job: ImportJob, draft: Draft) -> int:
    return job.attempts[-1].finished_ms if status.is_terminal else draft.now_ms


def _forget_ms(status: JobStatus, draft: Draft) -> int | None:
    return draft.rules.forget_ms(status, draft.now_ms) if status.is_terminal else None


def _append_attempts(job: ImportJob, *, after: int, draft: Draft) -> None:
    for number, attempt in enumerate(job.attempts[after:], start=after + 1):
        draft.emit(
            AttemptImported(
                tenant=job.name.tenant,
                job_id=job.name.job_id,
                task_id=draft.ids.uuid4(),
                attempt=number,
                status=attempt.status,
                started_ms=attempt.started_ms,
                finished_ms=attempt.finished_ms,
                error_code=attempt.error_code,
                data=attempt.data,
            )
        )


def _schedule(job: ImportJob, spec: JobSpec, status: JobStatus, draft: Draft) -> None:
    """Send the next attempt on its way, if there is to be one."""
    if status is JobStatus.SCHEDULED:
        number = len(job.attempts) + 1
        start_chain(
            draft,
            job.name.tenant,
            job.name.job_id,
            spec=spec,
            attempt=number,
            relative_attempt=number,
            start_ms=job.start_ms if job.start_ms > 0 else draft.now_ms,
        )
