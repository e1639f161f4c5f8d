"""Two brokers on one data directory: the newer one takes over, the older one notices and ends."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.crash.broker import broker, run
from tests.crash.ledger import Ledger
from tests.crash.load import load_on

REPLIES = 200


@pytest.mark.slow
def test_a_broker_whose_data_another_one_opens_ends_and_what_it_acknowledged_is_there(tmp_path):
    ledger, chance = Ledger(), random.Random(1)

    async def take_over() -> None:
        with broker(tmp_path / "data") as stale:
            async with load_on(stale, ledger, chance) as load:
                work = asyncio.create_task(load.run())
                await load.replies(REPLIES)
                with broker(tmp_path / "data") as fresh:
                    assert await asyncio.to_thread(stale.exit_code) == 1
                    await work
                    assert "another process has opened shard" in stale.said
                    assert "so this one stops" in stale.said
                    assert "Traceback" not in stale.said
                    async with load_on(fresh, ledger, chance) as new_load:
                        await new_load.check()
                        await new_load.report_open_tasks()
                        await new_load.enqueue()
                        await new_load.check()
                    assert fresh.is_running

    run(take_over())
