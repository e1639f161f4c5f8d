"""A record that cannot be read stops its shard, and no other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from silo.events.log import LOG_END, LOG_PREFIX, first_seq_of
from silo.storage.stores import StoreSpec, open_database
from tests.crash.broker import broker, run
from tests.crash.ledger import Ledger
from tests.crash.load import load_on

NO_CHECKPOINTS = {"checkpoint_interval_ms": 3_600_000}
"""So that the whole log is read when the shard is opened next."""

JOBS = 60


@pytest.mark.slow
def test_a_record_that_cannot_be_read_stops_its_shard_and_says_which_and_the_others_serve(tmp_path):
    # A91
    ledger, chance = Ledger(), random.Random(3)
    data = tmp_path / "data"

    async def fill() -> str:
        with broker(data, **NO_CHECKPOINTS) as running:
            async with load_on(running, ledger, chance) as load:
                for _ in range(JOBS):
                    await load.enqueue()
                return load.client.owners[1].shard_id

    async def look(broken: str, seq: int) -> None:
        with broker(data, **NO_CHECKPOINTS) as running:
            async with load_on(running, ledger, chance) as load:
                for job in ledger.jobs.values():
                    if job.shard != broken:
                        ledger.check(job, await load.client.call("GetJob", **named(job)))
                        continue
                    with pytest.raises(AioRpcError) as refused:
                        await load.client.call("GetJob", **named(job))
                    assert refused.value.code() is StatusCode.INTERNAL
                    assert f"shard {broken} has stopped" in refused.value.details()
                    assert f"event {seq}" in refused.value.details()
                # A worker of all shards is served by those that are left.
                assert {task.shard for task in await load.lease(100)} == {
                    owner.shard_id for owner in load.client.owners if owner.shard_id != broken
                }
            assert f"shard {broken} has stopped" in running.said
            assert f"event {seq}" in running.said
            assert running.is_running

    broken = run(fill())
    assert {job.shard for job in ledger.jobs.values()} > {broken}
    seq = run(spoil_a_record(data, broken))
    run(look(broken, seq))


def named(job) -> dict:
    return {"shard": job.shard, "tenant": job.tenant, "id": job.id, "include_attempts": True}


async def spoil_a_record(data: Path, shard: str) -> int:
    """Write nonsense over one record in the middle of the log.  Returns its first sequence number."""
    database = await open_database(StoreSpec(backend="fs", path=f"{data}/%shard%", fsync=False), shard)
    records = await database.scan(LOG_PREFIX, LOG_END, limit=1_000)
    key, _ = records[len(records) // 2]
    batch = database.batch()
    batch.put(key, b"\x01 is no record")
    await database.write(batch)
    await database.close()
    return first_seq_of(key)
