"""DeleteJob and retention: ended jobs go, with everything that belongs to them."""

from __future__ import annotations

from silo.errors import JobInProgress
from silo.events.catalogue import JobDeleted, JobForgotten
from silo.projections.attempts import ATTEMPTS, earlier_keys
from silo.projections.jobs import JOBS, JobRow
from silo.projections.tasks import FORGETTING
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, require_jobs

FORGOTTEN_PER_COMMAND_MAX = 200


def delete(name: JobName, draft: Draft) -> None:
    """Remove an ended job.  One that does not exist is fine.  Raises JobInProgress for a job that has not ended."""
    job = draft.view.get(JOBS, (name.tenant, name.job_id))
    if job is None:
        return
    # SILO-JOB-2: only an ended job can go.
    if not job.status.is_terminal:
        raise JobInProgress(name.job_id)

    _require_attempts(name, job, draft)
    draft.emit(JobDeleted(tenant=name.tenant, job_id=name.job_id))


def forget_expired(_: None, draft: Draft) -> int:
    """Remove jobs whose retention is over.  Returns how many it removed; there may be more."""
    due = [
        JobName(ref.tenant, ref.job_id)
        for key, ref in draft.view.first(FORGETTING, (), FORGOTTEN_PER_COMMAND_MAX)
        if int(key[0]) <= draft.now_ms
    ]
    jobs = require_jobs(due, draft.view)
    for name, job in zip(due, jobs, strict=True):
        _require_attempts(name, job, draft)
    for name in due:
        draft.emit(JobForgotten(tenant=name.tenant, job_id=name.job_id))
    return len(due)


def _require_attempts(name: JobName, job: JobRow, draft: Draft) -> None:
    draft.view.require(ATTEMPTS, earlier_keys(name.tenant, name.job_id, job))
