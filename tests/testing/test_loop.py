from __future__ import annotations

import asyncio
import random
import time

import pytest

from silo.testing.loop import Deadlock, Process, SimulatedLoop


def a_loop(seed: int = 0) -> SimulatedLoop:
    return SimulatedLoop(random.Random(seed))


def test_an_hour_passes_at_once():
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert 3600 <= a_loop().simulate(main()) < 3601
    assert time.monotonic() - began < 60


def order(seed: int) -> list[int]:
    async def main() -> list[int]:
        done: list[int] = []

        async def one(number: int) -> None:
            await asyncio.sleep(1)
            done.append(number)

        await asyncio.gather(*(one(number) for number in range(6)))
        return done

    return a_loop(seed).simulate(main())


def test_timers_of_the_same_time_come_in_an_order_that_the_seed_decides():
    orders = [order(seed) for seed in range(10)]

    assert orders == [order(seed) for seed in range(10)]
    assert len({tuple(each) for each in orders}) > 5


def test_callbacks_come_in_the_order_in_which_they_were_scheduled():
    async def main() -> list[int]:
        done: list[int] = []
        for number in range(6):
            asyncio.get_running_loop().call_soon(done.append, number)
        await asyncio.sleep(0)
        return done

    assert a_loop().simulate(main()) == list(range(6))


def test_who_waits_for_nobody_is_told_of_the_deadlock():
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="nobody can go on"):
        a_loop().simulate(main())


def test_a_process_that_crashes_does_not_even_clean_up():
    loop = a_loop()
    told: list[str] = []

    async def work() -> None:
        try:
            told.append("began")
            await asyncio.sleep(10)
            told.append("ended")
        finally:
            told.append("cleaned up")

    async def main() -> list[str]:
        process = Process(loop, "broker")
        process.start(work())
        await asyncio.sleep(1)
        process.crash()
        await process.gone
        await asyncio.sleep(60)
        return list(told)

    assert loop.simulate(main()) == ["began"]


def test_tasks_belong_to_the_process_of_those_who_start_them():
    loop = a_loop()

    async def main() -> bool:
        process = Process(loop, "broker")
        children: list[asyncio.Task[None]] = []

        async def parent() -> None:
            children.append(asyncio.create_task(asyncio.sleep(5)))
            await asyncio.sleep(5)

        process.start(parent())
        await asyncio.sleep(1)
        process.crash()
        await asyncio.sleep(60)
        return children[0].done()

    assert not loop.simulate(main())


def test_a_process_that_pauses_goes_on_where_it_was():
    loop = a_loop()

    async def main() -> list[float]:
        process = Process(loop, "broker")
        times: list[float] = []

        async def work() -> None:
            for _ in range(3):
                await asyncio.sleep(1)
                times.append(loop.time())

        process.start(work())
        await asyncio.sleep(1.5)
        process.pause()
        await asyncio.sleep(20)
        process.go_on()
        await asyncio.sleep(20)
        return times

    first, second, third = loop.simulate(main())
    assert first < 1.1
    assert 21.5 <= second < 21.6
    assert 22.5 <= third < 22.6


def test_a_fuse_burns_with_the_steps_of_its_process_only():
    loop = a_loop()

    async def main() -> int:
        process = Process(loop, "broker")
        steps = 0

        async def work() -> None:
            nonlocal steps
            while True:
                steps += 1
                await asyncio.sleep(0.1)

        process.start(work())
        process.light_fuse(7, process.crash)
        await asyncio.sleep(60)
        return steps

    assert 3 <= loop.simulate(main()) <= 7


def test_there_are_no_threads():
    async def main() -> None:
        await asyncio.to_thread(int)

    with pytest.raises(NotImplementedError):
        a_loop().simulate(main())
