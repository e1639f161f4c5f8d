"""DropTenantHolders: an operator takes away every slot that a tenant's jobs hold.

The jobs themselves go on, so that more of them may run for a while than their limits allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from silo.events.catalogue import HoldersDropped
from silo.projections.jobs import JOBS
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, require_gates


def drop_holders(names: Sequence[JobName], draft: Draft) -> int:
    """Take away the slots that these jobs hold, if they do.  Returns how many it took."""
    keys = [(name.tenant, name.job_id) for name in names]
    draft.view.require(JOBS, keys)
    jobs = [draft.view.get(JOBS, key) for key in keys]
    require_gates([(name.tenant, job.spec) for name, job in zip(names, jobs, strict=True) if job], draft.view)
    dropped = 0
    for name, job in zip(names, jobs, strict=True):
        chain = job.chain if job is not None else None
        if chain is None or not chain.held:
            continue
        queues = tuple(queue for queue, _ in chain.held)
        dropped += len(queues)
        # SILO-SLOT-5: an operator's release is an event of its own.
        draft.emit(
            HoldersDropped(tenant=name.tenant, job_id=name.job_id, task_id=chain.task_id, queues=queues)
        )
    return dropped
