"""Enqueue: a new job and its first attempt."""

from __future__ import annotations

import attrs

from silo.domain.jobs import JobSpec
from silo.errors import AlreadyExists
from silo.events.catalogue import JobEnqueued
from silo.projections.jobs import JOBS
from silo.shard.chains import start_chain
from silo.shard.draft import Draft


@attrs.frozen(kw_only=True)
class NewJob:
    """A job that a client hands over; an empty `job_id` lets the server choose one."""

    tenant: str
    job_id: str
    spec: JobSpec
    payload: bytes


def enqueue(job: NewJob, draft: Draft) -> str:
    """Take in a job.  Returns its id; raises AlreadyExists if the tenant has a job with that id, in whatever state."""
    # An id made here is new, so nobody needs to look for it.
    if job.job_id and draft.view.get(JOBS, (job.tenant, job.job_id)) is not None:
        raise AlreadyExists(job.job_id)

    job_id = job.job_id or draft.ids.uuid7(draft.now_ms)
    draft.emit(JobEnqueued(tenant=job.tenant, job_id=job_id, spec=job.spec, payload=job.payload))
    start_chain(
        draft,
        job.tenant,
        job_id,
        spec=job.spec,
        attempt=1,
        relative_attempt=1,
        start_ms=job.spec.enqueue_time_ms if job.spec.enqueue_time_ms > 0 else draft.now_ms,
    )
    return job_id
