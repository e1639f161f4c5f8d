"""ExpediteJob: a job that waits for its time need not wait any longer."""

from __future__ import annotations

from silo.domain.jobs import JobStatus
from silo.events.catalogue import JobExpedited
from silo.projections.jobs import Chain, Place
from silo.shard.draft import Draft
from silo.shard.gates import walk
from silo.shard.jobs import JobName, refusal, the_job


def expedite(name: JobName, draft: Draft) -> None:
    """Let a job go on now that waits for a later start, for its next try or for another check of a rate limit.

    It gains nothing on the others in a line: it stands where it would if it had been to start now.

    Raises JobNotFound, or WrongState if nothing of the job waits for a time.
    """
    job = the_job(name, draft.view)
    if job.status in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        raise refusal("expedite", name, job, "job is already in terminal state")
    if job.cancelled_ms is not None:
        raise refusal("expedite", name, job, "job is cancelled")
    if job.status is JobStatus.RUNNING:
        raise refusal("expedite", name, job, "job is currently running")
    chain = job.chain
    if chain is None or chain.place in (Place.WAITING, Place.THROTTLED):
        raise refusal("expedite", name, job, "job has no pending task to expedite")
    if not _waits_for_a_time(chain, draft.now_ms):
        raise refusal("expedite", name, job, "task is already ready to run (not future-scheduled)")

    draft.emit(
        JobExpedited(
            tenant=name.tenant,
            job_id=name.job_id,
            virtual_start_ms=draft.rules.virtual_start_ms(draft.now_ms, job.spec.priority),
        )
    )
    walk(name, draft)


def _waits_for_a_time(chain: Chain, now_ms: int) -> bool:
    """Whether the chain's start lies ahead, or the next check of a rate limit."""
    match chain.place:
        case Place.TIMER:
            return chain.start_ms > now_ms
        case Place.CHECKING:
            return chain.due_ms > now_ms
        case _:
            return False
