"""Calls that reach their shard: sent to its node, and sent again while nobody can say what became of them.

What may be sent again is decided here, for every call alike:

    UNAVAILABLE                     the broker starts, stops, cannot keep up or cannot be reached: again, after a pause
    DEADLINE_EXCEEDED, our own      the same
    NOT_FOUND shard not found       ask where the shard is now; trailing metadata may say it at once
    FAILED_PRECONDITION not within  the tenant belongs to another shard now
    anything else                   is an answer

A call that is sent again may have taken effect the first time.  Whoever makes it says which answer to a further try means
that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import grpc

from silo.client.connection import Nodes, Options
from silo.client.errors import BrokerUnavailable, ClientError, error_for
from silo.client.routing import Topology
from silo.pb import silo_pb2 as pb

PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
"""Before each further try, the last for all that follow; half of it by chance."""

OWNER_ADDR = "x-silo-shard-owner-addr"

Code = grpc.StatusCode


@attrs.frozen
class Place:
    """Whom a call concerns: a tenant's shard, or one shard by its id."""

    tenant: str | None = None
    shard_id: str | None = None


@attrs.define
class Tries:
    """How often a call was sent again."""

    more: int = 0


@attrs.frozen
class DoneBefore:
    """The answer to a further try: the first one took effect, and its reply was lost."""


