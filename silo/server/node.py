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
from collections.abc import Iterable

import grpc

from silo.broker.timers import run_timers
from silo.cluster.occupancy import Occupancy
from silo.cluster.shard_map import MappedShard, ShardMap
from silo.cluster.single_node import beside, find_or_create
from silo.domain.ids import Ids
from silo.errors import ConfigError, Corrupt, Fenced, SiloError, Unavailable
from silo.ratelimit.gubernator import Limiter
from silo.server import cluster_info
from silo.server.cluster_info import SingleNode
from silo.server.from_settings import data_place, durability, grpc_options, shard_options, store_spec
from silo.server.gubernator_channel import connect_limiter
from silo.server.interceptors import Auth
from silo.server.listening import why_not
from silo.server.service import SERVICE, Silo
from silo.server.shards import OpenShard, Shards
from silo.server.side_services import Health, add_reflection
from silo.settings import Settings, host_and_port
from silo.shard.shard import REOPEN_AFTER_S, Shard, wall_clock_ms
from silo.storage.stores import delete_database, open_database

logger = logging.getLogger(__name__)

OPENING_AT_ONCE = 8
DRAIN_S = 5.0
TURN_AWAY_S = 0.1
TIMERS_AGAIN_S = 1.0
WATCH_AGAIN_S = 1.0

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - to warn of it


