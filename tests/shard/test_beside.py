"""Rows made anew beside a shard that serves: compared, and put right."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from silo.errors import Unavailable
from silo.projections.counters import COUNTS
from silo.projections.fold import TABLES, TABLES_OF
from silo.projections.jobs import JOBS
from silo.shard import shard as shard_module
from silo.shard.beside import Progress, Stopped, mend_offline, rebuild_beside, verify_beside
from silo.shard.cancel import cancel
from silo.shard.disk import decoded, row_key
from silo.shard.enqueue import enqueue
from silo.shard.jobs import JobName
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job
from silo.shard.replay import mend
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.builders import a_job, for_worker, success
from tests.serving import Watched, opens, opens_slate, run, serving

DAMAGED = ("acme", "j3")


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch):
    monkeypatch.setattr(shard_module, "REOPEN_AFTER_S", (0.0,))


async def some_jobs(shard) -> None:
    for number in range(10):
        await shard.execute(enqueue, a_job(job_id=f"j{number}"))
    await shard.execute(cancel, JobName(*DAMAGED))
    [task] = await shard.execute(lease_tasks, for_worker(max_tasks=1))
    await shard.execute(report_outcome, success(task.task_id))
    await shard.checkpoint()


async def damage(database, table=JOBS, key=DAMAGED, **but) -> None:
    """One row says something else than its events, behind the shard's back."""
    row = decoded(table, key, await database.get(row_key(table, key)))
    batch = database.batch()
    batch.put(row_key(table, key), table.encode(attrs.evolve(row, **but)))
    await database.write(batch)


@pytest.mark.parametrize("stored", ["as a model", "by SlateDB"])
def test_a_damaged_row_is_found_and_put_right_while_the_shard_serves(stored):
    async def story():
        open_it = opens(MemoryDatabase()) if stored == "as a model" else opens_slate(StoreSpec.in_memory())
        async with serving(open_it) as shard:
            await some_jobs(shard)
            assert await verify_beside(shard, Progress()) is None
            await damage(shard.database, attempts=7)

            found = await verify_beside(shard, Progress())
            assert (found.difference.table, found.difference.key) == ("jobs", DAMAGED)
            assert [type(event).__name__ for event in found.events] == [
                "JobEnqueued",
                "ChainStarted",
                "CancellationRequested",
                "JobCancelled",
            ]

            progress = Progress()
            mended = await rebuild_beside(shard, TABLES, progress)
            assert (mended.rows, mended.first) == (1, found.difference)
            assert progress.seq == progress.total > 0
            assert await verify_beside(shard, Progress()) is None
            # What was in memory of the damaged row is forgotten.
            seen = await shard.execute(get_job, GetJob(name=JobName(*DAMAGED), include_attempts=False))
            assert seen.row.attempts == 0

    run(story())


def test_rows_that_are_too_many_or_too_few_are_put_right():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await some_jobs(shard)
            batch = shard.database.batch()
            batch.delete(row_key(JOBS, ("acme", "j1")))
            batch.put(row_key(COUNTS, ("ghost",)), await shard.database.get(row_key(COUNTS, ("acme",))))
            await shard.database.write(batch)
            mended = await rebuild_beside(shard, TABLES, Progress())
            assert mended.rows == 2
            assert await verify_beside(shard, Progress()) is None

    run(story())


def test_only_the_projection_that_is_asked_for_is_put_right():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await some_jobs(shard)
            await damage(shard.database, attempts=7)
            assert (await rebuild_beside(shard, TABLES_OF["counters"], Progress())).rows == 0
            assert (await verify_beside(shard, Progress())).difference.key == DAMAGED
            assert (await rebuild_beside(shard, TABLES_OF["jobs"], Progress())).rows == 1
            assert await verify_beside(shard, Progress()) is None

    run(story())


def test_what_happens_while_the_rows_are_made_is_in_them():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await some_jobs(shard)
            work = asyncio.create_task(rebuild_beside(shard, TABLES, Progress()))
            refused = arrived = 0
            while not work.done():
                try:
                    await shard.execute(enqueue, a_job(job_id=f"more-{arrived}"))
                    arrived += 1
                except Unavailable:
                    refused += 1
                await asyncio.sleep(0)
            assert work.result().rows == 0
            assert arrived > 0
            await shard.execute(enqueue, a_job(job_id="afterwards"))
            assert await verify_beside(shard, Progress()) is None

    run(story())


def test_a_shard_that_stands_still_serves_nobody_and_goes_on_as_it_was():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await some_jobs(shard)
            still = await shard.stand_still()
            with pytest.raises(Unavailable):
                await shard.execute(enqueue, a_job(job_id="later"))
            with pytest.raises(Unavailable):
                await shard.stand_still()
            await still.end()
            await shard.execute(enqueue, a_job(job_id="later"))

    run(story())


def test_a_shard_that_is_closed_while_it_stands_still_stays_closed():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await some_jobs(shard)
            still = await shard.stand_still()
            await shard.close()
            await still.end()
            with pytest.raises(Unavailable):
                await shard.execute(enqueue, a_job(job_id="later"))

    run(story())


def test_whoever_waits_no_longer_stops_the_work():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await some_jobs(shard)
            progress = Progress()
            progress.stop()
            with pytest.raises(Stopped):
                await verify_beside(shard, progress)
            await shard.execute(enqueue, a_job(job_id="later"))

    run(story())


def test_rows_are_put_right_in_pieces(monkeypatch):
    async def story():
        right, wrong = MemoryDatabase(), Watched(MemoryDatabase())
        async with serving(opens(right)) as shard:
            await some_jobs(shard)

            async def put(changes) -> None:
                batch = wrong.batch()
                batch.change(changes)
                await wrong.write(batch)

            mended = await mend(right, wrong, put)
            assert mended.rows > 10
            assert wrong.writes == -(-mended.rows // 4)
            assert (await mend(right, wrong, put)).rows == 0

    monkeypatch.setattr("silo.shard.replay.ROWS_MENDED_AT_ONCE", 4)
    run(story())


def test_a_database_that_nobody_has_open_is_put_right():
    async def story():
        database = MemoryDatabase()
        async with serving(opens(database)) as shard:
            await some_jobs(shard)
        await damage(database, attempts=7)
        told: list[int] = []
        mended = await mend_offline(database, TABLES_OF["jobs"], told.append)
        assert (mended.rows, mended.first.key) == (1, DAMAGED)
        assert told
        assert (await mend_offline(database, TABLES, told.append)).rows == 0

    run(story())
