"""The composition root: what is real is named here, and put together from the settings.

A node takes its port before it touches its shards.  Opening a shard fences whoever has it open, so a second `silo serve`
that was started by mistake must find the port taken first, and leave the running one alone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from silo.broker.timers import run_timers
from silo.cluster.shard_map import Shard as MappedShard
from silo.cluster.single_node import beside, find_or_create
from silo.domain.ids import Ids
from silo.errors import ConfigError, Fenced, SiloError
from silo.server.cluster_info import Node as ClusterNode
from silo.server.cluster_info import SingleNode
from silo.server.interceptors import Auth
from silo.server.service import SERVICE, Silo
from silo.server.shards import OpenShard, Shards
from silo.settings import Database, Settings, host_and_port
from silo.shard.draft import Rules
from silo.shard.shard import Shard, ShardOptions, wall_clock_ms
from silo.storage.stores import StoreSpec, delete_database, open_database

logger = logging.getLogger(__name__)

OPENING_AT_ONCE = 8
DRAIN_S = 5.0
STREAM_WINDOW_BYTES = 2 << 20


class Node:
    """One server: `start` it, and `stop` it; `failed` is set if it must not go on by itself."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.grpc_addr = ""
        self.failed = asyncio.Event()
        self.failure: SiloError | None = None
        self.shards: list[OpenShard] = []
        self._stores = store_spec(settings.database)
        self._ids = Ids(os.urandom)
        self._server = grpc.aio.server(
            interceptors=[Auth(settings.server.auth_token)] if settings.server.auth_token else [],
            options=grpc_options(settings.server.max_message_bytes),
        )
        self._health = health.aio.HealthServicer()
        self._tasks: list[asyncio.Task[None]] = []

    # --- starting --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind, open all shards, and serve.

        Raises:
            ConfigError: the port is taken, or the settings cannot be used.
            SiloError: the store failed, or what it holds cannot be read.
        """
        self.grpc_addr = self._bind()
        try:
            shards = await self._find_shards()
            await self._open_shards(shards.shards)
            cluster = SingleNode(self._identity(), shards)
            await self._serve(cluster)
        except BaseException:
            await self.stop()
            raise
        self._say_started()

    def _bind(self) -> str:
        """Take the port.  Returns the address with the port that it came to be."""
        asked = self.settings.server.grpc_addr
        try:
            port = self._server.add_insecure_port(asked)
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {asked}: is another server running there?  Choose another address with "
                "--grpc-addr or server.grpc_addr"
            ) from error
        return f"{asked.rpartition(':')[0]}:{port}"

    async def _find_shards(self) -> Any:
        found = await find_or_create(
            beside(self.settings.database),
            initial_shard_count=self.settings.coordination.initial_shard_count,
            created_at_ms=wall_clock_ms(),
            new_id=self._ids.uuid4,
        )
        for warning in found.warnings:
            logger.warning("%s", warning)
        return found.shards

    async def _open_shards(self, shards: Iterable[MappedShard]) -> None:
        room = asyncio.Semaphore(OPENING_AT_ONCE)

        async def open_one(mapped: MappedShard) -> None:
            async with room:
                shard = self._shard(mapped.id)
                await shard.open()
            self.shards.append(OpenShard(shard, mapped.range))

        async with asyncio.TaskGroup() as group:
            for mapped in shards:
                group.create_task(open_one(mapped), name=f"open {mapped.id}")
        for opened in self.shards:
            self._tasks.append(asyncio.create_task(run_timers(opened.shard), name=f"timers {opened.id}"))
            self._tasks.append(asyncio.create_task(self._watch(opened.shard), name=f"watch {opened.id}"))

    def _shard(self, shard_id: str) -> Shard:
        return Shard(
            shard_id,
            lambda: open_database(self._stores, shard_id),
            options=shard_options(self.settings),
            ids=self._ids,
        )

    async def _watch(self, shard: Shard) -> None:
        """Fail the node when a shard is fenced: whoever did that has the others too, or will have them."""
        await shard.stopped.wait()
        if isinstance(shard.failure, Fenced):
            logger.error("another process has opened shard %s of %s: this server stops", shard.shard_id, self.place)
            self.fail(shard.failure)
        # A shard that is corrupt has said so, and is no reason to stop the others.

    def fail(self, error: SiloError) -> None:
        """Ask for the end of the node."""
        self.failure = self.failure or error
        self.failed.set()

    def _identity(self) -> ClusterNode:
        coordination = self.settings.coordination
        host, _ = host_and_port(self.grpc_addr)
        if coordination.advertised_grpc_addr is None and host in ("0.0.0.0", "::"):  # noqa: S104 - asked, not bound
            logger.warning(
                "clients will be told to connect to %s, which leads nowhere: set coordination.advertised_grpc_addr",
                self.grpc_addr,
            )
        return ClusterNode(
            id=coordination.node_id or str(uuid.uuid4()),
            grpc_addr=coordination.advertised_grpc_addr or self.grpc_addr,
            rings=coordination.placement_rings,
        )

    async def _serve(self, cluster: SingleNode) -> None:
        shards = Shards(
            self.shards, cluster=cluster, tenancy=self.settings.tenancy.enabled, chance=random.Random()
        )
        service = Silo(
            shards, cluster, reset_shard=self._reset if self.settings.server.dev_mode else None
        )
        self._server.add_generic_rpc_handlers((service.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for name in ("", SERVICE.full_name):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        add_reflection(self._server)
        await self._server.start()

    def _say_started(self) -> None:
        database = self.settings.database
        syncs = database.backend == "fs" and database.fsync
        logger.info(
            "server started: gRPC on %s, %d shards in %s, fsync %s",
            self.grpc_addr,
            len(self.shards),
            self.place,
            "on" if syncs else "off: an acknowledged write may not survive a power cut" if database.backend == "fs"
            else "is the store's affair",
        )

    @property
    def place(self) -> str:
        """Where the data is, for people."""
        root = self.settings.database.root
        return str(Path(root).absolute()) if self.settings.database.backend == "fs" else root

    # --- running ---------------------------------------------------------------------------------------------------------

    async def _reset(self, opened: OpenShard) -> None:
        """Wipe a shard and open it again, with the same id and range."""
        await opened.shard.close()
        await delete_database(self._stores, opened.id)
        await opened.shard.open()

    async def stop(self) -> None:
        """Let calls finish for at most 5 s, then close the shards.  All that was acknowledged is durable already."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(DRAIN_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(opened.shard.close() for opened in self.shards))


async def serve(settings: Settings) -> int:
    """Run a node until SIGINT or SIGTERM.  Returns the exit code: 1 if the node could not go on, else 0.

    Raises what `Node.start` raises.
    """
    node = Node(settings)
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked_to_stop.set)
    starting = asyncio.create_task(node.start(), name="start")
    await _first_of(asked_to_stop.wait(), asyncio.shield(starting))
    ...
