from __future__ import annotations

import attrs
import pytest

from silo.errors import Corrupt
from silo.events.log import record_key
from silo.projections.fold import TABLES
from silo.projections.jobs import JOBS
from silo.shard.checkpoint import Note, read_note
from silo.shard.disk import decoded, read_table, row_key
from silo.shard.enqueue import enqueue
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.replay import Difference, compare, rebuild, replay, verify, write
from silo.shard.rows import Rows
from silo.storage.memory import MemoryDatabase
from tests.builders import NOW, a_job, failure, for_worker, success
from tests.serving import opens, run, serving

JOBS_IN_ALL = 30


async def a_history() -> MemoryDatabase:
    """A log of jobs in all states, with a checkpoint at its end."""
    db = MemoryDatabase()
    async with serving(opens(db)) as shard:
        for number in range(JOBS_IN_ALL):
            await shard.execute(enqueue, a_job(job_id=f"{number:03}", metadata=(("n", str(number)),)))
        tasks = await shard.execute(lease_tasks, for_worker(max_tasks=20))
        for number, task in enumerate(tasks[:14]):
            report = success(task.task_id) if number % 2 else failure(task.task_id, error_data=b"x" * 500)
            await shard.execute(report_outcome, report)
        await shard.checkpoint()
    return db


async def tables(db) -> dict:
    return {table.name: [row async for page in read_table(db, table) for row in page] for table in TABLES}


def test_rows_made_anew_are_those_that_are_there():
    # A87
    async def main():
        live, scratch = await a_history(), MemoryDatabase()
        note = await rebuild(live, scratch)
        assert note == await read_note(live) == await read_note(scratch)
        assert await tables(scratch) == await tables(live)
        assert await compare(live, scratch) is None
        assert await verify(live, MemoryDatabase()) is None

    run(main())


@pytest.mark.parametrize("rows_max", [1, 7, 1_000_000])
def test_it_does_not_matter_how_often_rows_are_written_on_the_way(rows_max):
    async def main():
        live, store, rows = await a_history(), MemoryDatabase(), Rows()
        told: list[int] = []
        note = await replay(live, rows, store, after=Note(0, 0), rows_max=rows_max, progress=told.append)
        assert note == await read_note(live)
        assert told == sorted(set(told))
        assert told[-1] == note.seq
        await write(rows, store, note)
        assert await tables(store) == await tables(live)

    run(main())


@pytest.mark.parametrize("upto", [1, 2, 10, 40, 61, 75])
def test_a_replay_may_stop_anywhere_and_go_on(upto):
    async def main():
        live, scratch = await a_history(), MemoryDatabase()
        note = await rebuild(live, scratch, upto=upto)
        assert note.seq == upto
        rows = Rows()
        note = await replay(live, rows, scratch, after=await read_note(scratch))
        await write(rows, scratch, note)
        assert await compare(live, scratch) is None

    run(main())


def test_what_is_newer_than_the_checkpoint_is_not_compared():
    async def main():
        db = await a_history()
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job(job_id="after"))
        assert await verify(db, MemoryDatabase()) is None

    run(main())


def test_a_database_without_a_checkpoint_has_no_rows_to_differ():
    async def main():
        db = MemoryDatabase()
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
        assert await verify(db, MemoryDatabase()) is None

    run(main())


def test_of_two_rows_the_fields_that_differ_are_told():
    async def main():
        db = await a_history()
        key = ("acme", "005")
        row = decoded(JOBS, key, await db.get(row_key(JOBS, key)))
        batch = db.batch()
        batch.put(row_key(JOBS, key), JOBS.encode(attrs.evolve(row, attempts=7)))
        await db.write(batch)
        assert str(await verify(db, MemoryDatabase())) == (
            f"jobs ('acme', '005'): the log gives attempts = {row.attempts}, found attempts = 7"
        )

    run(main())


@pytest.mark.parametrize(
    ("number", "change", "text"),
    [
        pytest.param(
            5,
            b"damaged",
            r"^jobs \('acme', '005'\): the log gives spec = .*, found bytes that are no row: [0-9a-f]+$",
            id="changed",
        ),
        pytest.param(
            5, None, r"^jobs \('acme', '005'\): the log gives spec = .*, found no row$", id="missing"
        ),
        pytest.param(29, None, r"^jobs \('acme', '029'\): .* found no row$", id="the last one missing"),
        pytest.param(0, None, r"^jobs \('acme', '000'\): .* found no row$", id="the first one missing"),
        pytest.param(
            999,
            b"x",
            r"^jobs \('acme', '999'\): the log gives no row, found bytes that are no row: 78$",
            id="too many",
        ),
        pytest.param(
            -5,
            b"x",
            r"^jobs \('acme', '-05'\): the log gives no row, found bytes that are no row: 78$",
            id="one in front",
        ),
    ],
)
def test_the_first_difference_is_told(number, change, text):
    async def main():
        db = await a_history()
        batch = db.batch()
        key = row_key(JOBS, ("acme", f"{number:03}"))
        if change is None:
            batch.delete(key)
        else:
            batch.put(key, change)
        await db.write(batch)
        found = await verify(db, MemoryDatabase())
        assert isinstance(found, Difference)
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(str(found))

    run(main())


def test_a_hole_in_the_log_stops_a_rebuild():
    async def main():
        db = await a_history()
        batch = db.batch()
        batch.delete(record_key(10))
        await db.write(batch)
        with pytest.raises(Corrupt, match="event 10 is missing"):
            await rebuild(db, MemoryDatabase())

    run(main())


def test_a_rebuilt_database_serves():
    async def main():
        live, scratch = await a_history(), MemoryDatabase()
        await rebuild(live, scratch)
        # The log comes along.
        batch = scratch.batch()
        for key, record in await live.scan(b"\x01", b"\x02", limit=1_000):
            batch.put(key, record)
        await scratch.write(batch)
        async with serving(opens(scratch)) as shard:
            tasks = await shard.execute(lease_tasks, for_worker(max_tasks=100))
            assert [task.job_id for task in tasks] == [f"{number:03}" for number in range(20, JOBS_IN_ALL)]
            assert shard.now_ms() == NOW

    run(main())
