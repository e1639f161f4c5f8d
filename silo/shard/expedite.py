"""ExpediteJob: a job that waits for its time need not wait any longer."""

from __future__ import annotations

from silo.domain.jobs import JobStatus
from silo.events.catalogue import JobExpedited
from silo.projections.jobs import Place
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, refusal, the_job


def expedite(name: JobName, draft: Draft) -> None:
    """Let a job start now that waits for a later start or for its next try.

    Raises JobNotFound, or WrongState if nothing of the job waits for a time.
    """
    job = the_job(name, draft.view)
    if job.status in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        raise refusal("expedite", name, job, "job is already in terminal state")
    if job.cancelled_ms is not None:
        raise refusal("expedite", name, job, "job is cancelled")
    if job.status is JobStatus.RUNNING:
        raise refusal("expedite", name, job, "job is currently running")
    if job.chain is None:
        raise refusal("expedite", name, job, "job has no pending task to expedite")
    if job.chain.place is not Place.TIMER or job.chain.start_ms <= draft.now_ms:
        raise refusal("expedite", name, job, "task is already ready to run (not future-scheduled)")

    draft.emit(
        JobExpedited(
            tenant=name.tenant,
            job_id=name.job_id,
            virtual_start_ms=draft.rules.virtual_start_ms(draft.now_ms, job.spec.priority),
        )
    )
