"""Who holds the slots of a tenant's queues, as it is on disk after a checkpoint.

Slots are counted by queue and known to the chains that hold them; in the order of queues they are listed by checkpoints.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from silo.projections.jobs import HOLDERS
from silo.shard.disk import key_of, row_key
from silo.shard.draft import Caller
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
    first = row_key(HOLDERS, (tenant,))
    try:
        async for page in snapshot.pages(first, keys.prefix_end(first), rows=DROPPED_PER_COMMAND_MAX):
            yield list(dict.fromkeys(JobName(tenant, str(key_of(raw)[4])) for raw, _ in page))
    finally:
        snapshot.release()
