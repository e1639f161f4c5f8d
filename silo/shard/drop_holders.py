"""DropTenantHolders: an operator takes away every slot that a tenant's jobs hold.

The jobs themselves go on, so that more of them may run for a while than their limits allow.
"""

from __future__ import annotations

from silo.events.catalogue import HoldersDropped
from silo.projections.concurrency import HOLDERS
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, require_jobs

DROPPED_PER_COMMAND_MAX = 200


def drop_holders(tenant: str, draft: Draft) -> int:
    """Drop the slots of some of the tenant's jobs.  Returns how many slots; there may be more until it returns 0."""
    front = draft.view.first(HOLDERS, (tenant,), DROPPED_PER_COMMAND_MAX)
    names = list(dict.fromkeys(JobName(tenant, row.job_id) for _, row in front))
    dropped = 0
    for name, job in zip(names, require_jobs(names, draft.view), strict=True):
        assert job.chain is not None
        dropped += len(job.chain.held)
        draft.emit(
            HoldersDropped(
                tenant=tenant, job_id=name.job_id, task_id=job.chain.task_id, queues=job.chain.held
            )
        )
    return dropped