class Node:
    """One server: `start` it, `stop` it.

    Attributes:
        grpc_addr: where it listens, with the port that it came to be.
        cluster: the shard map and who is in the cluster, from `start` on.
        limiter: the outside service that decides rate limits; None if the shards do.
        failed: set when the node cannot go on; `failure` says why, and somebody must stop it.
    """

    cluster: SingleNode

    def __init__(self, settings: Settings) -> None:
        token = settings.server.auth_token
        self.settings = settings
        self.grpc_addr = settings.server.grpc_addr
        self.failed = asyncio.Event()
        self.failure: SiloError | None = None
        self.limiter: Limiter | None = None
        self._stores = store_spec(settings.database)
        self._occupancy = Occupancy.of(settings.database)
        self._ids = Ids(os.urandom)
        self._opened: list[OpenShard] = []
        self._shards: Shards | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._resets: set[asyncio.Task[None]] = set()
        self._resetting = asyncio.Lock()
        self._server = grpc.aio.server(
            interceptors=[Auth(token)] if token else [], options=grpc_options(settings)
        )
        self._health = Health(self._server, (SERVICE.full_name,))

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
            await self._open_shards(shard_map.shards)
            self.cluster = SingleNode(self._identity(), shard_map)
            await self._serve(self.cluster)
        except BaseException:
            await self.stop()
            raise
        logger.info(
            "server started: gRPC on %s, %d shards in %s (%s)",
            self.grpc_addr,
            len(self._opened),
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

    async def _open_shards(self, shards: Iterable[MappedShard]) -> None:
        """Open all, a few at a time.  Raises the first error, when the others have been given up."""
        room = asyncio.Semaphore(OPENING_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for mapped in shards:
                    group.create_task(self._open_shard(mapped, room), name=f"open {mapped.id}")
        except* SiloError as errors:
            raise errors.exceptions[0] from None

    async def _open_shard(self, mapped: MappedShard, room: asyncio.Semaphore) -> None:
        shard = Shard(
            mapped.id,
            lambda: open_database(self._stores, mapped.id),
            options=shard_options(self.settings),
            ids=self._ids,
        )
        async with room:
            try:
                await shard.open()
            except Corrupt as error:
                # The other shards serve without it; this one tells whoever asks why it does not.
                shard.stop(error)
        self._opened.append(OpenShard(shard, mapped.range))
        self._tasks.append(asyncio.create_task(_keep_timers(shard), name=f"timers {mapped.id}"))
        self._tasks.append(asyncio.create_task(self._watch(shard), name=f"watch {mapped.id}"))

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

    async def _serve(self, cluster: SingleNode) -> None:
        settings = self.settings
        self._shards = shards = Shards(
            self._opened, cluster=cluster, tenancy=settings.tenancy.enabled, chance=random.Random()
        )
        service = Silo(shards, cluster, reset_shard=self._reset if settings.server.dev_mode else None)
        self._server.add_generic_rpc_handlers((service.handlers(),))
        add_reflection(self._server, (SERVICE.full_name,))
        await self._health.serving()
        await self._server.start()

    # --- running ---------------------------------------------------------------------------------------------------------

    async def _watch(self, shard: Shard) -> None:
        """Fail when the shard is fenced: whoever did that has the other shards too, or will soon."""
        while True:
            await shard.stopped.wait()
            if isinstance(shard.failure, Fenced):
                break
            # A shard that is corrupt has said so in the log; the others can go on without it, and a reset may revive it.
            await asyncio.sleep(WATCH_AGAIN_S)
        if not self.failed.is_set():
            place = data_place(self.settings.database)
            logger.error(
                "another process has opened shard %s in %s, so this one stops", shard.shard_id, place
            )
            self.failure = Fenced(
                f"{self._occupancy.newest()} has taken over the shards in {place}; only one may serve them: "
                "if that is to be this one, stop the other and start this one again"
            )
            self.failed.set()

    async def _reset(self, opened: OpenShard) -> None:
        """Wipe a shard, and open it again with the same id and range.

        It goes on if the caller goes away: half a reset would leave a shard that serves nobody.
        """
        work = asyncio.create_task(self._wipe(opened.shard), name=f"reset {opened.id}")
        self._resets.add(work)
        work.add_done_callback(self._resets.discard)
        await asyncio.shield(work)

    async def _wipe(self, shard: Shard) -> None:
        async with self._resetting:
            try:
                await shard.close()
                await delete_database(self._stores, shard.shard_id)
            except Exception as error:
                # Said here, too, as the caller may be gone.
                logger.warning("shard %s could not be reset: %s", shard.shard_id, error)
                await _open_again(shard)
                raise
            await _open_again(shard)

    async def stop(self) -> None:
        """Let calls finish for at most 5 s, then close the shards.  What was acknowledged is durable already."""
        await self._health.stopping()
        if self._shards is not None:
            # Calls that reach gRPC just when it shuts down are CANCELLED, which clients do not try again.  So whoever is
            # calling is first told UNAVAILABLE, which sends him away for a while.
            self._shards.turn_away()
            await asyncio.sleep(TURN_AWAY_S)
        await self._server.stop(DRAIN_S)
        if self._resets:
            await asyncio.wait(self._resets, timeout=DRAIN_S)
        ending = [*self._resets, *self._tasks]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        if self.limiter is not None:
            await self.limiter.close()
        await asyncio.gather(*(opened.shard.close() for opened in self._opened))
        self._occupancy.leave()


async def _open_again(shard: Shard) -> None:
    """Open a shard that was closed, as often as it takes.  Raises why the shard has stopped instead."""
    tries = 0
    while True:
        try:
            return await shard.open()
        except SiloError as error:
            if not isinstance(error, Unavailable) or isinstance(error, Fenced):
                shard.stop(error)
                raise
            logger.warning("shard %s cannot be opened yet: %s", shard.shard_id, error)
        except Exception:
            logger.exception("shard %s met a bug when it was opened", shard.shard_id)
        await asyncio.sleep(REOPEN_AFTER_S[min(tries, len(REOPEN_AFTER_S) - 1)])
        tries += 1


async def _keep_timers(shard: Shard) -> None:
    """Run a shard's timers, whatever happens to them."""
    while True:
        try:
            await run_timers(shard)
        except SiloError:
            # The shard has stopped, and has said why.
            pass
        except Exception:
            logger.exception("the timers of shard %s met a bug", shard.shard_id)
        await asyncio.sleep(TIMERS_AGAIN_S)
