from __future__ import annotations

import asyncio
from itertools import count

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import Corrupt, StoreFailed
from silo.projections.jobs import JOBS
from silo.projections.tasks import READY
from silo.projections.view import MissingRows, Table
from silo.shard.checkpoint import Note, read_note, write_rows
from silo.shard.disk import CHECKPOINT_KEY, key_of, load, read_table
from silo.shard.enqueue import enqueue
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.rows import Rows
from silo.storage.memory import MemoryDatabase
from tests.builders import NOW, a_job, for_worker, success
from tests.serving import Clock, Watched, a_shard, opens, run, serving, turns


async def raw(db, table) -> list:
    return [row async for page in read_table(db, table) for row in page]


def test_without_a_checkpoint_the_rows_stand_for_nothing():
    assert asyncio.run(read_note(MemoryDatabase())) == Note(0, 0)


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x01", b"\x91\x01"])
def test_a_note_that_cannot_be_read_is_noticed(garbage):
    async def main():
        db = MemoryDatabase()
        batch = db.batch()
        batch.put(CHECKPOINT_KEY, garbage)
        await db.write(batch)
        with pytest.raises(Corrupt, match="the checkpoint's note cannot be read"):
            await read_note(db)

    run(main())


def test_rows_and_their_note_are_written_in_one_batch():
    async def main():
        db = Watched(MemoryDatabase())
        rows = Rows()
        rows.insert(READY, ("g", 1, 1, 1), READY.row("acme", "j1", 1, 0))
        rows.delete(READY, ("g", 2, 2, 2))
        rows.keep()
        await write_rows(db, rows.freeze(), Note(7, NOW), asyncio.get_running_loop().time)
        assert db.arrived.qsize() == 1
        assert len(db.arrived.get_nowait()) == 3
        assert await read_note(db) == Note(7, NOW)
        assert len(await raw(db, READY)) == 1

    run(main())


@attrs.define
class Thing:
    colours: str


COLOURS = Table("by_colour", tag=0x71, row=bytes, index=True)
THINGS = Table(
    "things",
    tag=0x70,
    row=Thing,
    entries=lambda key, row: [(COLOURS, (colour, *key)) for colour in row.colours.split()],
)
ROWS = st.sampled_from([*map(Thing, ("red", "blue", "red blue", "red red", "")), None])
CHANGES = st.tuples(st.sampled_from("abc"), ROWS, st.booleans())


@given(st.lists(st.one_of(CHANGES, st.just("checkpoint")), max_size=30))
def test_other_orders_follow_the_rows_from_checkpoint_to_checkpoint(steps):
    async def main():
        db, rows = MemoryDatabase(), Rows()
        for step in [*steps, "checkpoint"]:
            if step == "checkpoint":
                await write_rows(db, rows.freeze(), Note(1, NOW), asyncio.get_running_loop().time)
                rows.thaw()
                things = [(key_of(key), THINGS.decode(row)) for key, row in await raw(db, THINGS)]
                assert [key_of(key) for key, _ in await raw(db, COLOURS)] == sorted(
                    {(colour, *key) for key, row in things for colour in row.colours.split()}
                )
            else:
                name, row, kept = step
                rows.missing(THINGS, [(name,)]) and await load(db, rows, MissingRows(THINGS, ((name,),)))
                there = rows.get(THINGS, (name,)) is not None
                if row is not None:
                    (rows.put if there else rows.insert)(THINGS, (name,), row)
                elif there:
                    rows.delete(THINGS, (name,))
                rows.keep() if kept else rows.undo()

    run(main())


def test_building_a_large_batch_gives_the_event_loop_its_turns():
    async def main():
        rows = Rows()
        for number in range(5_000):
            rows.insert(READY, ("g", number, 1, 1), READY.row("acme", "j1", 1, 0))
        rows.keep()
        ticks = count(0.0, 1.0)
        others = 0

        async def other():
            nonlocal others
            while True:
                others += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await write_rows(MemoryDatabase(), rows.freeze(), Note(1, 1), ticks.__next__)
        task.cancel()
        assert others > 5

    run(main())


def test_what_came_and_went_between_two_checkpoints_never_reaches_the_disk():
    async def main():
        db = MemoryDatabase()
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            (task,) = await shard.execute(lease_tasks, for_worker())
            await shard.execute(report_outcome, success(task.task_id))
            watched = []
            write = db.write

            async def spy(batch):
                watched.extend(key for key, _ in batch.changes)
                await write(batch)

            db.write = spy
            await shard.checkpoint()
            assert not [key for key in watched if key[0] in (0x20, 0x21, 0x30, 0x31)]

    run(main())


def test_a_checkpoint_waits_until_the_log_is_durable():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            db.gate.clear()
            work = asyncio.create_task(shard.execute(enqueue, a_job(job_id="j2")))
            await turns()
            checkpoint = asyncio.create_task(shard.checkpoint())
            await turns()
            written = [key for key, _ in (await db.inner.scan(b"\x02", b"\xff", limit=100))]
            assert written == []
            db.gate.set()
            await asyncio.gather(work, checkpoint)
            note = await read_note(db)
            assert note == Note(5, NOW)

    run(main())


def test_a_failed_checkpoint_leaves_the_old_rows_and_the_old_note():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            await shard.checkpoint()
            before = await raw(db, JOBS), await read_note(db)
            await shard.execute(enqueue, a_job(job_id="j2"))
            db.failures.append(StoreFailed("on fire"))
            with pytest.raises(StoreFailed):
                await shard.checkpoint()
            assert (await raw(db, JOBS), await read_note(db)) == before

    run(main())


def test_a_checkpoint_without_changes_writes_nothing():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            await shard.checkpoint()
            writes = db.writes
            await shard.checkpoint()
            assert db.writes == writes

    run(main())


def test_a_shard_that_opens_begins_where_the_checkpoint_ends():
    async def main():
        clock, db = Clock(), MemoryDatabase()
        async with serving(opens(db), clock=clock) as shard:
            await shard.execute(enqueue, a_job())
            await shard.checkpoint()
        # Time goes on from the note even if the log behind it is empty and the clock was set back.
        clock.now_ms -= 1_000
        async with serving(opens(db), clock=clock) as shard:
            assert shard.log.next_seq == 4
            assert shard.now_ms() == NOW

    run(main())


def test_a_shard_that_is_not_open_has_no_checkpoint_to_write():
    async def main():
        with pytest.raises(Exception, match="shard shard is closed"):
            await a_shard().checkpoint()

    run(main())
