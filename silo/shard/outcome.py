"""ReportOutcome: what becomes of a job when an attempt ends."""

from __future__ import annotations

from typing import assert_never

import attrs

from silo.domain.jobs import JobStatus
from silo.errors import LeaseNotFound
from silo.events.catalogue import AttemptCancelled, AttemptFailed, AttemptSucceeded, JobCancelled, JobFailed
from silo.projections.jobs import JobRow
from silo.projections.leases import LEASES
from silo.shard.chains import start_chain
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, the_job


@attrs.frozen
class Success:
    result: bytes


@attrs.frozen
class Failure:
    error_code: str
    error_data: bytes


@attrs.frozen
class Cancelled:
    pass


Outcome = Success | Failure | Cancelled


@attrs.frozen
class ReportOutcome:
    """Whoever knows the task id reports how its attempt ended.

    The protocol does not say who reports: a caller that is not named otherwise counts as the worker that has the lease.
    """

    task_id: str
    outcome: Outcome


def report_outcome(command: ReportOutcome, draft: Draft) -> None:
    """End a leased attempt.  Raises LeaseNotFound: reported already, taken back, or never leased."""
    lease = draft.view.get(LEASES, (command.task_id,))
    # The refresh of a floating limit has a lease too, but no outcome of this kind.
    # SILO-LEASE-3: who comes late finds no lease.
    if lease is None or lease.queue is not None:
        raise LeaseNotFound
    if not draft.caller.actor:
        draft.caller = attrs.evolve(draft.caller, actor=lease.worker_id)
    end_attempt(JobName(lease.tenant, lease.job_id), command.outcome, draft)


def end_attempt(name: JobName, outcome: Outcome, draft: Draft) -> None:
    """End the attempt that a job is running, and decide what follows.  What its chain held is free with the event."""
    job = the_job(name, draft.view)
    chain = job.chain
    assert chain is not None
    match outcome:
        case Success(result):
            draft.emit(
                AttemptSucceeded(
                    tenant=name.tenant,
                    job_id=name.job_id,
                    task_id=chain.task_id,
                    attempt=chain.attempt,
                    result=result,
                    forget_ms=draft.rules.forget_ms(JobStatus.SUCCEEDED, draft.now_ms),
                )
            )
        case Failure(error_code, error_data):
            draft.emit(
                AttemptFailed(
                    tenant=name.tenant,
                    job_id=name.job_id,
                    task_id=chain.task_id,
                    attempt=chain.attempt,
                    error_code=error_code,
                    error_data=error_data,
                )
            )
            _after_failure(name, job, draft)
        case Cancelled():
            draft.emit(
                AttemptCancelled(
                    tenant=name.tenant, job_id=name.job_id, task_id=chain.task_id, attempt=chain.attempt
                )
            )
            cancel_job(name, draft)
        case _:
            assert_never(outcome)


def _after_failure(name: JobName, job: JobRow, draft: Draft) -> None:
    """A job that was to be cancelled ends so; else it is tried again, if its policy has a try left."""
    chain, policy = job.chain, job.spec.retry_policy
    assert chain is not None
    # SILO-JOB-4: before the retry policy is asked.
    if job.cancelled_ms is not None:
        cancel_job(name, draft)
        return

    retry_ms = policy.next_attempt_ms(draft.now_ms, chain.relative_attempt) if policy is not None else None
    if retry_ms is None:
        forget_ms = draft.rules.forget_ms(JobStatus.FAILED, draft.now_ms)
        draft.emit(JobFailed(tenant=name.tenant, job_id=name.job_id, error_code="", forget_ms=forget_ms))
        return

    start_chain(
        draft,
        name.tenant,
        name.job_id,
        spec=job.spec,
        attempt=chain.attempt + 1,
        relative_attempt=chain.relative_attempt + 1,
        start_ms=retry_ms,
    )


def cancel_job(name: JobName, draft: Draft) -> None:
    """End a job as cancelled."""
    forget_ms = draft.rules.forget_ms(JobStatus.CANCELLED, draft.now_ms)
    draft.emit(JobCancelled(tenant=name.tenant, job_id=name.job_id, forget_ms=forget_ms))
