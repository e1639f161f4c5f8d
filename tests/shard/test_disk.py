from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.projections.view import MissingFront, MissingRows, NotLoaded, Table
from silo.shard import disk as disk_module
from silo.shard import rows as rows_module
from silo.shard.disk import key_of, load, read_table, row_key
from silo.shard.rows import Rows
from silo.shard.window import ROWS_MAX
from silo.storage.memory import MemoryDatabase
from tests.serving import run

PLAIN = Table("plain", tag=0x70, row=bytes)
QUEUES = Table("queues", tag=0x71, row=bytes, front=1)
NEXT = Table("next", tag=0x72, row=bytes)
KNOWN = Table("known", tag=0x73, row=bytes, catalogue=1)


async def a_disk(table: Table, keys) -> MemoryDatabase:
    db = MemoryDatabase()
    batch = db.batch()
    for key in keys:
        batch.put(row_key(table, key), repr(key).encode())
    # Neighbours that belong to nobody here.
    batch.put(row_key(NEXT, ("x",)), b"neighbour")
    batch.put(bytes((PLAIN.tag - 1,)) + b"\xff", b"neighbour")
    await db.write(batch)
    return db


class Counting:
    """A reader that counts how it is asked, and lets something happen while it reads."""

    def __init__(self, db: MemoryDatabase, meanwhile=None) -> None:
        self.db, self.meanwhile = db, meanwhile
        self.gets = self.scans = 0

    async def get(self, key):
        self.gets += 1
        found = await self.db.get(key)
        await self.race()
        return found

    async def scan(self, first, end, *, limit, reverse=False):
        self.scans += 1
        found = await self.db.scan(first, end, limit=limit, reverse=reverse)
        await self.race()
        return found

    async def race(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()


part = st.text(max_size=3) | st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(part, max_size=4).map(tuple))
def test_a_key_comes_back_from_its_bytes(key):
    assert key_of(row_key(PLAIN, key)) == key


@given(
    stored=st.sets(st.integers(0, 60), max_size=40),
    wanted=st.lists(st.integers(-5, 70), min_size=1, max_size=40, unique=True),
)
def test_a_load_finds_just_what_is_there(stored, wanted):
    async def main():
        rows, db = Rows(), await a_disk(PLAIN, [(key,) for key in stored])
        keys = tuple((key,) for key in wanted)
        await load(db, rows, MissingRows(PLAIN, keys))
        rows.require(PLAIN, keys)
        for key in wanted:
            assert rows.get(PLAIN, (key,)) == (repr((key,)).encode() if key in stored else None)

    run(main())


def test_rows_that_lie_together_are_read_together():
    async def main():
        keys = [("t", number) for number in range(100)]
        reader = Counting(await a_disk(PLAIN, keys))
        await load(reader, Rows(), MissingRows(PLAIN, tuple(keys)))
        assert (reader.gets, reader.scans) == (0, 2), "a few to see that they do, and the rest"

    run(main())


def test_rows_that_lie_far_apart_are_read_one_by_one():
    async def main():
        keys = [(number,) for number in range(20_000)]
        wanted = tuple(keys[::1_000])
        reader, rows = Counting(await a_disk(PLAIN, keys)), Rows()
        await load(reader, rows, MissingRows(PLAIN, wanted))
        assert reader.scans <= 2
        assert reader.gets >= len(wanted) - 2
        for key in wanted:
            assert rows.get(PLAIN, key) == repr(key).encode()

    run(main())


