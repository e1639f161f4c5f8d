"""A rate limiter for tests: a real gRPC server on loopback that speaks pb.gubernator, and does what a test tells it.

    async with running_gubernator() as service:
        service.refusals["mails:acme"] = "no such tenant"
        node = Node(settings with Gubernator(address=service.address))

It counts the hits under each name and key, also those over the limit, and forgets them only when it is told to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from google.protobuf.message import Message

from silo.pb import gubernator_pb2 as pb
from silo.pb.gubernator_pb2_grpc import V1Servicer, add_V1Servicer_to_server

NOW = 1_000_000
"""What the service believes the time is."""


class Gubernator(V1Servicer):
    """The service.

    Attributes:
        address: `host:port`, the same after each `start`.
        counts: the hits under each `name:unique_key`.
        forced: an answer for a `name:unique_key`, whatever its count says: True is under the limit, False over it.
        refusals: an error in the answer for a `name:unique_key`.
        failure: the status with which calls fail as a whole.
        missing: so many answers are left out at the end of each call.
        gate: while it is cleared, calls wait before they are answered; they have arrived by then.
        arrived: each call's questions, as it arrives.
        batches: the questions of each call so far.
        looked_at: set once somebody has asked how it is.
        status, message: how it says it is; an empty status is that of one that is starting, which cannot say.
    """

    def __init__(self) -> None:
        self.address = "127.0.0.1:0"
        self.counts: Counter[str] = Counter()
        self.forced: dict[str, bool] = {}
        self.refusals: dict[str, str] = {}
        self.failure: grpc.StatusCode | None = None
        self.missing = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived: asyncio.Queue[Sequence[pb.RateLimitReq]] = asyncio.Queue()
        self.batches: list[Sequence[pb.RateLimitReq]] = []
        self.looked_at = asyncio.Event()
        self.status, self.message = "healthy", ""
        self._server: grpc.aio.Server | None = None

    @property
    def calls(self) -> int:
        """How often it was asked, health not counted."""
        return len(self.batches)

    def reset(self) -> None:
        """Forget all hits."""
        self.counts.clear()

    def reset_key(self, name: str, unique_key: str) -> None:
        """Forget the hits under one name and key."""
        del self.counts[f"{name}:{unique_key}"]

    # --- the server ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen: the first time on a port that is free, then on the same again."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_V1Servicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(self.address)}"
        await self._server.start()

    async def stop(self) -> None:
        """Go away at once; calls under way fail."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    # --- its calls -------------------------------------------------------------------------------------------------------

    async def GetRateLimits(  # noqa: N802
        self, request: pb.GetRateLimitsReq, context: grpc.aio.ServicerContext[Message, Message]
    ) -> pb.GetRateLimitsResp:
        questions = list(request.requests)
        self.batches.append(questions)
        self.arrived.put_nowait(questions)
        await self.gate.wait()
        if self.failure is not None:
            await context.abort(self.failure, "told to fail")
        answers = [self._answer(question) for question in questions]
        return pb.GetRateLimitsResp(responses=answers[: len(answers) - self.missing])

    async def HealthCheck(  # noqa: N802
        self, request: pb.HealthCheckReq, context: grpc.aio.ServicerContext[Message, Message]
    ) -> pb.HealthCheckResp:
        self.looked_at.set()
        if not self.status:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return pb.HealthCheckResp(status=self.status, message=self.message, peer_count=1)

    def _answer(self, question: pb.RateLimitReq) -> pb.RateLimitResp:
        key = f"{question.name}:{question.unique_key}"
        if key in self.refusals:
            return pb.RateLimitResp(error=self.refusals[key])
        self.counts[key] += question.hits
        under = self.forced.get(key, self.counts[key] <= question.limit)
        return pb.RateLimitResp(
            status=pb.UNDER_LIMIT if under else pb.OVER_LIMIT,
            limit=question.limit,
            remaining=max(0, question.limit - self.counts[key]),
            reset_time=NOW + question.duration,
        )


@asynccontextmanager
async def running_gubernator() -> AsyncIterator[Gubernator]:
    """The service on a free port, for as long as the block lasts."""
    service = Gubernator()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
