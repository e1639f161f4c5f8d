"""Who holds the slots of a tenant's queues?

Slots are counted by queue and known to the chains that hold them; in the order of queues they are listed by checkpoints.
Whoever wants to know of this moment looks at the jobs that have changed since as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import attrs

from silo.projections.jobs import HOLDERS, JOBS
from silo.projections.leases import LEASES
from silo.shard.disk import key_of, read_table, row_key
from silo.shard.draft import Caller, Draft
from silo.shard.drop_holders import drop_holders
from silo.shard.jobs import JobName
from silo.shard.shard import Shard
from silo.storage import keys

DROPPED_PER_COMMAND_MAX = 200


async def drop_tenant_holders(shard: Shard, tenant: str, caller: Caller) -> int:
    """Take away every slot that the tenant's jobs hold at this moment.  Returns how many.

    This takes several commands if they are many.  A job that is let in at its next limit meanwhile, before it had its turn,
    loses that slot as well.

    Raises what `Shard.execute` raises; then some of them may have been taken away already.
    """
    dropped = 0
    async for names in _holders(shard, tenant):
        dropped += await shard.execute(drop_holders, names, caller=caller)
    return dropped


async def _holders(shard: Shard, tenant: str) -> AsyncIterator[list[JobName]]:
    """The jobs that hold a slot, a page at a time; one that holds several comes several times."""
    await shard.checkpoint()
    snapshot = await shard.database.snapshot()
    try:
        async for page in read_table(snapshot, HOLDERS, (tenant,), rows=DROPPED_PER_COMMAND_MAX):
            yield list(dict.fromkeys(JobName(tenant, str(key_of(raw)[4])) for raw, _ in page))
    finally:
        snapshot.release()


@attrs.frozen(kw_only=True)
class Holder:
    """A job that holds a slot; `worker_id` is who runs it, empty while it waits at another gate."""

    job_id: str
    since_ms: int
    worker_id: str


LISTED_MAX = 1_000
"""Holders of a queue that are looked at."""


async def holders_of(shard: Shard, tenant: str, queue: str, *, most: int) -> list[Holder]:
    """Who holds a slot of this queue, the longest first, up to so many."""
    first = row_key(HOLDERS, (tenant, queue))
    listed = await shard.database.scan(first, keys.prefix_end(first), limit=LISTED_MAX)
    since: dict[str, int] = {str(key[4]): int(key[2]) for key in (key_of(raw) for raw, _ in listed)}
    for (its_tenant, job_id), job in shard.rows.changed(JOBS):
        if its_tenant == tenant:
            since.pop(str(job_id), None)
            held = dict(job.chain.held) if job is not None and job.chain is not None else {}
            if queue in held:
                since[str(job_id)] = held[queue]
    longest = sorted(since, key=lambda job_id: (since[job_id], job_id))[:most]
    workers = await shard.execute(_workers, [JobName(tenant, job_id) for job_id in longest])
    return [
        Holder(job_id=job_id, since_ms=since[job_id], worker_id=worker_id)
        for job_id, worker_id in zip(longest, workers, strict=True)
    ]


def _workers(names: Sequence[JobName], draft: Draft) -> list[str]:
    """Who runs these jobs; empty for one that does not run."""
    keys = [(name.tenant, name.job_id) for name in names]
    draft.view.require(JOBS, keys)
    jobs = [draft.view.get(JOBS, key) for key in keys]
    tasks = [(job.chain.task_id,) if job is not None and job.chain is not None else ("",) for job in jobs]
    draft.view.require(LEASES, tasks)
    leases = [draft.view.get(LEASES, task) for task in tasks]
    return [lease.worker_id if lease is not None else "" for lease in leases]
