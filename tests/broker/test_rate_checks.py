"""A shard and a rate limiter that is really elsewhere: on loopback, behind gRPC, and told by the tests what to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from silo.broker import rate_checks
from silo.broker.rate_checks import run_rate_checks
from silo.domain.jobs import JobStatus
from silo.domain.limits import RateLimit, RateLimitRetry
from silo.errors import Corrupt, StoreFailed, Unavailable
from silo.events.catalogue import Event, JobCancelled, JobFailed, RateCheckDue, RateChecked
from silo.pb import silo_pb2 as pb
from silo.ratelimit.gubernator import Limiter
from silo.server.gubernator_channel import connect_limiter
from silo.settings import Database
from silo.settings import Gubernator as Settings
from silo.shard import shard as shard_module
from silo.shard.cancel import cancel
from silo.shard.conservation import check_conservation
from silo.shard.delete import delete
from silo.shard.draft import Rules
from silo.shard.enqueue import enqueue
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job
from silo.shard.shard import Shard
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.builders import NAME, NOW, a_job, a_limit, a_rate_limit, for_worker, success
from tests.gubernator import Gubernator, running_gubernator
from tests.server.running import running_node
from tests.serving import Clock, Watched, opens, opens_slate, run, serving, turns

ASKS = Rules(asks_limiter=True)
KEY = "mails:acme"
AT_ONCE = RateLimitRetry(initial_backoff_ms=1, max_backoff_ms=1, max_retries=3)
IMPATIENT = a_rate_limit(1, retry=AT_ONCE)


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch):
    monkeypatch.setattr(shard_module, "REOPEN_AFTER_S", (0.0,))
    monkeypatch.setattr(rate_checks, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(rate_checks, "RETRY_S", 0.001)


@asynccontextmanager
async def limiter_of(service: Gubernator, **settings: Any) -> AsyncIterator[Limiter]:
    limiter = await connect_limiter(
        Settings(**{"coalesce_interval_ms": 1} | settings, address=service.address)
    )
    assert limiter is not None
    try:
        yield limiter
    finally:
        await limiter.close()


@asynccontextmanager
async def asking(
    shard: Shard, check: Callable[[RateLimit], Awaitable[Any]]
) -> AsyncIterator[asyncio.Task[None]]:
    """The shard's questions are asked, for as long as the block lasts."""
    task = asyncio.create_task(run_rate_checks(shard, check=check))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[tuple[Shard, Gubernator, Clock]]:
    """A shard whose rate limits the service decides."""
    clock = Clock()
    async with (
        running_gubernator() as service,
        serving(opens_slate(StoreSpec.in_memory()), clock=clock, rules=ASKS, **options) as shard,
        limiter_of(service) as limiter,
        asking(shard, limiter.check),
    ):
        yield shard, service, clock


async def told(shard: Shard, kind: type[Event], count: int = 1) -> list[Any]:
    """The first so many facts of a kind, as soon as they are durable."""
    found: list[Any] = []
    async for events in shard.log.follow(1):
        found += [event for event in events if isinstance(event, kind)]
        if len(found) >= count:
            return found[:count]
    raise AssertionError("the log has ended")


async def facts_of(shard: Shard, kind: type[Event]) -> list[Any]:
    """All facts of a kind so far."""
    return [event async for events in shard.log.read(1) for event in events if isinstance(event, kind)]


async def leased(shard: Shard) -> list[str]:
    return [task.job_id for task in await shard.execute(lease_tasks, for_worker())]


# --- answers ---------------------------------------------------------------------------------------------------------


def test_the_service_lets_a_job_pass():
    async def main():
        async with world() as (shard, service, _):
            await shard.execute(enqueue, a_job(limits=(a_rate_limit(5, hits=2),)))
            [checked] = await told(shard, RateChecked)

            assert (checked.allowed, checked.remaining, checked.is_local, checked.bucket) == (
                True,
                3,
                False,
                None,
            )
            assert (checked.actor, checked.method) == ("system", "")
            assert service.counts[KEY] == 2
            assert await leased(shard) == ["j1"]

    run(main())


