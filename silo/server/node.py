"""The composition root: what is real is named here, and put together from the settings.

A node takes its port before it touches its shards.  Opening a shard fences whoever has it open, so a second `silo serve`
that was started by mistake must find the port taken first, and leave the running one alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import uuid

import grpc

from silo.archive.database import delete_with_archive, open_with_archive
from silo.cluster.occupancy import Occupancy
from silo.cluster.shard_map import ShardMap
from silo.cluster.single_node import beside, find_or_create
from silo.domain.ids import Ids
from silo.domain.limits import RateLimit
from silo.errors import ConfigError, Fenced, SiloError
from silo.ratelimit.gubernator import GubernatorAnswer, Limiter
from silo.server import cluster_info
from silo.server.batch_calls import SERVICE as BATCHES
from silo.server.broker import Broker, Outside
from silo.server.cluster_info import SingleNode
from silo.server.from_settings import data_place, durability, grpc_options, store_spec
from silo.server.gubernator_channel import connect_limiter
from silo.server.history_calls import SERVICE as HISTORY
from silo.server.inspection import SERVICE as INSPECTION
from silo.server.interceptors import Auth
from silo.server.listening import why_not
from silo.server.service import SERVICE
from silo.server.side_services import Health, add_reflection
from silo.server.worker_stream import SERVICE as WORKERS
from silo.settings import Settings, host_and_port
from silo.shard.shard import wall_clock_ms
from silo.storage.scratch import sweep

logger = logging.getLogger(__name__)

DRAIN_S = 5.0
TURN_AWAY_S = 0.1

SERVICES = (SERVICE.full_name, BATCHES.full_name, HISTORY.full_name, INSPECTION.full_name, WORKERS.full_name)

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - to warn of it


class Node:
    """One server: `start` it, `stop` it.

    Attributes:
        grpc_addr: where it listens, with the port that it came to be.
        cluster: the shard map and who is in the cluster, from `start` on.
        broker: its shards, and the service that answers for them.
        limiter: the outside service that decides rate limits; None if the shards do.
    """

    cluster: SingleNode

    def __init__(self, settings: Settings) -> None:
        token = settings.server.auth_token
        self.settings = settings
        self.grpc_addr = settings.server.grpc_addr
        self.limiter: Limiter | None = None
        self._occupancy = Occupancy.of(settings.database)
        self._ids = Ids(os.urandom)
        self.broker = Broker(settings, self._outside())
        self._server = grpc.aio.server(
            interceptors=[Auth(token)] if token else [], options=grpc_options(settings)
        )
        self._health = Health(self._server, SERVICES)

    def _outside(self) -> Outside:
        stores = store_spec(self.settings.database)
        return Outside(
            open_database=lambda shard_id: open_with_archive(stores, shard_id),
            delete_database=lambda shard_id: delete_with_archive(stores, shard_id),
            now_ms=wall_clock_ms,
            ids=self._ids,
            chance=random.Random(),
            check_rate=self._check_rate if self.settings.gubernator.address else None,
        )

    async def _check_rate(self, limit: RateLimit) -> GubernatorAnswer:
        assert self.limiter is not None, "no shard is open before the limiter is"
        return await self.limiter.check(limit)

    @property
    def failed(self) -> asyncio.Event:
        """Set when the node cannot go on; `failure` says why, and somebody must stop it."""
        return self.broker.failed

    @property
    def failure(self) -> SiloError | None:
        if not isinstance(self.broker.failure, Fenced):
            return self.broker.failure
        return Fenced(
            f"{self._occupancy.newest()} has taken over the shards in {data_place(self.settings.database)}; "
            "only one may serve them: if that is to be this one, stop the other and start this one again"
        )

    # --- starting --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the port, open all shards, and serve.

        Raises:
            ConfigError: the port is taken, there is no rate limiter where one should be, or the settings cannot be used.
            SiloError: the store failed, or what it holds cannot be read.
        """
        self._bind()
        try:
            self.limiter = await connect_limiter(self.settings.gubernator)
            shard_map = await self._find_shards()
            self._enter()
            # A broker that was killed may have left some of its users' data.
            await asyncio.to_thread(sweep)
            self.cluster = SingleNode(self._identity(), shard_map)
            await self.broker.open(self.cluster)
            await self._serve()
        except BaseException:
            await self.stop()
            raise
        logger.info(
            "server started: gRPC on %s, %d shards in %s (%s)",
            self.grpc_addr,
            len(shard_map.shards),
            data_place(self.settings.database),
            durability(self.settings.database),
        )

    def _bind(self) -> None:
        address = self.settings.server.grpc_addr
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(why_not(address)) from error
        self.grpc_addr = f"{address.rpartition(':')[0]}:{port}"

    async def _find_shards(self) -> ShardMap:
        found = await find_or_create(
            beside(self.settings.database),
            initial_shard_count=self.settings.coordination.initial_shard_count,
            created_at_ms=wall_clock_ms(),
            new_id=self._ids.uuid4,
        )
        for warning in found.warnings:
            logger.warning("%s", warning)
        return found.shards

    def _enter(self) -> None:
        """Warn of another server that has this data.  Opening the shards takes them from it."""
        place = data_place(self.settings.database)
        try:
            other = self._occupancy.enter(self.grpc_addr)
        except OSError as error:
            logger.warning("cannot tell whether another server is at work on %s: %s", place, error)
            return
        if other:
            logger.warning(
                "%s is at work on %s; this one takes over its shards, and it will stop", other, place
            )

    def _identity(self) -> cluster_info.Node:
        coordination = self.settings.coordination
        host, _ = host_and_port(self.grpc_addr)
        if coordination.advertised_grpc_addr is None and host in EVERYWHERE:
            logger.warning(
                "clients are told to connect to %s, which only leads somewhere on this machine; "
                "set coordination.advertised_grpc_addr to an address that they can reach",
                self.grpc_addr,
            )
        return cluster_info.Node(
            id=coordination.node_id or str(uuid.uuid4()),
            grpc_addr=coordination.advertised_grpc_addr or self.grpc_addr,
            rings=coordination.placement_rings,
        )

    async def _serve(self) -> None:
        self._server.add_generic_rpc_handlers(self.broker.handlers())
        add_reflection(self._server, SERVICES)
        await self._health.serving()
        await self._server.start()

    # --- stopping --------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Let calls finish for at most 5 s, then close the shards.  What was acknowledged is durable already."""
        await self._health.stopping()
        if self.broker.shards is not None:
            # Calls that reach gRPC just when it shuts down are CANCELLED, which clients do not try again.  So whoever is
            # calling is first told UNAVAILABLE, which sends him away for a while.
            self.broker.turn_away()
            await self.broker.quiet(within_s=DRAIN_S)
            # gRPC closes its connections at once when the last call is answered, and an answer that its caller has not read
            # by then may be lost with the connection.
            await asyncio.sleep(TURN_AWAY_S)
        await self._server.stop(DRAIN_S)
        await self.broker.close()
        if self.limiter is not None:
            await self.limiter.close()
        self._occupancy.leave()
