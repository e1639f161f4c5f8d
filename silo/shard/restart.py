"""RestartJob: another run for a job that failed or was cancelled."""

from __future__ import annotations

from silo.domain.jobs import JobStatus
from silo.events.catalogue import JobRestarted
from silo.shard.chains import start_chain
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, refusal, the_job


def restart(name: JobName, draft: Draft) -> None:
    """Give a job a new run, with all its retries.  Attempt numbers go on; the requested start and all limits still hold.

    Raises JobNotFound, or WrongState unless the job failed or was cancelled.
    """
    job = the_job(name, draft.view)
    # SILO-JOB-2: only what failed or was cancelled goes on.
    if job.status is JobStatus.SUCCEEDED:
        raise refusal("restart", name, job, "job already succeeded")
    if not job.status.is_terminal:
        raise refusal("restart", name, job, "job is still in progress")

    draft.emit(JobRestarted(tenant=name.tenant, job_id=name.job_id))
    start_chain(
        draft,
        name.tenant,
        name.job_id,
        spec=job.spec,
        attempt=job.attempts + 1,
        relative_attempt=1,
        start_ms=max(job.spec.enqueue_time_ms, draft.now_ms),
    )
