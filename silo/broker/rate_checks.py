"""Rate limits that an outside service decides: asks it about the chains of one shard that have come to one.

Questions are not written down.  What is open is what the rows say (chains whose check is due), so a broker that crashes asks
again after it has opened, and the service counts those hits twice: it errs towards letting nobody pass.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

from silo.domain.limits import RateLimit
from silo.errors import LimiterFailed, Unavailable, first_of
from silo.shard.gates import take_reply
from silo.shard.rates import Question, Reply
from silo.shard.shard import Shard
from silo.shard.throttle import open_questions

IN_FLIGHT_MAX = 500
"""Questions of one shard that have no answer yet."""

LOOK_AGAIN_S = 0.005
RETRY_S = 0.2


class Answer(Protocol):
    """What the service says of one limit."""

    @property
    def allowed(self) -> bool: ...

    @property
    def remaining(self) -> int: ...

    @property
    def reset_ms(self) -> int: ...


CheckRate = Callable[[RateLimit], Awaitable[Answer]]
"""Asks the service.  Raises LimiterFailed if it does not answer."""


async def run_rate_checks(shard: Shard, *, check: CheckRate) -> None:
    """Ask about all that comes due in one shard, until cancelled.

    Raises:
        SiloError: why the shard has stopped.
    """
    try:
        with shard.listening() as decided:
            async with asyncio.TaskGroup() as group:
                await _ask_on(shard, check, decided, group)
    except ExceptionGroup as group:
        raise first_of(group) from None


async def _ask_on(
    shard: Shard, check: CheckRate, decided: asyncio.Event, group: asyncio.TaskGroup
) -> NoReturn:
    asked: set[Question] = set()
    while True:
        decided.clear()
        try:
            questions = await shard.execute(open_questions, IN_FLIGHT_MAX)
        except Unavailable:
            # The shard is opening again, or for good somebody else's; whoever supervises it knows.
            await asyncio.sleep(RETRY_S)
            continue
        # As many as may be under way were looked at, so that there is room for all that are new.
        for question in questions.due:
            if question not in asked:
                asked.add(question)
                group.create_task(_ask(question, shard, check, asked), name="rate check")
        wait_s = None
        if questions.next_ms is not None:
            wait_s = max((questions.next_ms - shard.now_ms()) / 1000, LOOK_AGAIN_S)
        try:
            async with asyncio.timeout(wait_s):
                await decided.wait()
        except TimeoutError:
            continue
        await asyncio.sleep(LOOK_AGAIN_S)


async def _ask(question: Question, shard: Shard, check: CheckRate, asked: set[Question]) -> None:
    try:
        reply = await _reply(question, check)
        # If the shard is away, the question stays open in its rows, and is asked again.
        with contextlib.suppress(Unavailable):
            await shard.execute(take_reply, reply)
    finally:
        asked.discard(question)


async def _reply(question: Question, check: CheckRate) -> Reply:
    try:
        answer = await check(question.limit)
    except LimiterFailed as error:
        return Reply(question=question, error=str(error))
    return Reply(
        question=question,
        allowed=answer.allowed,
        remaining=answer.remaining,
        reset_ms=answer.reset_ms,
    )
