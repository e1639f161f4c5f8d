"""A broker that is killed under load, over and over, loses nothing that it acknowledged."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from silo.shard.replay import verify
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec, open_database
from tests.crash.broker import broker, run
from tests.crash.ledger import Ledger
from tests.crash.load import load_on

ROUNDS = 10
REPLIES_MAX = 600
SEED = int(os.environ.get("SILO_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""The load and the moments of death are drawn from it; SILO_CRASH_SEED=... draws them again."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "checkpoints",
    [
        pytest.param({"checkpoint_interval_ms": 20, "checkpoint_rows": 50}, id="checkpoints all the time"),
        pytest.param({"checkpoint_interval_ms": 2_000}, id="few checkpoints"),
    ],
)
def test_a_broker_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path, checkpoints):
    print(f"SILO_CRASH_SEED={SEED}")
    chance = random.Random(SEED)
    ledger = Ledger()
    for number in range(ROUNDS):
        run(kill_under_load(tmp_path / "data", checkpoints, ledger, chance))
        print(f"round {number}: {len(ledger.jobs)} jobs, {ledger.acknowledged} replies")

    shards = run(drain(tmp_path / "data", checkpoints, ledger, chance))
    for shard in shards:
        assert run(what_differs(tmp_path / "data", shard)) is None


async def kill_under_load(data: Path, checkpoints: dict, ledger: Ledger, chance: random.Random) -> None:
    """One life: everything is as it was acknowledged, work goes on, and somewhere in it comes the end."""
    with broker(data, **checkpoints) as running:
        async with load_on(running, ledger, chance) as load:
            await load.check()
            await load.report_open_tasks()
            await load.check()
            work = asyncio.create_task(load.run())
            dying = asyncio.create_task(load.replies(chance.randint(1, REPLIES_MAX)))
            await asyncio.wait([work, dying], return_when=asyncio.FIRST_COMPLETED)
            assert not work.done(), work.result()
            running.kill()
            await work


async def drain(data: Path, checkpoints: dict, ledger: Ledger, chance: random.Random) -> list[str]:
    """Do the work that is left.  Returns the ids of the shards, the rows of which are all on disk then."""
    with broker(data, **checkpoints) as running:
        async with load_on(running, ledger, chance) as load:
            await load.check()
            await load.report_open_tasks()
            await load.drain()
            found = await load.check()
            shards = (await load.client.call("GetNodeInfo")).owned_shards
            assert sum(shard.total_jobs for shard in shards) == found
            assert sum(shard.completed_jobs for shard in shards) == found
            for shard in shards:
                await load.client.call("FlushShard", shard=shard.shard_id)
        running.kill()
    return [shard.shard_id for shard in shards]


async def what_differs(data: Path, shard: str):
    """The first difference between the rows of a shard and those that its log gives."""
    database = await open_database(StoreSpec(backend="fs", path=f"{data}/%shard%", fsync=False), shard)
    snapshot = await database.snapshot()
    try:
        return await verify(snapshot, MemoryDatabase())
    finally:
        snapshot.release()
        await database.close()
