"""A walk through all jobs finds the same by the columns of an image as by the jobs themselves."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.archive.archive import Archive
from silo.archive.database import with_archive
from silo.archive.folder import OnDisk
from silo.broker.archiving import keep_archive
from silo.projections.jobs import JOBS
from silo.query import jobs
from silo.query.jobs_of_image import jobs_of_image
from silo.query.snapshot import take
from silo.query.statement import plan
from silo.query.tables import SCHEMAS
from silo.shard.cancel import cancel
from silo.shard.enqueue import enqueue
from silo.storage.memory import MemoryDatabase
from tests.archive.makers import Here
from tests.builders import NAME, a_job
from tests.query.test_strategies import STEPS, answer, live
from tests.serving import Clock, Watched, run, serving, turns

ASKED = [
    f"SELECT {', '.join(name for name in SCHEMAS['jobs'].names if name != 'payload')} FROM jobs",
    "SELECT task_group, status_kind, count(*) AS n, max(priority) FROM jobs GROUP BY task_group, status_kind",
    "SELECT count(*) AS n FROM jobs WHERE priority > 0",
    "SELECT id FROM jobs WHERE tenant = 'a' AND priority = 1",
    "SELECT id, limits FROM jobs WHERE metadata['kind'] = 'mail' OR id = 'j1'",
    "SELECT * FROM jobs",
    "SELECT count(*) FROM jobs",
]


def opens(directory: str, memory: MemoryDatabase):
    async def open_it():
        return await with_archive(memory, Archive(OnDisk(Path(directory), fsync=False)))

    return open_it


async def answers(shard) -> list[list[str]]:
    return [await answer(shard, await plan(sql, [])) for sql in ASKED]


async def without_images(shard) -> list[list[str]]:
    archive = shard.database.archive
    kept, archive._with_jobs = archive._with_jobs, ()
    try:
        return await answers(shard)
    finally:
        archive._with_jobs = kept


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, STEPS, st.booleans(), st.randoms(use_true_random=False))
def test_an_image_and_what_came_since_are_all_jobs(before, since, is_sealed, chance):
    async def main() -> None:
        clock = Clock()
        with tempfile.TemporaryDirectory() as directory:
            async with serving(opens(directory, MemoryDatabase()), clock=clock) as shard:
                await shard.execute(enqueue, a_job(job_id="later", enqueue_time_ms=clock.now_ms + 5_000))
                await live(shard, before, chance)
                await keep_archive(shard, None, image=True, maker=Here())
                await live(shard, since, chance)
                if is_sealed:
                    await keep_archive(shard, None, image=False, maker=Here())
                    await live(shard, since[:5], chance)
                assert await answers(shard) == await without_images(shard)
                # What was scheduled is waiting now, though nothing has happened to it.
                clock.now_ms += 6_000
                assert await answers(shard) == await without_images(shard)

    run(main())


@pytest.mark.parametrize("alone_max", [0, 1_000])
def test_only_what_was_touched_since_is_read(tmp_path, monkeypatch, alone_max):
    monkeypatch.setattr(jobs, "READ_ALONE_MAX", alone_max)

    async def main() -> None:
        async with serving(opens(str(tmp_path), MemoryDatabase())) as shard:
            for number in range(10):
                await shard.execute(enqueue, a_job(job_id=f"j{number}"))
            snapshot = await take(shard, (JOBS,))
            assert jobs_of_image(snapshot) is None
            await keep_archive(shard, None, image=True, maker=Here())
            await shard.execute(enqueue, a_job(job_id="new"))
            await shard.execute(enqueue, a_job(job_id="j3", tenant="other"))
            snapshot = await take(shard, (JOBS,))

            def look() -> set[tuple[str, str]]:
                found = jobs_of_image(snapshot)
                assert found is not None
                return set(found.touched)

            assert await asyncio.to_thread(look) == {("acme", "new"), ("other", "j3")}
            snapshot.release()
            found = await answers(shard)
            assert found == await without_images(shard)
            assert len(found[0]) == 12

    run(main())


def test_after_too_much_has_happened_the_jobs_themselves_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("silo.query.jobs_of_image.EVENTS_SINCE_MAX", 3)

    async def main() -> None:
        async with serving(opens(str(tmp_path), MemoryDatabase())) as shard:
            await shard.execute(enqueue, a_job(job_id="j1"))
            await keep_archive(shard, None, image=True, maker=Here())
            for job_id in ("j2", "j3"):
                await shard.execute(enqueue, a_job(job_id=job_id))
            assert jobs_of_image(await take(shard, (JOBS,))) is None
            assert len((await answers(shard))[0]) == 3

    run(main())


def test_what_is_decided_and_not_durable_yet_is_there(tmp_path):
    async def main() -> None:
        memory = Watched(MemoryDatabase())
        async with serving(opens(str(tmp_path), memory)) as shard:
            await shard.execute(enqueue, a_job(job_id="j1"))
            await keep_archive(shard, None, image=True, maker=Here())
            memory.gate.clear()
            under_way = asyncio.create_task(shard.execute(cancel, NAME))
            await turns()
            assert shard.log.next_seq - 1 > shard.log.durable_seq
            asked = asyncio.create_task(answer(shard, await plan("SELECT id, status_kind FROM jobs", [])))
            await turns()
            memory.gate.set()
            assert await asked == ["{'id': 'j1', 'status_kind': 'Cancelled'}"]
            await under_way

    run(main())


def test_a_few_jobs_are_read_without_looking_at_an_image(tmp_path, monkeypatch):
    async def story():
        async with serving(opens(tmp_path, MemoryDatabase())) as shard:
            for number in range(9):
                await shard.execute(enqueue, a_job(job_id=f"j{number}"))
            await keep_archive(shard, None, image=True, maker=Here())
            asked: list[bool] = []
            monkeypatch.setattr(jobs, "jobs_of_image", lambda _: asked.append(True))
            assert len(await answer(shard, await plan("SELECT id FROM jobs LIMIT 4", []))) == 4
            assert len(await answer(shard, await plan("SELECT id FROM jobs LIMIT 4 OFFSET 7", []))) == 2
            assert asked == []
            # What does not fit does not count.
            assert (
                len(await answer(shard, await plan("SELECT id FROM jobs WHERE priority < 90 LIMIT 4", [])))
                == 4
            )
            assert len(await answer(shard, await plan("SELECT id FROM jobs LIMIT 90000", []))) == 9
            assert asked == [True, True]

    run(story())
