"""A real node in this process, for tests that speak to it over gRPC.

async with running_node() as node:
    reply = await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, task_group="g"))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from silo.cluster.shard_map import ShardMap
from silo.domain.tenants import DEFAULT_TENANT, tenant_hash
from silo.server.node import Node
from silo.server.service import SERVICE
from silo.testing.in_process import memory_settings, node_of
from tests.serving import IN_S


class RunningNode:
    """A node and a client of it.

    Attributes:
        node: the node itself.
        address: `host:port`.
        channel: a channel to it.
        shard: the id of the shard that owns the default tenant; with one shard, of the only one.
    """

    def __init__(self, node: Node, channel: grpc.aio.Channel, shards: ShardMap) -> None:
        self.node = node
        self.address = node.grpc_addr
        self.channel = channel
        self.shards = shards
        self.shard = self.shard_of(DEFAULT_TENANT)

    def shard_of(self, tenant: str) -> str:
        """The id of the shard that owns a tenant."""
        return self.shards.owner_of(tenant_hash(tenant)).id

    def call(self, rpc: str, request: Any, metadata: Sequence[tuple[str, str]] = ()) -> Any:
        """Call one method of silo.v1: to be awaited, or iterated if it streams.  Errors are `grpc.aio.AioRpcError`."""
        method = SERVICE.methods_by_name[rpc]
        reply: Any = GetMessageClass(method.output_type)
        open_call = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        stub = open_call(f"/{SERVICE.full_name}/{rpc}", type(request).SerializeToString, reply.FromString)
        return stub(request, metadata=tuple(metadata), timeout=IN_S)


@asynccontextmanager
async def running_node(
    *,
    shards: int = 1,
    tenancy: bool = False,
    dev_mode: bool = False,
    auth_token: str | None = None,
    channel_options: Mapping[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[RunningNode]:
    """A node on a free port, its data in memory, and a client; both end with the block.

    `sections` are whole sections of `Settings`, and count more than the arguments that have names.
    """
    options = {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        **(channel_options or {}),
    }
    settings = memory_settings(
        shards=shards, tenancy=tenancy, dev_mode=dev_mode, auth_token=auth_token, **sections
    )
    async with (
        node_of(settings) as node,
        grpc.aio.insecure_channel(node.grpc_addr, options=list(options.items())) as channel,
    ):
        yield RunningNode(node, channel, node.cluster.shards)