class Calls:
    """Makes the calls of one event loop.

    Args:
        timeout_s: how long a call may take with all its tries, in seconds.
        try_s: how long one try may take.

    Attributes:
        sent_again: how many tries have followed one that was not answered, or with UNAVAILABLE.
    """

    def __init__(self, options: Options, *, timeout_s: float, try_s: float) -> None:
        self.sent_again = 0
        self.nodes = Nodes(options)
        self.timeout_s = timeout_s
        self._try_s = try_s
        self._options = options
        self._topology: Topology | None = None
        self._addresses = options.addresses
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        await self.nodes.close()

    # --- where -----------------------------------------------------------------------------------------------------------

    async def topology(self) -> Topology:
        """The shards, as far as anybody knows.  Raises ClientError if no node tells within the time of a call."""
        if self._topology is not None:
            return self._topology
        found: Topology = await self._retrying(self._ask_topology, self.timeout_s)
        return found

    async def _ask_topology(self, left_s: float, again: bool) -> Topology:
        async with self._asking:
            if self._topology is None:
                self._topology = await self._first_topology(left_s)
            return self._topology

    async def _first_topology(self, left_s: float) -> Topology:
        error: grpc.aio.AioRpcError | None = None
        for address in self._addresses:
            silo = self.nodes[address].services["Silo"]
            try:
                info = await silo.GetClusterInfo(
                    pb.GetClusterInfoRequest(), timeout=left_s, metadata=self._options.metadata
                )
            except grpc.aio.AioRpcError as failure:
                error = failure
            else:
                if info.shard_owners:
                    topology = Topology.of(info)
                    self._addresses = tuple(dict.fromkeys((*self._options.addresses, *topology.addresses)))
                    return topology
                raise BrokerUnavailable(f"the broker at {address} has no shards yet", Code.UNAVAILABLE)
        assert error is not None
        raise error

    def ask_again(self) -> None:
        """Ask where the shards are before the next call."""
        self._topology = None

    async def locate(self, place: Place) -> tuple[str, str]:
        """A shard's id, and the address of its node."""
        topology = await self.topology()
        shard = (
            topology.shard(place.shard_id) if place.shard_id is not None else topology.shard_of(place.tenant)
        )
        if shard is None:
            # Not of this list; whoever is asked says what he knows.
            assert place.shard_id is not None
            return place.shard_id, self._options.addresses[0]
        return shard.id, shard.address or self._options.addresses[0]

    # --- calls -----------------------------------------------------------------------------------------------------------

    async def call(
        self,
        service: str,
        rpc: str,
        request: Any,
        place: Place,
        *,
        timeout_s: float | None = None,
        means_done: Callable[[ClientError], bool] | None = None,
        retry_timeouts: bool = True,
        tries: Tries | None = None,
    ) -> Any:
        """Make a call about a shard.

        Args:
            request: its `shard` is filled in, if it has one.
            timeout_s: for all tries together; None: as long as calls usually may take.
            retry_timeouts: False for a call whose own work may take longer than the broker lets it.
            tries: is counted up.
            means_done: whether an error that answers a further try says that an earlier one took effect.

        Returns:
            The reply, or DoneBefore.

        Raises:
            ClientError: the answer, or the last failure when the time is over.
        """

        def try_s(left_s: float) -> float:
            return min(left_s, self._try_s) if retry_timeouts else left_s

        async def attempt(left_s: float, again: bool) -> Any:
            if again and tries is not None:
                tries.more += 1
            topology = self._topology
            shard_id, address = await self.locate(place)
            topology = topology or self._topology
            if "shard" in request.DESCRIPTOR.fields_by_name:
                request.shard = shard_id
            stub = getattr(self.nodes[address].services[service], rpc)
            try:
                return await stub(request, timeout=try_s(left_s), metadata=self._options.metadata)
            except grpc.aio.AioRpcError as error:
                self._learn(error, shard_id, topology)
                answer = error_for(error.code(), error.details() or "")
                if again and means_done is not None and means_done(answer):
                    return DoneBefore()
                raise

        within_s = timeout_s if timeout_s is not None else self.timeout_s
        return await self._retrying(attempt, within_s, retry_timeouts=retry_timeouts)

    async def stream(
        self, service: str, rpc: str, request: Any, place: Place, *, timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """Make a call that is answered by many messages.  It is not sent again once the first has come."""
        request.shard, address = await self.locate(place)
        stub = getattr(self.nodes[address].services[service], rpc)
        try:
            async for message in stub(request, timeout=timeout_s, metadata=self._options.metadata):
                yield message
        except grpc.aio.AioRpcError as error:
            raise error_for(error.code(), error.details() or "") from None

    async def _retrying(
        self, attempt: Callable[[float, bool], Any], timeout_s: float, *, retry_timeouts: bool = True
    ) -> Any:
        """Try until there is an answer or the time is over.

        `attempt` gets the seconds that are left, and whether it was tried before.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        tries = 0
        while True:
            try:
                return await attempt(max(deadline - loop.time(), 0.001), tries > 0)
            except grpc.aio.AioRpcError as error:
                failure = error_for(error.code(), error.details() or "")
                may_retry = is_worth_another_try(error.code(), error.details() or "") and (
                    retry_timeouts or error.code() is not Code.DEADLINE_EXCEEDED
                )
            except BrokerUnavailable as error:
                failure, may_retry = error, True
            pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)] * random.uniform(0.5, 1)
            if not may_retry:
                raise failure from None
            if loop.time() + pause_s >= deadline:
                raise _out_of_time(failure, timeout_s, tries + 1, self._options.addresses) from None
            tries += 1
            self.sent_again += 1
            await asyncio.sleep(pause_s)

    def _learn(self, error: grpc.aio.AioRpcError, shard_id: str, topology: Topology | None) -> None:
        """Take from an answer where a shard is, or that nobody knows."""
        code, text = error.code(), error.details() or ""
        if code is Code.UNAVAILABLE or says_elsewhere(code, text):
            owner = next(
                (str(value) for key, value in error.trailing_metadata() or () if key == OWNER_ADDR), ""
            )
            if owner and self._topology is not None:
                self._topology = self._topology.moved(shard_id, owner)
            elif self._topology is topology:  # nobody has asked since
                self.ask_again()


def says_elsewhere(code: grpc.StatusCode, text: str) -> bool:
    """Whether an answer says that the shard or the tenant is not where the call went."""
    if code is Code.NOT_FOUND:
        return "shard not found" in text
    return code is Code.FAILED_PRECONDITION and "is not within shard" in text


def is_worth_another_try(code: grpc.StatusCode, text: str) -> bool:
    """Whether the broker was away or overloaded, or another one has the shard by now."""
    return code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED) or says_elsewhere(code, text)


def _out_of_time(
    failure: ClientError, timeout_s: float, tries: int, addresses: tuple[str, ...]
) -> ClientError:
    where = ", ".join(addresses)
    text = f"no answer from {where} within {timeout_s:g} s ({tries} tries); the last one: {failure.text}"
    return type(failure)(text, failure.code)