def test_who_is_over_the_limit_is_asked_about_again_until_he_may_pass():
    # A146
    async def main():
        async with world() as (shard, service, clock):
            service.forced[KEY] = False
            patient = RateLimitRetry(initial_backoff_ms=1, max_backoff_ms=1)
            await shard.execute(enqueue, a_job(limits=(a_limit(1, "a"), a_rate_limit(1, retry=patient))))
            for number in range(1, 4):
                checked = (await told(shard, RateChecked, number))[-1]
                assert (checked.allowed, checked.retry_ms) == (False, clock.now_ms + 1)
                clock.now_ms += 1
            service.forced[KEY] = True
            passed = (await told(shard, RateChecked, 4))[-1]

            assert passed.allowed
            [task] = await shard.execute(lease_tasks, for_worker())
            assert task.task_id == passed.task_id == checked.task_id
            await shard.execute(report_outcome, success(task.task_id))
            await shard.checkpoint()
            assert await check_conservation(await shard.database.snapshot()) == []

    run(main())


def test_a_job_that_is_over_the_limit_at_its_last_try_fails():
    # A148
    async def main():
        async with world() as (shard, service, clock):
            service.forced[KEY] = False
            await shard.execute(enqueue, a_job(limits=(IMPATIENT,)))
            for number in range(1, 4):
                await told(shard, RateChecked, number)
                clock.now_ms += 1
            [failed] = await told(shard, JobFailed)

            assert (failed.error_code, service.calls) == ("RATE_LIMIT_EXHAUSTED", 4)
            seen = await shard.execute(get_job, GetJob(name=NAME, include_attempts=True))
            assert (seen.row.status, seen.attempts) == (JobStatus.FAILED, [])

    run(main())


def break_the_call(service: Gubernator) -> str:
    service.failure = grpc.StatusCode.UNAVAILABLE
    return "the rate limiter failed: status: Unavailable"


def refuse_the_question(service: Gubernator) -> str:
    service.refusals[KEY] = "no such tenant"
    return "no such tenant"


def leave_out_the_answer(service: Gubernator) -> str:
    service.missing = 1
    return "the rate limiter gave 0 answers to 1 questions"


@pytest.mark.parametrize("go_wrong", [break_the_call, refuse_the_question, leave_out_the_answer])
def test_whatever_goes_wrong_nobody_passes_and_it_is_tried_again_later_as_often_as_it_takes(go_wrong):
    async def main():
        async with world() as (shard, service, clock):
            text = go_wrong(service)
            await shard.execute(enqueue, a_job(limits=(IMPATIENT,)))
            for number in range(1, 6):
                checked = (await told(shard, RateChecked, number))[-1]
                assert text in checked.error
                assert (checked.allowed, checked.retry_ms) == (False, clock.now_ms + 1)
                clock.now_ms += 1
            service.failure, service.missing = None, 0
            service.refusals.clear()
            service.reset()

            assert (await told(shard, RateChecked, 6))[-1].allowed
            assert await leased(shard) == ["j1"]

    run(main())


# --- many, and one after the other -----------------------------------------------------------------------------------


def test_many_jobs_are_asked_about_in_few_calls():
    async def main():
        async with world() as (shard, service, _):
            service.gate.clear()
            jobs = [a_job(job_id=f"{number}", limits=(a_rate_limit(1_000),)) for number in range(250)]
            await asyncio.gather(*(shard.execute(enqueue, job) for job in jobs))
            sizes = []
            while sum(sizes) < 250:
                sizes.append(len(await service.arrived.get()))
            service.gate.set()
            await told(shard, RateChecked, 250)

            assert max(sizes) <= 100
            assert len(sizes) < 50
            assert service.counts[KEY] == 250

    run(main())


def test_only_so_many_questions_are_under_way_at_once_and_none_is_forgotten(monkeypatch):
    monkeypatch.setattr(rate_checks, "IN_FLIGHT_MAX", 10)

    async def main():
        async with world() as (shard, service, _):
            service.gate.clear()
            jobs = [a_job(job_id=f"{number:02}", limits=(a_rate_limit(1_000),)) for number in range(35)]
            await asyncio.gather(*(shard.execute(enqueue, job) for job in jobs))
            asked = 0
            while asked < 10:
                asked += len(await service.arrived.get())
            await turns()
            assert (asked, service.arrived.empty()) == (10, True)
            service.gate.set()
            checked = await told(shard, RateChecked, 35)

            assert {event.job_id for event in checked} == {job.job_id for job in jobs}
            assert service.counts[KEY] == 35

    run(main())


