from __future__ import annotations

import pytest

from silo.errors import ShardNotReady
from silo.events.catalogue import HoldersDropped
from silo.shard import holders
from silo.shard.conservation import check_conservation
from silo.shard.draft import Caller
from silo.shard.enqueue import enqueue
from silo.shard.holders import drop_tenant_holders
from silo.shard.lease import lease_tasks
from silo.storage.stores import StoreSpec
from tests.builders import a_job, a_limit, for_worker
from tests.serving import a_shard, opens_slate, run, serving

CALLER = Caller(actor="operator", method="DropTenantHolders")


@pytest.mark.parametrize("page", [1, 2, 200], ids=lambda rows: f"pages of {rows}")
def test_all_slots_of_one_tenant_are_taken_away(monkeypatch, page):
    # A111
    monkeypatch.setattr(holders, "DROPPED_PER_COMMAND_MAX", page)

    async def main():
        async with serving(opens_slate(StoreSpec.in_memory())) as shard:
            for number in range(5):
                limits = (a_limit(9, "a"), a_limit(9, "b"))
                for tenant in ("acme", "acme and more", "other"):
                    await shard.execute(enqueue, a_job(tenant=tenant, job_id=f"{number}", limits=limits))
            await shard.execute(lease_tasks, for_worker(max_tasks=4))
            assert await drop_tenant_holders(shard, "acme", CALLER) == 10

            told = [
                event
                async for events in shard.log.read(1)
                for event in events
                if isinstance(event, HoldersDropped)
            ]
            assert {(event.tenant, event.actor, event.method) for event in told} == {
                ("acme", "operator", "DropTenantHolders")
            }
            assert await drop_tenant_holders(shard, "acme", CALLER) == 0
            assert await drop_tenant_holders(shard, "other", CALLER) == 10
            await shard.checkpoint()
            assert await check_conservation(await shard.database.snapshot()) == []

    run(main())


def test_those_who_waited_have_the_slots_afterwards():
    # A111
    async def main():
        async with serving() as shard:
            for number in range(5):
                limits = (a_limit(9, "a"), a_limit(3, "b"))
                await shard.execute(enqueue, a_job(job_id=f"{number}", limits=limits))
            assert await drop_tenant_holders(shard, "acme", CALLER) == 5 + 3
            assert await drop_tenant_holders(shard, "acme", CALLER) == 2
            assert len(await shard.execute(lease_tasks, for_worker())) == 5

    run(main())


def test_a_tenant_without_jobs_holds_nothing():
    async def main():
        async with serving() as shard:
            assert await drop_tenant_holders(shard, "nobody", CALLER) == 0

    run(main())


def test_a_shard_that_is_not_open_says_so():
    async def main():
        with pytest.raises(ShardNotReady):
            await drop_tenant_holders(a_shard(), "acme", CALLER)

    run(main())
