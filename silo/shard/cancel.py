"""CancelJob: at once if the job is pending, by its worker if it runs."""

from __future__ import annotations

from silo.domain.jobs import JobStatus
from silo.errors import WrongState
from silo.events.catalogue import CancellationRequested
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, the_job
from silo.shard.outcome import cancel_job


def cancel(name: JobName, draft: Draft) -> int:
    """Ask for the end of a job.  Returns when that was, in ms.

    Raises JobNotFound, or WrongState if it was asked before or the job is over.
    """
    job = the_job(name, draft.view)
    if job.cancelled_ms is not None:
        raise WrongState("job is already cancelled")
    if job.status in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        raise WrongState("job is already in terminal state")

    draft.emit(CancellationRequested(tenant=name.tenant, job_id=name.job_id))
    # SILO-JOB-3: nobody has this job, so nobody else would end it.
    if job.status is JobStatus.SCHEDULED:
        cancel_job(name, draft)
    return draft.now_ms
