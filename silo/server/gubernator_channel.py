"""The way to Gubernator over gRPC, and the limiter at its other end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import attrs
import grpc

from silo.domain.limits import Algorithm, Behavior, RateLimit
from silo.errors import ConfigError, LimiterFailed
from silo.pb import gubernator_pb2 as pb
from silo.pb.gubernator_pb2_grpc import V1Stub
from silo.ratelimit.gubernator import GubernatorAnswer, Limiter, Reply
from silo.server.statuses import in_words
from silo.settings import Gubernator

logger = logging.getLogger(__name__)

CHANNEL = [
    # A service that was away is found again within seconds; gRPC's own habit is to look ever more rarely for it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

LOOK_AGAIN_S = 0.1

ALGORITHMS = {Algorithm.TOKEN_BUCKET: pb.TOKEN_BUCKET, Algorithm.LEAKY_BUCKET: pb.LEAKY_BUCKET}


@attrs.frozen
class Wellbeing:
    """What the service says of itself."""

    status: str
    message: str
    peer_count: int


class GubernatorChannel:
    """A connection to the service.  It comes back by itself after the service was away."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL)
        self._stub: Any = V1Stub(self._channel)

    async def ask(self, limits: list[RateLimit]) -> list[Reply]:
        """Ask about many rate limits in one call.  Raises LimiterFailed if the call fails."""
        request = pb.GetRateLimitsReq(requests=[_question(limit) for limit in limits])
        try:
            response = await self._stub.GetRateLimits(request)
        except grpc.aio.AioRpcError as error:
            raise LimiterFailed(f"the rate limiter failed: {_words(error)}") from error
        return [_reply(answer) for answer in response.responses]

    async def health_check(self) -> Wellbeing:
        """How the service is; waits until it can be reached.  Raises `grpc.aio.AioRpcError` if it cannot say."""
        response = await self._stub.HealthCheck(pb.HealthCheckReq(), wait_for_ready=True)
        return Wellbeing(response.status, response.message, response.peer_count)

    async def close(self) -> None:
        await self._channel.close()


async def connect_limiter(settings: Gubernator) -> Limiter | None:
    """The limiter that the settings ask for, connected; None if they name no service.

    Raises ConfigError if nothing answers at the address, or something that is no Gubernator.
    """
    if not settings.address:
        return None

    channel = GubernatorChannel(settings.address)
    try:
        await _meet(channel, settings)
    except BaseException:
        await channel.close()
        raise
    return Limiter(
        channel.ask,
        coalesce_interval_ms=settings.coalesce_interval_ms,
        max_batch_size=settings.max_batch_size,
        request_timeout_ms=settings.request_timeout_ms,
        hang_up=channel.close,
    )


async def _meet(channel: GubernatorChannel, settings: Gubernator) -> None:
    """Wait until the service says that it is there."""
    named = f'[gubernator] address = "{settings.address}"'
    failure = "nobody listens"
    try:
        async with asyncio.timeout(settings.connect_timeout_ms / 1000):
            while True:
                try:
                    wellbeing = await channel.health_check()
                    break
                except grpc.aio.AioRpcError as error:
                    failure = _words(error)
                    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                        raise ConfigError(
                            f"{named}: what answers there is no Gubernator: {failure}"
                        ) from error
                # One that is starting itself is UNAVAILABLE until it knows its peers.
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError as error:
        raise ConfigError(
            f"{named}: no Gubernator has answered there within {settings.connect_timeout_ms} ms "
            f"(connect_timeout_ms): {failure}"
        ) from error
    if wellbeing.status != "healthy":
        logger.warning(
            "the rate limiter at %s is %s: %s", settings.address, wellbeing.status, wellbeing.message
        )


def _question(limit: RateLimit) -> pb.RateLimitReq:
    return pb.RateLimitReq(
        name=limit.name,
        unique_key=limit.unique_key,
        hits=limit.hits,
        limit=limit.limit,
        duration=limit.duration_ms,
        algorithm=ALGORITHMS[limit.algorithm],
        behavior=_behavior(limit.behavior),
    )


def _behavior(flags: int) -> int:
    """The flags as Gubernator knows them.  All have the same bits as in silo.v1 but one."""
    if flags & Behavior.DRAIN_OVER_LIMIT:
        return flags & ~Behavior.DRAIN_OVER_LIMIT | pb.DRAIN_OVER_LIMIT
    return flags


def _reply(answer: pb.RateLimitResp) -> Reply:
    # An answer with an error has the status of one that may pass.
    if answer.error:
        return LimiterFailed(f"the rate limiter refused the question: {answer.error}")
    return GubernatorAnswer(
        allowed=answer.status == pb.UNDER_LIMIT,
        limit=answer.limit,
        remaining=answer.remaining,
        reset_ms=answer.reset_time,
    )


def _words(error: grpc.aio.AioRpcError) -> str:
    return in_words(error.code(), error.details() or "")
