"""What jobs carried is gone from rows, log and disk; the story stays, and the rows are those that the log gives."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from silo.broker import erasures
from silo.broker.erasures import carry_out, run_erasures
from silo.errors import NotFound, StoreFailed, WrongState
from silo.events.catalogue import ERASED, AttemptFailed, AttemptSucceeded, ErasureFinished, JobEnqueued
from silo.shard import shard as shard_module
from silo.shard.delete import delete
from silo.shard.enqueue import enqueue
from silo.shard.erase import erase, erase_tenant, next_erasures
from silo.shard.jobs import JobName
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job
from silo.shard.replay import verify
from silo.shard.restart import restart
from silo.storage import keys
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.builders import a_job, a_policy, failure, for_worker, success
from tests.serving import Watched, opens, opens_slate, run, serving, turns

SECRET = b"\xa6secret"
LARGE = b"\xc5\x02\x58" + b"secret" * 100
"""Too long for a row."""

J1, J2, OTHER = JobName("acme", "j1"), JobName("acme", "j2"), JobName("globex", "j1")


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch):
    monkeypatch.setattr(shard_module, "REOPEN_AFTER_S", (0.0,))
    monkeypatch.setattr(erasures, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(erasures, "RETRY_S", 0.001)


async def a_life(shard, name: JobName, payload: bytes = SECRET, result: bytes = SECRET) -> None:
    """A job fails once, then succeeds; everything that it carries is a secret."""
    job = a_job(
        tenant=name.tenant,
        job_id=name.job_id,
        payload=payload,
        retry_policy=a_policy(retry_count=1, initial_interval_ms=0),
    )
    await shard.execute(enqueue, job)
    [task] = await shard.execute(lease_tasks, for_worker(max_tasks=1))
    await shard.execute(report_outcome, failure(task.task_id, error_data=result))
    [task] = await shard.execute(lease_tasks, for_worker(max_tasks=1))
    await shard.execute(report_outcome, success(task.task_id, result))


async def carried(shard, name: JobName) -> list[bytes]:
    job = await shard.execute(get_job, GetJob(name=name, include_attempts=True))
    return [job.payload, *(attempt.data for attempt in job.attempts)]


async def carry_out_all(shard) -> None:
    while erasures := await shard.execute(next_erasures, 10):
        await carry_out(shard, erasures)


async def is_left(shard) -> bool:
    """Whether there is something to erase, or the shard is just opening again."""
    try:
        return bool(await shard.execute(next_erasures, 1))
    except StoreFailed:
        return True


async def everything(database) -> bytes:
    """All that a reader of the database can find."""
    pages = database.pages(b"\x00", keys.prefix_end(b"\xfe"))
    return b"".join([key + value async for page in pages for key, value in page])


async def is_sound(shard) -> bool:
    await shard.checkpoint()
    snapshot = await shard.database.snapshot()
    try:
        return await verify(snapshot, MemoryDatabase()) is None
    finally:
        snapshot.release()


@pytest.mark.parametrize("payload", [SECRET, LARGE], ids=["in the row", "beside it"])
@pytest.mark.parametrize("stored", ["as a model", "by SlateDB"])
def test_what_a_job_carried_is_gone_and_its_story_stays(payload, stored):
    async def story():
        open_it = opens(MemoryDatabase()) if stored == "as a model" else opens_slate(StoreSpec.in_memory())
        async with serving(open_it) as shard:
            await a_life(shard, J1, payload, payload)
            await a_life(shard, J2)
            before = [type(event) async for events in shard.log.read(1) for event in events]
            asked_seq = await shard.execute(erase, J1)
            assert await carried(shard, J1) == [ERASED] * 3
            assert await is_sound(shard)

            await carry_out_all(shard)
            assert await carried(shard, J1) == [ERASED] * 3
            assert await carried(shard, J2) == [SECRET] * 3
            assert await is_sound(shard)
            events = [event async for records in shard.log.read(1) for event in records]
            assert [type(event) for event in events[: len(before)]] == before
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            mine = [event for event in events if getattr(event, "job_id", None) == "j1"]
            assert [event.payload for event in mine if isinstance(event, JobEnqueued)] == [ERASED]
            assert [event.error_data for event in mine if isinstance(event, AttemptFailed)] == [ERASED]
            assert [event.result for event in mine if isinstance(event, AttemptSucceeded)] == [ERASED]
            assert isinstance(events[-1], ErasureFinished)
            assert events[-1].requested_seq == asked_seq

    run(story())


def test_a_whole_tenant_is_erased_with_the_jobs_that_are_gone_and_without_those_that_came_later():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await a_life(shard, OTHER, b"\xa3own")
            await a_life(shard, J1, LARGE, LARGE)
            await a_life(shard, J2)
            await shard.execute(delete, J2)
            await shard.execute(erase_tenant, "acme")
            await a_life(shard, J2, b"\xa3new", b"\xa3new")

            await carry_out_all(shard)
            assert await carried(shard, J1) == [ERASED] * 3
            assert await carried(shard, J2) == [b"\xa3new"] * 3
            assert (await carried(shard, OTHER))[0] == b"\xa3own"
            # What another tenant had stays.
            await shard.checkpoint()
            assert b"secret" in await everything(shard.database)
            assert await is_sound(shard)

    run(story())


def test_a_job_that_was_deleted_can_be_erased_from_the_log():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await a_life(shard, J1)
            await shard.execute(delete, J1)
            assert b"secret" in await everything(shard.database)
            await shard.execute(erase, J1)
            await carry_out_all(shard)
            assert b"secret" not in await everything(shard.database)
            with pytest.raises(NotFound):
                await carried(shard, J1)

    run(story())


def test_what_is_still_needed_cannot_be_erased():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await shard.execute(enqueue, a_job(job_id="j1"))
            with pytest.raises(WrongState, match="job is still in progress; cancel it first"):
                await shard.execute(erase, J1)
            with pytest.raises(WrongState, match="cannot erase tenant acme: 1 of its jobs have not ended"):
                await shard.execute(erase_tenant, "acme")

    run(story())


def test_a_job_that_is_erased_may_run_again_with_nothing():
    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            await shard.execute(enqueue, a_job(job_id="j1", payload=LARGE))
            [task] = await shard.execute(lease_tasks, for_worker(max_tasks=1))
            await shard.execute(report_outcome, failure(task.task_id))
            await shard.execute(erase_tenant, "acme")
            await shard.execute(restart, J1)
            await carry_out_all(shard)
            [task] = await shard.execute(lease_tasks, for_worker(max_tasks=1))
            assert task.payload == ERASED
            assert await is_sound(shard)

    run(story())


@pytest.mark.parametrize("writes", range(1, 8))
def test_a_crash_in_the_middle_only_means_that_it_begins_anew(writes):
    async def story():
        database = Watched(MemoryDatabase())
        async with serving(opens(database)) as shard:
            await a_life(shard, J1, LARGE, LARGE)
            await a_life(shard, J2)
            await shard.checkpoint()
            await shard.execute(erase_tenant, "acme")
            # The write of this number fails, and so does the shard, which opens again.
            database.failures = [None] * (writes - 1) + [StoreFailed("no disk")]
            task = asyncio.create_task(run_erasures(shard))
            while b"secret" in await everything(database):
                await turns()
            database.failures = []
            # The failure may have met the event that says that it is done.
            while await is_left(shard):
                await turns()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await is_sound(shard)

    run(story())


def test_many_requests_are_carried_out_by_one_walk_through_the_log(monkeypatch):
    walks: list[int] = []
    real = erasures.erase_log
    monkeypatch.setattr(
        erasures,
        "erase_log",
        lambda database, targets: (walks.append(len(targets.each)), real(database, targets))[1],
    )

    async def story():
        async with serving(opens(MemoryDatabase())) as shard:
            for name in (J1, J2, OTHER):
                await a_life(shard, name)
            await shard.execute(erase, J1)
            await shard.execute(erase_tenant, "globex")
            # What came after a request is not meant by it.
            await shard.execute(delete, OTHER)
            await a_life(shard, OTHER, b"\xa3new", b"\xa3new")
            await carry_out_all(shard)
            assert walks == [2]
            assert await carried(shard, J1) == [ERASED] * 3
            assert await carried(shard, J2) == [SECRET] * 3
            assert await carried(shard, OTHER) == [b"\xa3new"] * 3
            finished = [e async for es in shard.log.read(1) for e in es if isinstance(e, ErasureFinished)]
            assert [event.tenant for event in finished] == ["acme", "globex"]
            assert await is_sound(shard)

    run(story())