def test_a_question_that_hangs_holds_up_no_other():
    async def main():
        async with running_gubernator() as slow, running_gubernator() as service:
            slow.gate.clear()
            async with (
                serving(rules=ASKS) as shard,
                limiter_of(slow) as never,
                limiter_of(service) as at_once,
                asking(shard, lambda limit: (never if limit.name == "slow" else at_once).check(limit)),
            ):
                await shard.execute(enqueue, a_job(job_id="hangs", limits=(a_rate_limit(1, name="slow"),)))
                await slow.arrived.get()
                await shard.execute(enqueue, a_job(limits=(a_rate_limit(1),)))
                [checked] = await told(shard, RateChecked)
                assert checked.job_id == "j1"

    run(main())


def test_a_job_is_asked_about_at_each_of_its_rate_limits():
    # A142, A143
    async def main():
        async with world() as (shard, service, _):
            limits = (
                a_limit(1, "a"),
                a_rate_limit(1, name="first"),
                a_limit(1, "b"),
                a_rate_limit(1, name="second"),
            )
            await shard.execute(enqueue, a_job(limits=limits))
            first, second = await told(shard, RateChecked, 2)

            assert (first.gate, second.gate) == (1, 3)
            assert service.counts == {"first:acme": 1, "second:acme": 1}
            assert await leased(shard) == ["j1"]

    run(main())


def test_a_job_for_later_is_asked_about_when_its_time_has_come():
    async def main():
        async with world() as (shard, service, clock):
            await shard.execute(enqueue, a_job(limits=(a_rate_limit(1),), enqueue_time_ms=NOW + 5_000))
            await turns()
            assert service.calls == 0
            clock.now_ms += 5_000
            # Whoever leases wakes what is due.
            assert await leased(shard) == []
            await told(shard, RateChecked)
            assert await leased(shard) == ["j1"]

    run(main())


# --- late, twice, or never -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True], ids=["cancelled", "deleted"])
def test_an_answer_about_a_job_that_was_cancelled_meanwhile_changes_nothing(gone):
    async def main():
        async with world() as (shard, service, _):
            service.gate.clear()
            await shard.execute(enqueue, a_job(limits=(a_limit(1, "a"), a_rate_limit(1))))
            await service.arrived.get()
            await shard.execute(cancel, NAME)
            if gone:
                await shard.execute(delete, NAME)
            # It is asked about after the first one, and so its answer comes after that one's.
            await shard.execute(
                enqueue, a_job(job_id="j2", limits=(a_limit(1, "a"), a_rate_limit(5, name="other")))
            )
            await service.arrived.get()
            service.gate.set()
            checked = await told(shard, RateChecked)

            assert [event.job_id for event in checked] == ["j2"]
            assert len(await facts_of(shard, JobCancelled)) == 1
            assert await leased(shard) == ["j2"]

    run(main())


def test_a_job_that_is_asked_about_twice_passes_once():
    async def main():
        answered: asyncio.Queue[RateLimit] = asyncio.Queue()
        async with (
            running_gubernator() as service,
            serving(rules=ASKS) as shard,
            limiter_of(service) as limiter,
        ):

            async def check(limit: RateLimit) -> Any:
                answer = await limiter.check(limit)
                answered.put_nowait(limit)
                return answer

            service.gate.clear()
            async with asking(shard, check), asking(shard, check):
                jobs = [a_job(job_id=f"{number}", limits=(a_rate_limit(100),)) for number in range(20)]
                await asyncio.gather(*(shard.execute(enqueue, job) for job in jobs))
                asked = 0
                while asked < 40:
                    asked += len(await service.arrived.get())
                service.gate.set()
                for _ in range(40):
                    await answered.get()
                await told(shard, RateChecked, 20)
                await turns()

            assert len(await facts_of(shard, RateChecked)) == 20
            assert service.counts[KEY] == 40
            assert len(await shard.execute(lease_tasks, for_worker(max_tasks=100))) == 20

    run(main())


