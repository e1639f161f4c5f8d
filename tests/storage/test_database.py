"""Every database does the same: a dictionary, SlateDB in memory, SlateDB on a disk."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.storage.database import Batch, Database, Reader, Snapshot
from silo.storage.memory import MemoryBatch, MemoryDatabase, MemorySnapshot
from silo.storage.slate import SlateBatch, SlateDatabase, SlateSnapshot
from silo.storage.stores import StoreSpec, open_database

# For mypy: these are the protocols.
_databases: tuple[type[Database], ...] = (MemoryDatabase, SlateDatabase)
_snapshots: tuple[type[Snapshot], ...] = (MemorySnapshot, SlateSnapshot)
_batches: tuple[type[Batch], ...] = (MemoryBatch, SlateBatch)


@asynccontextmanager
async def all_kinds():
    with tempfile.TemporaryDirectory() as directory:
        slate = [
            await open_database(StoreSpec.in_memory(), "shard"),
            await open_database(StoreSpec(backend="fs", path=f"{directory}/%shard%", fsync=False), "shard"),
        ]
        yield [MemoryDatabase(), *slate]
        for database in slate:
            await database.close()


# Keys that start with 00 are storage's own.
keys = st.binary(min_size=1, max_size=2).filter(lambda key: key[0] > 0)
changes = st.lists(st.tuples(keys, st.none() | st.binary(max_size=3)), max_size=8)
ranges = st.tuples(keys, keys, st.integers(0, 12), st.booleans())
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), changes),
        st.tuples(st.just("change"), changes),
        st.tuples(st.just("get"), keys),
        st.tuples(st.just("scan"), ranges),
        st.tuples(st.just("pages"), ranges),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("snapshot"), st.none()),
    ),
    max_size=12,
)


async def outcome(database: Database, readers: list[Reader], step) -> object:
    """What the step answers, asked of the database and of every snapshot taken so far."""
    match step:
        case "change", what:
            batch = database.batch()
            batch.change(what)
            await database.write(batch)
            return len(batch)
        case "write", what:
            batch = database.batch()
            for key, value in what:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            await database.write(batch)
            return len(batch)
        case "get", key:
            return [await reader.get(key) for reader in readers]
        case "scan", (first, end, limit, reverse):
            return [await reader.scan(first, end, limit=limit, reverse=reverse) for reader in readers]
        case "pages", (first, end, rows, _):
            return [[page async for page in reader.pages(first, end, rows=rows + 1)] for reader in readers]
        case "flush", _:
            return await database.flush()
        case "snapshot", _:
            readers.append(await database.snapshot())
            return None


@settings(max_examples=30, deadline=None)
@given(steps)
def test_all_databases_answer_alike(steps):
    async def compare():
        async with all_kinds() as databases:
            readers = [[database] for database in databases]
            for step in steps:
                answers = [await outcome(*pair, step) for pair in zip(databases, readers, strict=True)]
                assert answers[1:] == answers[:1] * (len(answers) - 1), step
            for snapshots in readers:
                for snapshot in snapshots[1:]:
                    snapshot.release()
                    snapshot.release()

    asyncio.run(compare())


def test_a_long_scan_shows_the_range_as_it_was_and_lets_others_run():
    async def scan_while_writing():
        async with all_kinds() as databases:
            for database in databases:
                batch = database.batch()
                for number in range(1_200):
                    batch.put(b"k%04d" % number, b"v")
                await database.write(batch)
                turns = 0

                async def count_turns():
                    nonlocal turns
                    while True:
                        turns += 1
                        await asyncio.sleep(0)

                counting = asyncio.create_task(count_turns())
                pages = []
                async for page in database.pages(b"k", b"l", rows=100):
                    pages.append(page)
                    if len(pages) == 1:
                        more = database.batch()
                        more.put(b"k0500x", b"late")
                        more.delete(b"k0900")
                        await database.write(more)
                counting.cancel()
                assert [key for page in pages for key, _ in page] == [
                    b"k%04d" % number for number in range(1_200)
                ]
                assert turns >= len(pages) - 1
                assert len(await database.scan(b"k", b"l", limit=5_000, reverse=True)) == 1_200

    asyncio.run(scan_while_writing())


def test_a_batch_is_of_its_own_kind():
    async def mix():
        async with all_kinds() as (memory, slate, _):
            with pytest.raises(TypeError):
                await slate.write(memory.batch())
            with pytest.raises(TypeError):
                await memory.write(slate.batch())

    asyncio.run(mix())
