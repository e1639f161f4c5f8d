"""A broker: the shards that one server has open, what keeps them going, and the service that answers for them.

It knows neither sockets nor the process around it, and it takes from outside whatever would not be the same the next time:
databases, the clock, new ids, chance.  node.py hands it the real ones.  A simulation hands it others, of which each is
decided by a seed, and runs the same broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import grpc

from silo.broker.archiving import run_archive
from silo.broker.erasures import run_erasures
from silo.broker.rate_checks import CheckRate, run_rate_checks
from silo.broker.timers import run_timers
from silo.cluster.shard_map import MappedShard
from silo.domain.ids import Ids
from silo.errors import Corrupt, Fenced, SiloError, Unavailable, first_of
from silo.server.batch_calls import SERVICE as BATCHES
from silo.server.batch_calls import Batches
from silo.server.cluster_info import Cluster
from silo.server.from_settings import data_place, shard_options
from silo.server.history_calls import SERVICE as HISTORY
from silo.server.history_calls import History
from silo.server.inspection import SERVICE as INSPECTION
from silo.server.inspection import Inspection
from silo.server.query_calls import Statements
from silo.server.service import SERVICE, Silo, handlers
from silo.server.shards import OpenShard, Shards
from silo.server.worker_stream import SERVICE as WORKERS
from silo.server.worker_stream import Workers
from silo.settings import Settings
from silo.shard.shard import REOPEN_AFTER_S, Shard
from silo.storage.database import Database

logger = logging.getLogger(__name__)

OPENING_AT_ONCE = 8
RESETS_DRAIN_S = 5.0
RUN_AGAIN_S = 1.0
WATCH_AGAIN_S = 1.0


@attrs.frozen(kw_only=True)
class Outside:
    """What a broker takes from outside: all that is not decided by what it was asked.

    Attributes:
        open_database: opens the database of the shard with this id, and fences whoever had it open.
        delete_database: deletes it; nobody may have it open.
        now_ms: the wall clock, in epoch ms.
        ids: where new ids come from.
        chance: in which order shards are asked for work when the worker does not say.
        check_rate: asks the outside service that decides rate limits; None if buckets inside the shards do.  Raises
            LimiterFailed.
    """

    open_database: Callable[[str], Awaitable[Database]]
    delete_database: Callable[[str], Awaitable[None]]
    now_ms: Callable[[], int]
    ids: Ids
    chance: random.Random
    check_rate: CheckRate | None = None


class Broker:
    """One server without its process and its port: `open` it, let `handlers` answer, `close` it.

    Attributes:
        shards: what it has open, from `open` on.
        failed: set when the broker cannot go on; `failure` says why, and somebody must close it.
        turn: of those who make a shard's rows anew, which is much work: one at a time does that.
    """

    def __init__(self, settings: Settings, outside: Outside) -> None:
        self.shards: Shards | None = None
        self.failed = asyncio.Event()
        self.failure: SiloError | None = None
        self.turn = asyncio.Lock()
        self._settings = settings
        self._outside = outside
        self._opened: list[OpenShard] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._resets: set[asyncio.Task[None]] = set()
        self._resetting = asyncio.Lock()

    # --- opening ---------------------------------------------------------------------------------------------------------

    async def open(self, cluster: Cluster) -> None:
        """Open all shards of the cluster, a few at a time.

        Raises:
            SiloError: the first error, when the other shards have been given up.  `close` lets go of those that are open.
        """
        room = asyncio.Semaphore(OPENING_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for mapped in cluster.shards.shards:
                    group.create_task(self._open_shard(mapped, room), name=f"open {mapped.id}")
        except ExceptionGroup as group:
            raise first_of(group) from None
        self.shards = Shards(
            self._opened,
            cluster=cluster,
            tenancy=self._settings.tenancy.enabled,
            chance=self._outside.chance,
        )
        self._service = Silo(
            self.shards,
            cluster,
            Statements(self._settings.server),
            reset_shard=self._reset if self._settings.server.dev_mode else None,
        )

    async def _open_shard(self, mapped: MappedShard, room: asyncio.Semaphore) -> None:
        outside = self._outside
        shard = Shard(
            mapped.id,
            lambda: outside.open_database(mapped.id),
            options=shard_options(self._settings),
            now_ms=outside.now_ms,
            ids=outside.ids,
        )
        async with room:
            try:
                await shard.open()
            except Corrupt as error:
                # The other shards serve without it; this one tells whoever asks why it does not.
                shard.stop(error)
        self._opened.append(OpenShard(shard, mapped.range))
        self._keep(f"timers {mapped.id}", shard, run_timers)
        self._keep(f"erasures {mapped.id}", shard, run_erasures)
        retention_ms = self._settings.history.retention_ms
        archive = partial(run_archive, retention_ms=retention_ms, turn=self.turn)
        self._keep(f"archive {mapped.id}", shard, archive)
        if outside.check_rate is not None:
            self._keep(f"rate checks {mapped.id}", shard, partial(run_rate_checks, check=outside.check_rate))
        self._tasks.append(asyncio.create_task(self._watch(shard), name=f"watch {mapped.id}"))

    def _keep(self, name: str, shard: Shard, run: Callable[[Shard], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(_keep_running(name, shard, run), name=name))

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The methods of all services as gRPC wants them.  To be asked for when `open` has returned."""
        shards = self._service.shards
        return (
            handlers(SERVICE, self._service),
            handlers(BATCHES, Batches(shards)),
            handlers(HISTORY, History(shards, self._settings.history.retention_ms, self.turn)),
            handlers(INSPECTION, Inspection(shards)),
            handlers(WORKERS, Workers(shards)),
        )

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
            logger.error(
                "another process has opened shard %s in %s, so this one stops",
                shard.shard_id,
                data_place(self._settings.database),
            )
            self.failure = shard.failure
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
                await self._outside.delete_database(shard.shard_id)
            except Exception as error:
                # Said here, too, as the caller may be gone.
                logger.warning("shard %s could not be reset: %s", shard.shard_id, error)
                await _open_again(shard)
                raise
            await _open_again(shard)

    # --- stopping --------------------------------------------------------------------------------------------------------

    def turn_away(self) -> None:
        """Tell every call that comes from now on to try again: this broker is about to close."""
        if self.shards is not None:
            self.shards.turn_away()

    async def quiet(self, *, within_s: float) -> None:
        """Wait until no command is under way, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for opened in self._opened:
                    await opened.shard.quiet()

    async def close(self) -> None:
        """Let resets finish for at most 5 s, then close the shards.  What was acknowledged is durable already."""
        if self._resets:
            await asyncio.wait(self._resets, timeout=RESETS_DRAIN_S)
        ending = [*self._resets, *self._tasks]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        await asyncio.gather(*(opened.shard.close() for opened in self._opened))


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


async def _keep_running(name: str, shard: Shard, run: Callable[[Shard], Awaitable[None]]) -> None:
    """Run what keeps a shard going, whatever happens to it."""
    while True:
        try:
            await run(shard)
        except SiloError:
            # The shard has stopped, and has said why.
            pass
        except Exception:
            logger.exception("%s met a bug", name)
        await asyncio.sleep(RUN_AGAIN_S)
