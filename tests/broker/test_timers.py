from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from silo.broker import timers
from silo.broker.timers import next_due_ms, run_due, run_timers
from silo.domain.jobs import LEASE_MS, JobStatus
from silo.domain.limits import RateLimitRetry
from silo.errors import JobNotFound, StoreFailed, Unavailable
from silo.events.catalogue import (
    BucketForgotten,
    ChainDue,
    JobForgotten,
    LeaseExpired,
    LimitCreated,
    RateChecked,
    RateWaited,
    RefreshScheduled,
    SlotGranted,
)
from silo.projections.view import NotLoaded
from silo.shard import shard as shard_module
from silo.shard.draft import Rules
from silo.shard.due import PER_COMMAND_MAX
from silo.shard.enqueue import enqueue
from silo.shard.gates import GRANTS_PER_COMMAND_MAX
from silo.shard.lease import heartbeat, lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_counts, get_job
from silo.shard.refresh import Refreshed, ReportRefresh, lease_work, report_refresh
from silo.storage.memory import MemoryDatabase
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_floating_limit,
    a_heartbeat,
    a_job,
    a_limit,
    a_rate_limit,
    checking,
    fact,
    for_worker,
    holding,
    pending,
    running,
    success,
    throttled,
    waiting,
)
from tests.serving import Clock, Watched, opens, run, serving
from tests.story import Story

SHOW = GetJob(name=NAME, include_attempts=False)
IMPATIENT = a_rate_limit(1, name="impatient", retry=RateLimitRetry(max_retries=3))


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch):
    monkeypatch.setattr(shard_module, "REOPEN_AFTER_S", (0.0,))
    monkeypatch.setattr(timers, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(timers, "RETRY_S", 0.001)


async def kinds_of(shard) -> list[type]:
    return [type(event) async for events in shard.log.read(1) for event in events]


@asynccontextmanager
async def with_timers(shard):
    task = asyncio.create_task(run_timers(shard))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def happens(shard, kind: type) -> None:
    """Wait for a fact of this kind."""
    async for events in shard.log.follow(1):
        if any(isinstance(event, kind) for event in events):
            return


# --- when something is due next -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "due_ms"),
    [
        pytest.param([], None, id="nothing waits for a time"),
        pytest.param(pending(), None, id="ready work does not"),
        pytest.param(pending(start_ms=LATER), LATER, id="a chain for later does"),
        pytest.param(running(), NOW + LEASE_MS, id="so does a lease"),
        pytest.param(holding(), None, id="who holds a slot does not"),
        pytest.param(waiting(limits=(a_limit(0),)), None, id="nor who waits for one"),
        pytest.param(throttled(), NOW + 1_000, id="who waits for a bucket does"),
        pytest.param(checking(retry_ms=NOW + 50), NOW + 50, id="and a check that is to be tried again"),
        pytest.param(
            [fact(LimitCreated, default_max_concurrency=0), *waiting(limits=(a_floating_limit(0),))],
            1_000,
            id="a maximum that somebody waits for is old at some time",
        ),
        pytest.param(waiting(), NOW, id="room that nobody has given away yet is due now"),
    ],
)
def test_when_something_is_due_next(life, due_ms):
    assert Story().given(*life).when(next_due_ms).reply == due_ms


def test_checks_that_an_outside_service_answers_are_not_the_timers_affair():
    story = Story(rules=Rules(asks_limiter=True)).when(enqueue, a_job(limits=(a_rate_limit(),)))

    assert story.when(next_due_ms).reply is None


def test_the_earliest_of_all_queues_counts():
    story = Story(rules=Rules(completed_expire_ms=5_000)).given(*running()).when(report_outcome, success())
    assert story.when(next_due_ms).reply == NOW + 5_000

    story.when(enqueue, a_job(job_id="j2", enqueue_time_ms=NOW + 4_000))
    assert story.when(next_due_ms).reply == NOW + 4_000

    story.when(enqueue, a_job(job_id="j3")).when(lease_tasks, for_worker())
    assert story.when(next_due_ms).reply == NOW + 4_000


def test_asking_needs_rows_that_may_be_on_disk():
    story = Story()
    with pytest.raises(NotLoaded):
        story.rows.first(timers.TIMERS, (), 1)
    assert story.when(next_due_ms).reply is None


# --- doing what is due ----------------------------------------------------------------------------------------


def test_everything_that_is_due_is_done_however_much_it_is():
    async def main():
        clock = Clock()
        async with serving(clock=clock, rules=Rules(completed_expire_ms=1_000)) as shard:
            many = PER_COMMAND_MAX + 1
            await asyncio.gather(
                *[shard.execute(enqueue, a_job(job_id=f"{n}", enqueue_time_ms=LATER)) for n in range(many)]
            )
            await shard.execute(enqueue, a_job())
            (task,) = await shard.execute(lease_tasks, for_worker())
            await shard.execute(report_outcome, success(task.task_id))
            await shard.execute(enqueue, a_job(job_id="to crash"))
            await shard.execute(lease_tasks, for_worker())
            clock.now_ms = LATER

            assert await run_due(shard) is None
            kinds = await kinds_of(shard)
            assert kinds.count(ChainDue) == many
            assert kinds.count(JobForgotten) == 1
            assert kinds.count(LeaseExpired) == 1

    run(main())


