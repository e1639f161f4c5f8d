"""The model of a database does what SlateDB does, in memory and on a disk; and what its faults do."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.errors import Fenced, SiloError, StoreFailed
from silo.storage.database import Database, Reader
from silo.storage.stores import StoreSpec, open_database
from silo.testing.loop import Process, SimulatedLoop
from silo.testing.store import Disk, ModelDatabase, StoreFaults
from tests.serving import run

_model: type[Database] = ModelDatabase

Open = Callable[[], Awaitable[Database]]

# Keys that start with 00 are storage's own.
keys = st.binary(min_size=1, max_size=2).filter(lambda key: key[0] > 0)
changes = st.lists(st.tuples(keys, st.none() | st.binary(max_size=3)), min_size=1, max_size=6)
ranges = st.tuples(keys, keys, st.integers(0, 12), st.booleans())
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), changes),
        st.tuples(st.just("write"), changes),
        st.tuples(st.just("read while writing"), changes),
        st.tuples(st.just("get"), keys),
        st.tuples(st.just("scan"), ranges),
        st.tuples(st.just("pages"), ranges),
        st.tuples(st.just("snapshot"), st.none()),
        st.tuples(st.just("take over"), changes),
        st.tuples(st.just("crash"), st.none()),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=10,
)


async def write(database: Database, what: list[tuple[bytes, bytes | None]]) -> None:
    batch = database.batch()
    batch.change(what)
    await database.write(batch)


async def everything(reader: Reader) -> list[Any]:
    return [row async for page in reader.pages(b"\x01", b"\xff\xff\xff") for row in page]


async def play(open_it: Open, script: list[Any]) -> list[Any]:
    """What a database answers to each step."""
    database = await open_it()
    snapshots: list[Any] = []
    answers: list[Any] = []
    for kind, what in script:
        readers: list[Reader] = [database, *snapshots]
        match kind:
            case "write":
                answers.append(await write(database, what))
            case "read while writing":
                before = await everything(database)
                writing = asyncio.ensure_future(write(database, what))
                await asyncio.sleep(0)
                meanwhile = await everything(database)
                await writing
                assert meanwhile in (before, await everything(database))
            case "get":
                answers.append([await reader.get(what) for reader in readers])
            case "scan":
                first, end, limit, reverse = what
                answers.append(
                    [await each.scan(first, end, limit=limit, reverse=reverse) for each in readers]
                )
            case "pages":
                first, end, rows, _ = what
                answers.append(
                    [[page async for page in each.pages(first, end, rows=rows + 1)] for each in readers]
                )
            case "snapshot":
                snapshots.append(await database.snapshot())
            case _:
                # Snapshots end with the database that they are of.
                for snapshot in snapshots:
                    snapshot.release()
                snapshots = []
                answers.append(await changed_hands(database, open_it, kind, what))
                database = answers[-1].pop("database")
        answers.append(await everything(database))
    await database.close()
    return answers


async def changed_hands(database: Database, open_it: Open, kind: str, what: Any) -> dict[str, Any]:
    """The database is opened anew, after or before its owner lets go."""
    told = ""
    if kind == "close":
        await database.close()
    elif kind == "crash":
        await database.abandon()
    successor = await open_it()
    if kind == "take over":
        try:
            await write(database, what)
        except SiloError as error:
            told = type(error).__name__
        await database.abandon()
    return {"database": successor, "told": told}


def a_disk(loop: SimulatedLoop, faults: StoreFaults | None = None, seed: int = 0, **more: Any) -> Disk:
    return Disk(
        Process(loop, "store"), faults or StoreFaults(), random.Random(seed), happened=Counter(), **more
    )


def simulated(main: Callable[[SimulatedLoop], Awaitable[Any]]) -> Any:
    loop = SimulatedLoop(random.Random(0))

    async def go() -> Any:
        return await main(loop)

    return loop.simulate(go())


@settings(max_examples=40)
@given(steps)
def test_the_model_answers_as_slatedb_does(script):
    async def on_the_model(loop: SimulatedLoop) -> list[Any]:
        return await play(a_disk(loop).open, script)

    async def in_memory() -> list[Any]:
        spec = StoreSpec.in_memory()
        return await play(lambda: open_database(spec, "shard"), script)

    async def on_a_disk() -> list[Any]:
        with tempfile.TemporaryDirectory() as directory:
            spec = StoreSpec(backend="fs", path=f"{directory}/%shard%", fsync=False)
            return await play(lambda: open_database(spec, "shard"), script)

    expected = simulated(on_the_model)
    assert expected == run(in_memory())
    assert expected == run(on_a_disk())


def test_what_a_crash_leaves_is_all_that_was_acknowledged_and_then_some_in_order():
    kept = set()
    for seed in range(40):

        async def main(loop: SimulatedLoop, seed: int = seed) -> None:
            disk = a_disk(loop, StoreFaults(write_s=(1, 1)), seed)
            process = Process(loop, "broker")
            database = await disk.open(process)
            await write(database, [(b"\x01", b"acknowledged")])
            for number in range(2, 6):
                process.start(write(database, [(bytes([number]), b"")]))
            await asyncio.sleep(0)
            process.crash()
            disk.crashed(process)
            left = [key[0] for key, _ in await everything(await disk.open())]
            assert left == list(range(1, 1 + len(left)))
            assert left
            kept.add(len(left))

        simulated(main)
    assert kept == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("faults", "is_there"), [({"fail": 1.0}, False), ({"unknown": 1.0}, True)])
def test_a_write_that_fails_may_be_there_and_the_database_is_broken(faults, is_there):
    async def main(loop: SimulatedLoop) -> None:
        disk = a_disk(loop, StoreFaults(**faults))
        database = await disk.open()
        with pytest.raises(StoreFailed):
            await write(database, [(b"\x01", b"x")])
        with pytest.raises(StoreFailed):
            await write(database, [(b"\x02", b"x")])
        with pytest.raises(StoreFailed):
            database.check()
        assert (await (await disk.open()).get(b"\x01") == b"x") is is_there

    simulated(main)


def test_a_write_that_is_stuck_fails_and_may_arrive_later_unless_somebody_has_the_disk():
    async def main(loop: SimulatedLoop) -> None:
        arrived = 0
        for seed in range(20):
            faults = StoreFaults(stuck=1.0)
            disk = a_disk(loop, faults, seed)
            database = await disk.open()
            with pytest.raises(StoreFailed):
                await write(database, [(b"\x01", b"x")])
            assert b"\x01" not in disk.rows
            if seed % 2:
                await disk.open()
            await asyncio.sleep(60)
            arrived += b"\x01" in disk.rows
            assert not (seed % 2 and b"\x01" in disk.rows)
        assert 0 < arrived < 10

    simulated(main)


def test_whoever_lost_the_disk_is_told_so_with_what_it_had_on_its_way():
    async def main(loop: SimulatedLoop) -> None:
        disk = a_disk(loop, StoreFaults(write_s=(5, 5)))
        first = await disk.open()
        on_its_way = asyncio.ensure_future(write(first, [(b"\x01", b"x")]))
        await asyncio.sleep(1)
        second = await disk.open()
        with pytest.raises(Fenced):
            await on_its_way
        with pytest.raises(Fenced):
            first.check()
        assert await everything(second) == []

    simulated(main)
