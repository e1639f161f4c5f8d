"""The store goes away under a running broker and comes back: callers are told in time, and nobody restarts anything."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from tests.crash.broker import WAIT_S, Broker, broker, run
from tests.crash.ledger import Ledger
from tests.crash.load import TENANTS, Load, load_on

REPLIES = 200
NEXT_LOOK_S = 0.05


def take_directory_away(data: Path, _: Broker) -> Callable[[], None]:
    elsewhere = data.with_name("elsewhere")
    elsewhere.write_text("a file, so that nobody makes the directory anew")
    exchange(data, elsewhere)

    def bring_back() -> None:
        exchange(data, elsewhere)

    return bring_back


def exchange(one: Path, other: Path) -> None:
    """Exchange two names at once: between two renames the broker would make the directory anew, and write to it."""
    here, flag = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(here, bytes(one), here, bytes(other), flag):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


def let_no_file_grow(_: Path, running: Broker) -> Callable[[], None]:
    """As a full disk does.  The process is told by an error, as Python turns the signal off."""
    pid, kind = running.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (0, before[1]))
    return lambda: resource.prlimit(pid, kind, before) and None


@pytest.mark.slow
@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(take_directory_away, id="the directory is gone"),
        pytest.param(let_no_file_grow, id="the disk is full"),
    ],
)
def test_a_broker_outlives_an_outage_of_its_store(tmp_path, begin):
    ledger, chance = Ledger(), random.Random(2)

    async def outlive() -> None:
        with broker(tmp_path / "data", durability_timeout_ms=2_000) as running:
            async with load_on(running, ledger, chance) as load:
                work = asyncio.create_task(load.run())
                await load.replies(REPLIES)
                end = begin(tmp_path / "data", running)
                # The load stops at the first call that is answered with UNAVAILABLE, or the test fails.
                await work
                for _ in range(3):
                    assert await refusal_of_enqueue(load) is StatusCode.UNAVAILABLE
                assert running.is_running
                end()
                await until_it_serves(load)
                await load.check()
                await load.report_open_tasks()
                await load.check()
            assert running.is_running

    run(outlive())


async def refusal_of_enqueue(load: Load, tenant: str = "") -> StatusCode | None:
    try:
        await load.enqueue(tenant)
    except AioRpcError as error:
        return error.code()
    return None


async def until_it_serves(load: Load) -> None:
    for _ in range(round(WAIT_S / NEXT_LOOK_S)):
        # Among the tenants are some of each shard.
        if not any([await refusal_of_enqueue(load, tenant) for tenant in TENANTS]):
            return
        await asyncio.sleep(NEXT_LOOK_S)
    raise AssertionError("the broker does not serve again")