def test_everything_about_limits_that_is_due_is_done():
    # A92, A141
    async def main():
        clock = Clock()
        async with serving(clock=clock) as shard:
            many = GRANTS_PER_COMMAND_MAX * 3
            for number in range(many):
                await shard.execute(enqueue, a_job(job_id=f"{number}", limits=(a_floating_limit(0, "f"),)))
            for job_id in ("passes", "waits"):
                await shard.execute(enqueue, a_job(job_id=job_id, limits=(a_rate_limit(1),)))
            for job_id in ("passes too", "asks again"):
                await shard.execute(enqueue, a_job(job_id=job_id, limits=(IMPATIENT,)))
            [refresh] = (await shard.execute(lease_work, for_worker())).refreshes
            await shard.execute(report_refresh, ReportRefresh(refresh.task_id, Refreshed(many - 1)))
            clock.now_ms += 2_000

            # What is left: the buckets that have passed somebody, the two leases, and the maximum, which is old in a minute.
            assert await run_due(shard) == NOW + LEASE_MS
            kinds = await kinds_of(shard)
            assert kinds.count(SlotGranted) == many - 1
            assert (kinds.count(RateChecked), kinds.count(RateWaited)) == (6, 1)
            clock.now_ms += 60_000
            await run_due(shard)
            assert (await kinds_of(shard)).count(RefreshScheduled) == 2
            assert (await kinds_of(shard)).count(BucketForgotten) == 2

    run(main())


def test_it_tells_when_to_look_again():
    async def main():
        async with serving() as shard:
            await shard.execute(enqueue, a_job(enqueue_time_ms=LATER))
            assert await run_due(shard) == LATER
            await shard.execute(enqueue, a_job(job_id="j2", enqueue_time_ms=LATER - 1))
            assert await run_due(shard) == LATER - 1

    run(main())


# --- by itself ------------------------------------------------------------------------------------------------


def test_a_job_becomes_ready_by_itself_when_its_time_comes():
    async def main():
        # Time in this test is real, and what is waited for is near.
        async with serving(clock=shard_module.wall_clock_ms) as shard, with_timers(shard):
            start_ms = shard.now_ms() + 30
            await shard.execute(enqueue, a_job(enqueue_time_ms=start_ms))
            await happens(shard, ChainDue)
            assert shard.now_ms() >= start_ms

    run(main())


def test_an_earlier_time_that_comes_in_later_is_noticed():
    async def main():
        clock = Clock()
        async with serving(clock=clock) as shard, with_timers(shard):
            await shard.execute(enqueue, a_job(enqueue_time_ms=NOW + 3_600_000))
            clock.now_ms += 10_000
            # Nobody is woken by a clock in a test, but everybody by what is decided.
            await shard.execute(enqueue, a_job(job_id="j2", enqueue_time_ms=NOW + 10_005))
            clock.now_ms += 10
            await happens(shard, ChainDue)
            assert (await shard.execute(get_job, SHOW)).row.status is JobStatus.SCHEDULED

    run(main())


def test_a_lease_that_is_renewed_does_not_expire_by_itself():
    async def main():
        clock = Clock()
        async with serving(clock=clock) as shard:
            # A shard that has just opened gives every lease a full one; that time is over here.
            clock.now_ms += LEASE_MS
            await shard.execute(enqueue, a_job())
            (task,) = await shard.execute(lease_tasks, for_worker())
            for _ in range(5):
                clock.now_ms += 4_000
                await shard.execute(heartbeat, a_heartbeat(task.task_id))
                await run_due(shard)
            assert (await shard.execute(get_job, SHOW)).row.status is JobStatus.RUNNING
            clock.now_ms += LEASE_MS
            await run_due(shard)
            assert (await shard.execute(get_job, SHOW)).row.status is JobStatus.FAILED

    run(main())


def test_timers_outlive_a_failure_of_the_store():
    async def main():
        clock, db = Clock(), Watched(MemoryDatabase())
        async with serving(opens(db), clock=clock) as shard, with_timers(shard) as task:
            await shard.execute(enqueue, a_job(enqueue_time_ms=LATER))
            db.failures.append(StoreFailed("on fire"))
            with pytest.raises(Unavailable):
                await shard.execute(enqueue, a_job(job_id="j2"))
            await db.abandoned.wait()
            with shard.listening() as decided:
                while shard.stage is not shard_module.Stage.SERVING:
                    decided.clear()
                    await decided.wait()
            clock.now_ms = LATER
            await shard.execute(enqueue, a_job(job_id="j3"))
            await happens(shard, ChainDue)
            assert not task.done()

    run(main())


def test_an_idle_shard_is_left_alone():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db)) as shard, with_timers(shard):
            await shard.execute(get_counts, "")
            await asyncio.sleep(0.02)
            writes = db.arrived.qsize()
            await asyncio.sleep(0.05)
            assert db.arrived.qsize() == writes
            with pytest.raises(JobNotFound):
                await shard.execute(get_job, SHOW)

    run(main())
