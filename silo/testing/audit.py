"""What must hold when a history is over."""

from __future__ import annotations

from silo.shard.conservation import check_conservation
from silo.shard.disk import CHECKPOINT_KEY
from silo.shard.replay import verify
from silo.storage.memory import MemoryDatabase
from silo.testing.oracle import Broken, Oracle
from silo.testing.store import Disk


async def audit(shard_id: str, disk: Disk, oracle: Oracle) -> None:
    """Check what a shard has left on its disk, after a checkpoint.

    Raises:
        Broken: the rows are not those that the log gives, they do not add up, or a job did not end.
    """
    live = MemoryDatabase.of(disk.rows)
    difference = await verify(live, MemoryDatabase())
    if difference is not None:
        raise Broken("rebuild equals live", f"{shard_id}: {difference}")
    if await live.get(CHECKPOINT_KEY) is None and oracle.seq > 1:
        raise Broken("rebuild equals live", f"{shard_id} has never written a checkpoint")
    violations = await check_conservation(live)
    if violations:
        raise Broken("conservation", f"{shard_id}: {'; '.join(violations)}")
    if oracle.open_jobs():
        raise Broken("liveness", f"{shard_id}: {_told(oracle)}")
    if oracle.leases:
        raise Broken("one lease", f"{shard_id}: there are leases of jobs that have ended: {oracle.leases}")


def _told(oracle: Oracle) -> str:
    left = oracle.open_jobs()
    some = ", ".join(f"{job.name} ({job.chain.place if job.chain else '?'})" for job in left[:5])
    return f"{len(left)} jobs did not end: {some}"
