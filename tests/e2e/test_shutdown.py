"""A broker that is told to stop finishes what it has begun, and a restart finds everything."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from tests.crash.broker import WAIT_S, Broker, broker, run
from tests.crash.ledger import Ledger
from tests.crash.load import Load, load_on

CALLS = 50
GATHERED_MS = 1_500
"""Writes are gathered for so long before a commit, so that calls are under way when the signal comes."""

NEXT_LOOK_S = 0.02
STOPS = pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@pytest.mark.slow
@STOPS
def test_calls_that_are_under_way_are_answered_before_the_broker_ends(tmp_path, stop):
    ledger, chance = Ledger(), random.Random(4)

    async def stop_amid_calls() -> None:
        with broker(tmp_path / "data", commit_interval_ms=GATHERED_MS) as running:
            async with load_on(running, ledger, chance) as load:
                # The first commit of each shard starts at once, and the second so much later.
                await asyncio.gather(*(load.enqueue() for _ in range(CALLS)))
                calls = [asyncio.create_task(load.enqueue()) for _ in range(CALLS)]
                await until_begun(load, CALLS)
                running.signal(stop)
                jobs = await asyncio.gather(*calls)
            assert await ended(running) == 0

        assert all(job.enqueued for job in jobs)
        await find_everything(tmp_path / "data", ledger, chance)

    run(stop_amid_calls())


@pytest.mark.slow
@STOPS
def test_a_broker_that_is_stopped_under_load_loses_nothing(tmp_path, stop):
    ledger, chance = Ledger(), random.Random(5)

    async def stop_under_load() -> None:
        with broker(tmp_path / "data") as running:
            async with load_on(running, ledger, chance) as load:
                work = asyncio.create_task(load.run())
                await load.replies(300)
                running.signal(stop)
                await work
                assert await ended(running) == 0

        await find_everything(tmp_path / "data", ledger, chance)

    run(stop_under_load())


@pytest.mark.slow
def test_a_broker_that_nobody_calls_stops_at_once_also_with_clients_connected(tmp_path):
    async def stop_idle() -> None:
        with broker(tmp_path / "data") as running:
            async with load_on(running, Ledger(), random.Random(6)) as load:
                running.signal(signal.SIGTERM)
                assert await ended(running) == 0
                with pytest.raises(AioRpcError) as refused:
                    await load.enqueue()
                assert refused.value.code() is StatusCode.UNAVAILABLE

    run(stop_idle())


@pytest.mark.slow
def test_a_broker_that_is_stopped_while_it_starts_ends_as_one_that_is_done(tmp_path):
    running = Broker(tmp_path / "data")
    try:
        running.signal(signal.SIGTERM)
        assert running.exit_code() in (0, -signal.SIGTERM)
    finally:
        running.close()


async def ended(running: Broker) -> int:
    """The exit code, of a broker that had nothing to complain about."""
    code = await asyncio.to_thread(running.exit_code)
    assert "server stopped" in running.said
    assert "Traceback" not in running.said
    return code


async def until_begun(load: Load, calls: int) -> None:
    """Wait until so many calls are at work in the server."""
    for _ in range(round(WAIT_S / NEXT_LOOK_S)):
        dump = (await load.client.call("DumpTasks")).dump
        if dump.count("/silo.v1.Silo/Enqueue") >= calls:
            return
        await asyncio.sleep(NEXT_LOOK_S)
    raise AssertionError(dump)


async def find_everything(data: Any, ledger: Ledger, chance: random.Random) -> None:
    with broker(data) as running:
        async with load_on(running, ledger, chance) as load:
            await load.check()
            await load.report_open_tasks()
            await load.check()
