"""Calls between processes, over a network that delays, loses and repeats.

A call is what it is in production: the bytes of a request come to the handler that production registers with gRPC, and the
bytes of its reply go back, or a status with its text and trailers.  Only what lies between is simulated.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs
import grpc
from google.protobuf.message import Message

from silo.testing.loop import Process

Metadata = Sequence[tuple[str, str]]


@attrs.define
class NetworkFaults:
    """How the network behaves just now.  The numbers without a unit are chances between 0 and 1, for each message.

    Attributes:
        delay_s: how long a message is on its way, between these two; so a later one may arrive first.
        lose_request, lose_reply: it never arrives, and the caller hears nothing until its time is up.
        repeat: a request that arrives twice, as from a client that tries again too soon.
        apart: pairs of processes, by name, that do not reach each other.
    """

    delay_s: tuple[float, float] = (0.0002, 0.003)
    lose_request: float = 0.0
    lose_reply: float = 0.0
    repeat: float = 0.0
    apart: set[tuple[str, str]] = attrs.field(factory=set)


class CallRefused(Exception):
    """A call that ended with a status other than OK.

    Attributes:
        code: what gRPC would say; UNAVAILABLE and DEADLINE_EXCEEDED leave open whether the call was carried out.
        details: the text.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details

    @property
    def is_uncertain(self) -> bool:
        """Whether the call may have been carried out all the same."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Context:
    """What a handler is given of gRPC's context."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", _: Any = ()) -> NoReturn:
        raise _Aborted(code, details)


class _Aborted(grpc.aio.AbortError):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


@attrs.define
class Endpoint:
    """Where a process answers calls; without handlers it has a port and does not serve yet."""

    process: Process
    handlers: Sequence[grpc.GenericRpcHandler] = ()


class Network:
    """Who can be called, and what becomes of the calls.

    Args:
        happened: counts the faults that came to pass, by kind.
    """

    def __init__(self, faults: NetworkFaults, chance: random.Random, *, happened: Counter[str]) -> None:
        self.faults = faults
        self.calls = 0
        self._chance = chance
        self._happened = happened
        self._endpoints: dict[str, Endpoint] = {}
        self._under_way: dict[str, dict[asyncio.Future[bytes], None]] = {}

    def listen(self, name: str, endpoint: Endpoint) -> None:
        """From now on calls to this name come to this process."""
        self._endpoints[name] = endpoint

    def hang_up(self, name: str) -> None:
        """The process is gone: connections to it break."""
        self._endpoints.pop(name, None)
        for reply in list(self._under_way.pop(name, {})):
            _refuse(reply, grpc.StatusCode.UNAVAILABLE, "connection reset")

    async def call(
        self, caller: str, name: str, method: str, request: Message, reply: type[Message], *, timeout_s: float
    ) -> Any:
        """Make a unary call.

        Args:
            caller: the name of the process that calls.
            method: as in `/silo.v1.Silo/Enqueue`.

        Raises:
            CallRefused: the status that the call ended with.
        """
        self.calls += 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        under_way = self._under_way.setdefault(name, {})
        under_way[answer] = None
        handling: list[asyncio.Task[None]] = []
        try:
            # As callers of gRPC have it: when the time is up the call is over, and the handler is cancelled.
            async with asyncio.timeout(timeout_s):
                await self._send(caller, name, method, request.SerializeToString(), answer, handling)
                return reply.FromString(await answer)
        except TimeoutError:
            for task in handling:
                task.cancel()
            raise CallRefused(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        finally:
            under_way.pop(answer, None)

    async def _send(
        self,
        caller: str,
        name: str,
        method: str,
        request: bytes,
        answer: asyncio.Future[bytes],
        handling: list[asyncio.Task[None]],
    ) -> None:
        await self._travel()
        if self._is_cut(caller, name) or self._strikes("request lost", self.faults.lose_request):
            return
        endpoint = self._endpoints.get(name)
        if endpoint is None or not endpoint.handlers:
            raise CallRefused(grpc.StatusCode.UNAVAILABLE, "failed to connect")
        for _ in range(2 if self._strikes("request repeated", self.faults.repeat) else 1):
            work = self._handle(endpoint, caller, name, method, request, answer)
            handling.append(endpoint.process.start(work, name=f"{name} {method}"))

    async def _handle(
        self,
        endpoint: Endpoint,
        caller: str,
        name: str,
        method: str,
        request: bytes,
        answer: asyncio.Future[bytes],
    ) -> None:
        """Answer a call, in the process that was called."""
        refusal: CallRefused | None = None
        reply = b""
        context = Context((("x-silo-actor", caller),))
        handler = _handler(endpoint.handlers, method, context)
        try:
            message = await handler.unary_unary(handler.request_deserializer(request), context)
            reply = handler.response_serializer(message)
        except _Aborted as error:
            refusal = CallRefused(error.code, error.details)
        await self._travel()
        if self._is_cut(caller, name) or self._strikes("reply lost", self.faults.lose_reply):
            return
        if refusal is not None:
            _refuse(answer, refusal.code, refusal.details)
        elif not answer.done():
            answer.set_result(reply)

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.uniform(*self.faults.delay_s))

    def _is_cut(self, one: str, other: str) -> bool:
        cut = (one, other) in self.faults.apart or (other, one) in self.faults.apart
        self._happened["message cut off"] += cut
        return cut

    def _strikes(self, kind: str, probability: float) -> bool:
        struck = probability > 0 and self._chance.random() < probability
        self._happened[kind] += struck
        return struck


def _refuse(answer: asyncio.Future[bytes], code: grpc.StatusCode, details: str) -> None:
    if not answer.done():
        answer.set_exception(CallRefused(code, details))
        answer.exception()


@attrs.frozen
class _Details:
    method: str
    invocation_metadata: Metadata


def _handler(handlers: Sequence[grpc.GenericRpcHandler], method: str, context: Context) -> Any:
    details: Any = _Details(method, context.invocation_metadata())
    return next(found for each in handlers if (found := each.service(details)) is not None)
