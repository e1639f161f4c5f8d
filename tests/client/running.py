"""Brokers, clients and workers for the tests of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from silo.client import AsyncClient
from silo.pb import silo_pb2 as pb
from silo.server.service import SERVICE
from silo.testing.in_process import memory_settings, node_of
from tests.serving import IN_S

SHARD = "00000000-0000-4000-8000-000000000001"


@asynccontextmanager
async def connected(*, client: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[AsyncClient]:
    """A client of a real broker in memory, on this event loop."""
    async with (
        asyncio.timeout(IN_S),
        node_of(memory_settings(**settings)) as node,
        AsyncClient(node.grpc_addr, **(client or {})) as made,
    ):
        yield made


Answer = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class Scripted:
    """A server that says what a test wants: `answers` has a function for each rpc, `asked` what has come.

    It speaks silo.v1 alone, as brokers do that know no extension.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Any]] = []
        self.address = ""
        self.shards: list[pb.ShardOwner] | None = None

    async def GetClusterInfo(self, request: Any, context: Any) -> pb.GetClusterInfoResponse:  # noqa: N802
        owners = self.shards or [pb.ShardOwner(shard_id=SHARD, grpc_addr=self.address)]
        return pb.GetClusterInfoResponse(num_shards=len(owners), shard_owners=owners)

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE.full_name, {rpc.name: self._handler(rpc.name) for rpc in SERVICE.methods}
        )

    def _handler(self, rpc: str) -> Any:
        request = getattr(pb, f"{rpc}Request")

        async def answer(message: Any, context: grpc.aio.ServicerContext) -> Any:
            self.asked.append((rpc, message))
            found = self.answers.get(rpc) or getattr(self, rpc, None)
            if found is None:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{rpc} is not scripted")
            return await found(message, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, request.FromString, lambda reply: reply.SerializeToString()
        )

    def count(self, rpc: str) -> int:
        """How often an rpc was asked."""
        return sum(name == rpc for name, _ in self.asked)


@asynccontextmanager
async def scripted(
    address: str = "127.0.0.1:0", *, tls: grpc.ServerCredentials | None = None
) -> AsyncIterator[Scripted]:
    """A scripted server, for as long as the block lasts."""
    made = Scripted()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((made.handlers(),))
    port = server.add_secure_port(address, tls) if tls is not None else server.add_insecure_port(address)
    made.address = f"{address.rpartition(':')[0]}:{port}"
    await server.start()
    try:
        async with asyncio.timeout(IN_S):
            yield made
    finally:
        await server.stop(None)


def refuse(code: grpc.StatusCode, text: str, *, times: int = 1, then: Any = None, **trailers: str) -> Answer:
    """Say no so many times, then answer; `trailers` with underscores for hyphens."""
    left = times

    async def answer(_: Any, context: grpc.aio.ServicerContext) -> Any:
        nonlocal left
        if left:
            left -= 1
            found = tuple((name.replace("_", "-"), value) for name, value in trailers.items())
            await context.abort(code, text, found)
        return then

    return answer