@pytest.mark.parametrize("waiting", [0, 1, ROWS_MAX // 2 - 1, ROWS_MAX // 2, ROWS_MAX // 2 + 1, ROWS_MAX * 2])
def test_a_queue_is_read_from_its_front_piece_by_piece(waiting):
    async def main():
        keys = [("a", number) for number in range(waiting)]
        db = await a_disk(QUEUES, [*keys, ("b", 0), ("A", 0)])
        rows, reader = Rows(), Counting(db)
        found: list = []
        while True:
            try:
                front = rows.first(QUEUES, ("a",), 300)
            except NotLoaded as absent:
                await load(reader, rows, absent.missing)
                continue
            if not front:
                break
            found += front
            for key, _ in front:
                rows.delete(QUEUES, key)
            rows.keep()
        assert [key for key, _ in found] == keys
        assert reader.scans <= 2 + waiting // (ROWS_MAX // 2 - 300)

    run(main())


def test_one_look_at_a_long_queue_does_not_read_all_of_it():
    async def main():
        keys = [("a", number) for number in range(ROWS_MAX * 2)]
        rows, reader = Rows(), Counting(await a_disk(QUEUES, keys))
        await load(reader, rows, MissingFront(QUEUES, ("a",), 1))
        assert len(rows.first(QUEUES, ("a",), 1)) == 1
        assert reader.scans == 1
        assert rows.horizon(QUEUES, ("a",)) is not None
        assert rows.horizon(QUEUES, ("a",)) < ("a", ROWS_MAX)

    run(main())


def test_asking_for_more_than_a_piece_is_answered():
    async def main():
        keys = [("a", number) for number in range(ROWS_MAX * 2)]
        rows, db = Rows(), await a_disk(QUEUES, keys)
        while True:
            try:
                front = rows.first(QUEUES, ("a",), ROWS_MAX + 5)
            except NotLoaded as absent:
                await load(db, rows, absent.missing)
            else:
                break
        assert [key for key, _ in front] == keys[: ROWS_MAX + 5]

    run(main())


# --- which keys there are at all ------------------------------------------------------------------------------


def test_of_a_group_whose_keys_are_known_nobody_looks_for_one_that_does_not_exist():
    async def main():
        rows, reader = Rows(), Counting(await a_disk(KNOWN, [("a", "x"), ("b", "y")]))
        await load(reader, rows, MissingRows(KNOWN, (("a", "new"),)))
        assert (reader.scans, reader.gets) == (1, 0)
        assert rows.get(KNOWN, ("a", "new")) is None
        assert rows.get(KNOWN, ("a", "another")) is None

        # What exists is read, and other groups are another matter.
        for key in (("a", "x"), ("b", "x")):
            with pytest.raises(NotLoaded):
                rows.get(KNOWN, key)
        await load(reader, rows, MissingRows(KNOWN, (("a", "x"),)))
        assert (reader.scans, reader.gets) == (1, 1)

    run(main())


def test_of_a_group_with_too_many_keys_each_is_looked_for(monkeypatch):
    for module in (disk_module, rows_module):
        monkeypatch.setattr(module, "CATALOGUE_KEYS_MAX", 3)

    async def main():
        rows, reader = Rows(), Counting(await a_disk(KNOWN, [("a", number) for number in range(3)]))
        for number in (7, 8):
            await load(reader, rows, MissingRows(KNOWN, (("a", number),)))
        assert (reader.scans, reader.gets) == (1, 2)
        with pytest.raises(NotLoaded):
            rows.get(KNOWN, ("a", 9))

    run(main())


def test_keys_that_a_checkpoint_writes_or_deletes_are_known_from_then_on(monkeypatch):
    for module in (disk_module, rows_module):
        monkeypatch.setattr(module, "CATALOGUE_KEYS_MAX", 3)
    monkeypatch.setattr(rows_module, "EARLIER_LOTS_MAX", 0)

    async def main():
        rows, db = Rows(), await a_disk(KNOWN, [("a", 0)])
        await load(db, rows, MissingRows(KNOWN, (("a", 0), ("a", 1))))
        rows.insert(KNOWN, ("a", 1), b"new")
        rows.delete(KNOWN, ("a", 0))
        rows.keep()
        await write_checkpoint(db, rows)
        assert rows.get(KNOWN, ("a", 0)) is None
        with pytest.raises(NotLoaded):
            rows.get(KNOWN, ("a", 1))

        # Now there come to be too many.
        for number in (2, 3, 4):
            assert rows.get(KNOWN, ("a", number)) is None
            rows.insert(KNOWN, ("a", number), b"new")
        rows.keep()
        await write_checkpoint(db, rows)
        with pytest.raises(NotLoaded):
            rows.get(KNOWN, ("a", 5))

    run(main())


def test_what_is_known_of_a_group_is_forgotten_when_there_are_too_many_groups(monkeypatch):
    monkeypatch.setattr(rows_module, "CATALOGUES_MAX", 2)

    async def main():
        rows, reader = Rows(), Counting(await a_disk(KNOWN, [("a", 0)]))
        for group in "abcabc":
            await load(reader, rows, MissingRows(KNOWN, ((group, "x"),)))
            assert rows.get(KNOWN, (group, "y")) is None
        assert reader.scans == 6

    run(main())


# --- races ----------------------------------------------------------------------------------------------------


async def write_checkpoint(db: MemoryDatabase, rows: Rows) -> None:
    batch = db.batch()
    for table, changes in rows.freeze().rows.items():
        for key, row in changes.items():
            raw = row_key(table, key)
            if row is None:
                batch.delete(raw)
            else:
                batch.put(raw, row)
    await db.write(batch)
    rows.thaw()


def test_a_load_that_raced_with_a_checkpoint_is_read_again():
    async def main():
        rows, db = Rows(), await a_disk(PLAIN, [("k",)])

        async def meanwhile():
            rows.put(PLAIN, ("k",), b"new")
            rows.keep()
            await write_checkpoint(db, rows)

        reader = Counting(db, meanwhile)
        await load(reader, rows, MissingRows(PLAIN, (("k",),)))
        assert rows.get(PLAIN, ("k",)) == b"new"
        assert reader.gets == 2

    run(main())


def test_a_front_that_raced_with_a_checkpoint_is_read_again():
    async def main():
        rows, db = Rows(), await a_disk(QUEUES, [("a", 1), ("a", 2)])

        async def meanwhile():
            rows.delete(QUEUES, ("a", 1))
            rows.insert(QUEUES, ("a", 0), b"new")
            rows.keep()
            await write_checkpoint(db, rows)

        await load(Counting(db, meanwhile), rows, MissingFront(QUEUES, ("a",), 5))
        assert [key for key, _ in rows.first(QUEUES, ("a",), 5)] == [("a", 0), ("a", 2)]

    run(main())


def test_a_catalogue_that_raced_with_a_checkpoint_is_read_again():
    async def main():
        rows, db = Rows(), await a_disk(KNOWN, [("a", 0)])

        async def meanwhile():
            rows.install(KNOWN, [(("a", 1), None)])
            rows.insert(KNOWN, ("a", 1), b"new")
            rows.keep()
            await write_checkpoint(db, rows)

        await load(Counting(db, meanwhile), rows, MissingRows(KNOWN, (("a", 2),)))
        for number in range(3):
            rows.install(PLAIN, [((number,), b"x" * rows_module.LOADED_BYTES_MAX)])
        with pytest.raises(NotLoaded):
            rows.get(KNOWN, ("a", 1))
        assert rows.get(KNOWN, ("a", 3)) is None

    run(main())


def test_what_changed_while_a_row_was_read_knows_better():
    async def main():
        rows, db = Rows(), await a_disk(PLAIN, [("k",), ("gone",)])

        async def meanwhile():
            rows.put(PLAIN, ("k",), b"new")
            rows.delete(PLAIN, ("gone",))
            rows.keep()

        await load(Counting(db, meanwhile), rows, MissingRows(PLAIN, (("k",), ("gone",))))
        assert rows.get(PLAIN, ("k",)) == b"new"
        assert rows.get(PLAIN, ("gone",)) is None

    run(main())


def test_two_loads_of_one_front_do_not_double_it():
    async def main():
        keys = [("a", number) for number in range(ROWS_MAX)]
        rows, db = Rows(), await a_disk(QUEUES, keys)
        missing = MissingFront(QUEUES, ("a",), 10)
        await asyncio.gather(*[load(db, rows, missing) for _ in range(3)])
        assert [key for key, _ in rows.first(QUEUES, ("a",), 10)] == keys[:10]

    run(main())


def test_a_table_is_read_in_order_and_to_its_end():
    async def main():
        keys = [(number,) for number in range(1_234)]
        db = await a_disk(PLAIN, keys)
        found = [key_of(raw) async for page in read_table(db, PLAIN) for raw, _ in page]
        assert found == keys

    run(main())
