"""Rate limits that an outside service decides: Gubernator, asked many questions at a time.

Questions are gathered until there are `max_batch_size` of them, or until `coalesce_interval_ms` have passed since the first;
then they go out as one call.  Calls overlap: a slow one does not hold up the next.

Nothing passes by mistake: whatever goes wrong is raised, and whoever asked must take that for a no.  The service may have
counted hits all the same, as their answer was lost on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import attrs

from silo.domain.limits import RateLimit
from silo.errors import LimiterFailed, again

logger = logging.getLogger(__name__)

PENDING_MAX = 1_000
KEY_BYTES_MAX = 4_096
"""Of a name and a key together.  A thousand such questions fit into a message of 4 MiB, which is what gRPC takes.  A single
question that did not fit would fail all that share a call with it, again and again, as they are tried again together."""


@attrs.frozen(kw_only=True)
class GubernatorAnswer:
    """What the service said to one question.

    Attributes:
        remaining: hits that could still pass.
        reset_ms: when it will forget what has passed, in epoch ms.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_ms: int


Reply = GubernatorAnswer | LimiterFailed
"""What became of one question among many: an answer, or why there is none."""

Ask = Callable[[list[RateLimit]], Awaitable[Sequence[Reply]]]
"""One call to the service: a reply for each question, in the same order.  Raises LimiterFailed if it failed as a whole."""


@attrs.frozen(eq=False)
class _Question:
    limit: RateLimit
    answer: asyncio.Future[GubernatorAnswer]


class Limiter:
    """Asks the service for everybody in this process.

    Attributes:
        pending: questions that have no answer yet.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        coalesce_interval_ms: int = 5,
        max_batch_size: int = 100,
        request_timeout_ms: int = 10_000,
        hang_up: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Nothing runs until there is a question.

        Args:
            request_timeout_ms: how long the service may think about one call.
            hang_up: ends the connection behind `ask`; called when the limiter closes.
        """
        self.pending = 0
        self._ask = ask
        self._interval_s = coalesce_interval_ms / 1000
        self._batch_size_max = max_batch_size
        self._timeout_ms = request_timeout_ms
        self._hang_up = hang_up
        self._closed = False
        self._gathered: list[_Question] = []
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def check(self, limit: RateLimit) -> GubernatorAnswer:
        """Ask whether `limit.hits` may pass; if so they are counted.

        A caller who is cancelled takes his question back as long as it has not been sent.

        Raises:
            LimiterFailed: there is no answer, and nothing may pass.
        """
        self._refuse(limit)
        question = _Question(limit, asyncio.get_running_loop().create_future())
        self._gather(question)
        try:
            return await question.answer
        except asyncio.CancelledError:
            self._take_back(question)
            raise

    async def close(self) -> None:
        """Fail all questions that have no answer, and hang up."""
        self._closed = True
        self._stop_timer()
        self._settle(self._gathered, [_closed()] * len(self._gathered))
        self._gathered = []
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)
        if self._hang_up is not None:
            await self._hang_up()

    # --- gathering -------------------------------------------------------------------------------------------------------

    def _refuse(self, limit: RateLimit) -> None:
        if self._closed:
            raise _closed()
        if self.pending >= PENDING_MAX:
            raise LimiterFailed(f"{PENDING_MAX} questions to the rate limiter have no answer yet")
        if len(limit.name.encode()) + len(limit.unique_key.encode()) > KEY_BYTES_MAX:
            raise LimiterFailed(f"name and unique_key of a rate limit are longer than {KEY_BYTES_MAX} bytes")

    def _gather(self, question: _Question) -> None:
        self.pending += 1
        self._gathered.append(question)
        if len(self._gathered) >= self._batch_size_max:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._send)

    def _take_back(self, question: _Question) -> None:
        if question in self._gathered:
            self._gathered.remove(question)
            self.pending -= 1
            if not self._gathered:
                self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- calling ---------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        self._stop_timer()
        batch, self._gathered = self._gathered, []
        call = asyncio.create_task(self._call(batch), name="call to the rate limiter")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, batch: list[_Question]) -> None:
        replies: Sequence[Reply] = [_closed()] * len(batch)
        try:
            replies = await self._replies([question.limit for question in batch])
        except LimiterFailed as failure:
            replies = [failure] * len(batch)
        finally:
            self._settle(batch, replies)

    async def _replies(self, limits: list[RateLimit]) -> Sequence[Reply]:
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                replies = await self._ask(limits)
        except TimeoutError as error:
            raise LimiterFailed(f"the rate limiter did not answer within {self._timeout_ms} ms") from error
        except LimiterFailed:
            raise
        except Exception as error:
            logger.exception("a call to the rate limiter met a bug")
            raise LimiterFailed(f"a call to the rate limiter met a bug: {error!r}") from error
        if len(replies) != len(limits):
            # Nobody can tell which question was passed over, so no answer can be trusted.
            raise LimiterFailed(f"the rate limiter gave {len(replies)} answers to {len(limits)} questions")
        return replies

    def _settle(self, batch: list[_Question], replies: Sequence[Reply]) -> None:
        self.pending -= len(batch)
        for question, reply in zip(batch, replies, strict=True):
            answer = question.answer
            if answer.done():
                continue  # its caller was cancelled
            if isinstance(reply, LimiterFailed):
                answer.set_exception(again(reply))
                answer.exception()  # a caller that has gone away does not count as an error that nobody saw
            else:
                answer.set_result(reply)


def _closed() -> LimiterFailed:
    return LimiterFailed("the broker stops, and asks the rate limiter no more")