@pytest.mark.parametrize("checkpointed", [False, True], ids=["from the log", "from a checkpoint"])
def test_questions_that_were_open_when_the_broker_ended_are_asked_by_the_next_one(checkpointed):
    async def main():
        store = opens_slate(StoreSpec.in_memory())
        async with running_gubernator() as service:
            service.gate.clear()
            async with serving(store, rules=ASKS) as shard, limiter_of(service) as limiter:
                async with asking(shard, limiter.check):
                    for number in range(3):
                        await shard.execute(enqueue, a_job(job_id=f"{number}", limits=(a_rate_limit(9),)))
                        await service.arrived.get()
                if checkpointed:
                    await shard.checkpoint()
            service.gate.set()
            async with (
                serving(store, rules=ASKS) as shard,
                limiter_of(service) as limiter,
                asking(shard, limiter.check),
            ):
                checked = await told(shard, RateChecked, 3)
                assert [event.allowed for event in checked] == [True] * 3
                assert len(await shard.execute(lease_tasks, for_worker())) == 3
                assert len(await facts_of(shard, RateCheckDue)) == 3
            assert sum(map(len, service.batches)) == 6

    run(main())


def test_a_node_that_starts_again_asks_what_the_last_one_did_not_hear():
    async def main():
        async with running_gubernator() as service:
            service.gate.clear()
            sections = {
                "gubernator": Settings(address=service.address),
                "database": Database(backend="memory", path="/asked-again/%shard%"),
            }
            async with running_node(**sections) as node:
                limit = pb.GubernatorRateLimit(name="n", unique_key="k", limit=5, duration_ms=60_000, hits=1)
                limits = [pb.Limit(rate_limit=limit)]
                await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, task_group="g", limits=limits))
                await service.arrived.get()
            service.gate.set()
            async with running_node(**sections) as node:
                ask = pb.LeaseTasksRequest(shard=node.shard, task_group="g", worker_id="w", max_tasks=1)
                while not (await node.call("LeaseTasks", ask)).tasks:
                    await turns()
            assert service.calls == 2

    run(main())


def test_a_shard_that_opens_again_has_its_questions_asked_again():
    async def main():
        db = Watched(MemoryDatabase())
        async with (
            running_gubernator() as service,
            serving(opens(db), rules=ASKS) as shard,
            limiter_of(service) as limiter,
            asking(shard, limiter.check) as task,
        ):
            service.gate.clear()
            await shard.execute(enqueue, a_job(limits=(a_rate_limit(5),)))
            await service.arrived.get()
            db.failures.append(StoreFailed("on fire"))
            with pytest.raises(Unavailable):
                await shard.execute(enqueue, a_job(job_id="lost"))
            await db.abandoned.wait()
            service.gate.set()
            await service_answers(shard)

            assert await leased(shard) == ["j1"]
            assert len(await facts_of(shard, RateChecked)) == 1
            assert not task.done()

    async def service_answers(shard: Shard) -> None:
        with shard.listening() as decided:
            while True:
                decided.clear()
                with suppress(Unavailable):
                    await shard.log.durable()
                    if await facts_of(shard, RateChecked):
                        return
                await decided.wait()

    run(main())


# --- at rest, and at the end -----------------------------------------------------------------------------------------


def test_a_shard_in_which_nobody_comes_to_a_rate_limit_asks_nothing():
    async def main():
        async with world() as (shard, service, _):
            for number in range(5):
                await shard.execute(enqueue, a_job(job_id=f"{number}", limits=(a_limit(1, "a"),)))
            await turns()

            assert service.calls == 0

    run(main())


def test_a_shard_that_has_stopped_is_asked_about_no_more_and_says_why():
    async def main():
        async with (
            serving(rules=ASKS) as shard,
            running_gubernator() as service,
            limiter_of(service) as limiter,
        ):
            shard.stop(Corrupt("the log has a hole"))
            with pytest.raises(Corrupt, match="the log has a hole"):
                await run_rate_checks(shard, check=limiter.check)

    run(main())
