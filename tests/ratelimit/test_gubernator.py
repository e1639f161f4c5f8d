"""The limiter in front of a service that answers, fails, is slow, and goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from silo.domain.limits import Algorithm, Behavior, RateLimit
from silo.errors import LimiterFailed
from silo.ratelimit.gubernator import KEY_BYTES_MAX, PENDING_MAX, GubernatorAnswer, Limiter
from silo.server.gubernator_channel import GubernatorChannel
from tests.builders import a_rate_limit
from tests.gubernator import NOW, Gubernator, running_gubernator
from tests.serving import run, turns

LONG_MS = 600_000
"""A time that no test waits for."""


@asynccontextmanager
async def asking(**options: Any) -> AsyncIterator[tuple[Gubernator, Limiter]]:
    """A service, and a limiter that asks it; calls go out when they are full, or at the next turn."""
    async with running_gubernator() as service:
        channel = GubernatorChannel(service.address)
        limiter = Limiter(
            channel.ask,
            hang_up=channel.close,
            **{"coalesce_interval_ms": 0, "request_timeout_ms": LONG_MS} | options,
        )
        try:
            yield service, limiter
        finally:
            await limiter.close()


def a_key(number: int, **but: Any) -> RateLimit:
    return a_rate_limit(unique_key=f"k{number}", **but)


def keys(batch: Any) -> list[str]:
    return [question.unique_key for question in batch]


async def check_all(limiter: Limiter, limits: list[RateLimit]) -> list[GubernatorAnswer | BaseException]:
    return await asyncio.gather(*map(limiter.check, limits), return_exceptions=True)


def reasons(answers: list[GubernatorAnswer | BaseException]) -> list[str]:
    """Why there are no answers."""
    assert all(isinstance(answer, LimiterFailed) for answer in answers)
    return [str(answer) for answer in answers]


# --- asking --------------------------------------------------------------------------------------------------------------


def test_an_answer_is_what_the_service_says():
    # A150
    async def ask():
        async with asking() as (_, limiter):
            limit = a_rate_limit(limit=3, hits=2, duration_ms=700)
            under = GubernatorAnswer(allowed=True, limit=3, remaining=1, reset_ms=NOW + 700)
            over = GubernatorAnswer(allowed=False, limit=3, remaining=0, reset_ms=NOW + 700)
            assert [await limiter.check(limit), await limiter.check(limit)] == [under, over]
            assert limiter.pending == 0

    run(ask())


def test_a_question_is_the_limit_as_the_client_stated_it():
    async def ask():
        async with asking() as (service, limiter):
            behavior = Behavior.DRAIN_OVER_LIMIT | Behavior.DURATION_IS_GREGORIAN
            await limiter.check(
                a_rate_limit(
                    name="n",
                    unique_key="k",
                    limit=1 << 40,
                    duration_ms=5,
                    hits=0,
                    behavior=behavior,
                    algorithm=Algorithm.LEAKY_BUCKET,
                )
            )
            [[question]] = service.batches
            said = {field.name: value for field, value in question.ListFields()}
            # Neither hits nor burst, metadata and created_at: they are 0 or empty.  To drain is 16 in silo.v1, and 32 here.
            assert said == {
                "name": "n",
                "unique_key": "k",
                "limit": 1 << 40,
                "duration": 5,
                "algorithm": 1,
                "behavior": 4 | 32,
            }

    run(ask())


def test_the_service_counts_each_key_until_it_is_reset():
    # A150
    """What the service of these tests does, which tests of others rely on."""

    async def ask():
        async with asking() as (service, limiter):
            one, other = a_key(1, limit=3, hits=3), a_key(2, limit=3, hits=2)

            async def allowed(limit):
                return (await limiter.check(limit)).allowed

            assert [await allowed(limit) for limit in (one, other, one, other)] == [True, True, False, False]
            service.reset_key("mails", "k1")
            assert [await allowed(limit) for limit in (one, other)] == [True, False]
            service.reset()
            assert [await allowed(limit) for limit in (one, other)] == [True, True]
            service.forced["mails:k1"] = True
            assert await allowed(one)
            service.forced["mails:k1"] = False
            service.reset()
            assert not await allowed(one)
            assert service.calls == 10

    run(ask())


# --- batches -------------------------------------------------------------------------------------------------------------


def test_a_hundred_questions_at_once_are_one_call():
    async def ask():
        async with asking(coalesce_interval_ms=LONG_MS) as (service, limiter):
            answers = await check_all(limiter, [a_key(number) for number in range(100)])
            assert all(answer.allowed for answer in answers)
            assert [len(batch) for batch in service.batches] == [100]

    run(ask())


def test_a_call_takes_no_more_than_it_may():
    async def ask():
        async with asking(max_batch_size=3) as (service, limiter):
            await check_all(limiter, [a_key(number) for number in range(8)])
            assert sorted(map(keys, service.batches)) == [
                ["k0", "k1", "k2"],
                ["k3", "k4", "k5"],
                ["k6", "k7"],
            ]

    run(ask())


@pytest.mark.parametrize("interval_ms", [0, 5])
def test_questions_wait_a_moment_for_others(interval_ms):
    async def ask():
        async with asking(coalesce_interval_ms=interval_ms) as (service, limiter):
            await check_all(limiter, [a_key(1), a_key(2)])
            await limiter.check(a_key(3))
            assert list(map(keys, service.batches)) == [["k1", "k2"], ["k3"]]

    run(ask())


def test_each_gets_its_own_answer():
    async def ask():
        async with asking(max_batch_size=7) as (_, limiter):
            limits = [a_key(number, limit=number + 1) for number in range(50)]
            answers = await check_all(limiter, limits)
            assert [answer.limit for answer in answers] == [limit.limit for limit in limits]
            assert [answer.remaining for answer in answers] == list(range(50))

    run(ask())


def test_a_slow_call_does_not_hold_up_the_next():
    async def ask():
        async with asking() as (service, limiter):
            service.gate.clear()
            slow = asyncio.create_task(limiter.check(a_key(1)))
            assert keys(await service.arrived.get()) == ["k1"]
            quick = asyncio.create_task(limiter.check(a_key(2)))
            assert keys(await service.arrived.get()) == ["k2"]
            assert limiter.pending == 2
            service.gate.set()
            assert (await slow).allowed
            assert (await quick).allowed

    run(ask())


def test_nothing_runs_while_there_is_no_question(monkeypatch):
    async def ask():
        loop = asyncio.get_running_loop()
        before = asyncio.all_tasks()
        async with asking(coalesce_interval_ms=LONG_MS, max_batch_size=2) as (service, limiter):
            timers, call_later = [], loop.call_later

            def noting(*args, **kwargs):
                timers.append(call_later(*args, **kwargs))
                return timers[-1]

            monkeypatch.setattr(loop, "call_later", noting)
            await check_all(limiter, [a_key(1), a_key(2)])
            alone = asyncio.create_task(limiter.check(a_key(3)))
            await turns()
            alone.cancel()
            await asyncio.wait([alone])
            assert len(timers) == 2
            assert all(timer.cancelled() for timer in timers)
            assert not any("rate limiter" in task.get_name() for task in asyncio.all_tasks() - before)
            assert service.calls == 1

    run(ask())


# --- failing -------------------------------------------------------------------------------------------------------------


def test_an_answer_with_an_error_lets_nobody_pass():
    async def ask():
        async with asking() as (service, limiter):
            service.refusals["mails:k2"] = "field 'unique_key' is odd"
            first, second, third = await check_all(limiter, [a_key(1), a_key(2), a_key(3)])
            assert (first.allowed, third.allowed) == (True, True)
            assert reasons([second]) == ["the rate limiter refused the question: field 'unique_key' is odd"]

    run(ask())


@pytest.mark.parametrize("missing", [1, 3])
def test_too_few_answers_are_none(missing):
    async def ask():
        async with asking() as (service, limiter):
            service.missing = missing
            answers = await check_all(limiter, [a_key(number) for number in range(3)])
            assert reasons(answers) == [f"the rate limiter gave {3 - missing} answers to 3 questions"] * 3

    run(ask())


def test_a_call_that_fails_lets_nobody_pass():
    # A150
    async def ask():
        async with asking() as (service, limiter):
            service.failure = grpc.StatusCode.RESOURCE_EXHAUSTED
            answers = await check_all(limiter, [a_key(1), a_key(2)])
            reason = 'the rate limiter failed: status: ResourceExhausted, message: "told to fail"'
            assert reasons(answers) == [reason] * 2
            assert answers[0] is not answers[1]
            service.failure = None
            assert (await limiter.check(a_key(1))).allowed
            assert limiter.pending == 0

    run(ask())


def test_a_call_without_an_answer_in_time_lets_nobody_pass():
    async def ask():
        async with asking(request_timeout_ms=20) as (service, limiter):
            service.gate.clear()
            answers = await check_all(limiter, [a_key(1), a_key(2)])
            assert reasons(answers) == ["the rate limiter did not answer within 20 ms"] * 2
            assert limiter.pending == 0

    run(ask())


def test_a_bug_behind_the_limiter_is_logged_and_lets_nobody_pass(caplog):
    async def ask():
        async def buggy(limits):
            raise ZeroDivisionError("oh")

        limiter = Limiter(buggy, coalesce_interval_ms=0)
        [answer] = await check_all(limiter, [a_key(1)])
        assert reasons([answer]) == ["a call to the rate limiter met a bug: ZeroDivisionError('oh')"]
        assert "a call to the rate limiter met a bug" in caplog.text
        assert "ZeroDivisionError" in caplog.text

    run(ask())


def test_a_key_that_is_too_long_fails_by_itself():
    async def ask():
        async with asking() as (service, limiter):
            long = a_rate_limit(name="n", unique_key="ü" * (KEY_BYTES_MAX // 2))
            first, second = await check_all(limiter, [a_key(1), long])
            assert first.allowed
            assert reasons([second]) == ["name and unique_key of a rate limit are longer than 4096 bytes"]
            assert list(map(keys, service.batches)) == [["k1"]]

    run(ask())


def test_a_thousand_of_the_longest_questions_fit_into_a_call():
    async def ask():
        async with asking(max_batch_size=1_000) as (service, limiter):
            longest = a_rate_limit(
                unique_key="k" * (KEY_BYTES_MAX - len("mails")),
                limit=-1,
                duration_ms=-1,
                hits=-1,
                behavior=-1,
                algorithm=Algorithm.LEAKY_BUCKET,
            )
            answers = await check_all(limiter, [longest] * 1_000)
            assert [type(answer) for answer in answers] == [GubernatorAnswer] * 1_000
            assert service.calls == 1

    run(ask())


def test_questions_that_wait_for_an_answer_are_bounded():
    async def ask():
        async with asking() as (service, limiter):
            service.gate.clear()
            waiting = [asyncio.create_task(limiter.check(a_key(number))) for number in range(PENDING_MAX)]
            await turns()
            with pytest.raises(LimiterFailed, match="1000 questions to the rate limiter have no answer yet"):
                await limiter.check(a_key(PENDING_MAX))
            service.gate.set()
            assert all(answer.allowed for answer in await asyncio.gather(*waiting))
            assert (await limiter.check(a_key(PENDING_MAX))).allowed

    run(ask())


# --- going away ----------------------------------------------------------------------------------------------------------


def test_a_caller_who_goes_away_early_takes_his_question_back():
    async def ask():
        async with asking(coalesce_interval_ms=LONG_MS, max_batch_size=3) as (service, limiter):
            gone, *others = (asyncio.create_task(limiter.check(a_key(number))) for number in range(3))
            gone.cancel()
            await asyncio.wait([gone])
            assert gone.cancelled()
            # Cancelled before it ran or after, it is not among the three that make a call.
            last = asyncio.create_task(limiter.check(a_key(3)))
            assert all(answer.allowed for answer in await asyncio.gather(*others, last))
            assert list(map(keys, service.batches)) == [["k1", "k2", "k3"]]
            assert service.counts["mails:k0"] == 0

    run(ask())


def test_one_who_has_asked_and_waits_can_take_his_question_back_too():
    async def ask():
        async with asking(coalesce_interval_ms=LONG_MS, max_batch_size=3) as (service, limiter):
            gone, *others = [asyncio.create_task(limiter.check(a_key(number))) for number in range(2)]
            await turns()
            assert limiter.pending == 2
            gone.cancel()
            await asyncio.wait([gone])
            assert limiter.pending == 1
            others += [asyncio.create_task(limiter.check(a_key(number))) for number in (2, 3)]
            assert all(answer.allowed for answer in await asyncio.gather(*others))
            assert list(map(keys, service.batches)) == [["k1", "k2", "k3"]]

    run(ask())


def test_a_caller_who_goes_away_late_disturbs_nobody():
    async def ask():
        async with asking() as (service, limiter):
            service.gate.clear()
            gone, stays = [asyncio.create_task(limiter.check(a_key(number))) for number in range(2)]
            await service.arrived.get()
            gone.cancel()
            await asyncio.wait([gone])
            assert gone.cancelled()
            service.gate.set()
            assert (await stays).allowed
            assert limiter.pending == 0

    run(ask())


def test_a_limiter_that_closes_fails_every_question():
    async def ask():
        async with asking(coalesce_interval_ms=LONG_MS, max_batch_size=2) as (service, limiter):
            service.gate.clear()
            checks = [asyncio.create_task(limiter.check(a_key(number))) for number in range(3)]
            await service.arrived.get()
            await limiter.close()
            answers = await asyncio.gather(*checks, return_exceptions=True)
            late = await check_all(limiter, [a_key(4)])
            assert set(reasons(answers + late)) == {"the broker stops, and asks the rate limiter no more"}
            assert limiter.pending == 0
            service.gate.set()

    run(ask())


def test_a_service_that_starts_again_is_found_again():
    async def ask():
        async with asking() as (service, limiter):
            assert (await limiter.check(a_key(1))).allowed
            await service.stop()
            [answer] = await check_all(limiter, [a_key(1)])
            assert reasons([answer])[0].startswith("the rate limiter failed: status: Unavailable")
            await service.start()
            # What the caller's retries do: until it is found again, nothing passes.
            while True:
                [answer] = await check_all(limiter, [a_key(1)])
                if isinstance(answer, GubernatorAnswer):
                    break
                await asyncio.sleep(0.02)
            assert answer.allowed

    run(ask())


def test_a_service_that_stops_in_the_middle_lets_nobody_pass():
    async def ask():
        async with asking() as (service, limiter):
            service.gate.clear()
            check = asyncio.create_task(limiter.check(a_key(1)))
            await service.arrived.get()
            await service.stop()
            with pytest.raises(LimiterFailed, match="the rate limiter failed: status: "):
                await check
            service.gate.set()

    run(ask())
