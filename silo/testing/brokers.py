"""Brokers as processes of the simulated world: production's `Broker`, put together as node.py does.

Read beside `silo/server/node.py`: what is different here is all that is not decided by what a broker is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping

import attrs

from silo.broker.rate_checks import CheckRate
from silo.domain.ids import Ids
from silo.errors import SiloError
from silo.server.broker import Broker, Outside
from silo.server.cluster_info import Cluster
from silo.settings import Settings
from silo.storage.database import Database
from silo.testing.loop import Process, SimulatedLoop
from silo.testing.network import Endpoint, Network
from silo.testing.store import Disk

logger = logging.getLogger(__name__)

START_AGAIN_S = 0.5
"""How long whoever supervises a broker waits before he starts it again."""

STARTS_MAX = 10_000

FUSE_S = 5.0
"""A broker with nothing to do goes on by no steps."""


@attrs.frozen(kw_only=True)
class Surroundings:
    """What all brokers of a world share.

    Attributes:
        cluster: the shard map, and who answers.
        disks: the database of each shard.
        wall_ms: the wall clock.
        check_rate: asks the outside service for rate limits; None: buckets inside the shards decide.
    """

    loop: SimulatedLoop
    network: Network
    settings: Settings
    cluster: Cluster
    disks: Mapping[str, Disk]
    wall_ms: Callable[[], int]
    check_rate: CheckRate | None = None


class SimulatedBroker:
    """One address at which a broker is, most of the time."""

    def __init__(self, name: str, around: Surroundings, chance: random.Random) -> None:
        self.name = name
        self.broker: Broker | None = None
        self._around = around
        self._chance = chance
        self._process: Process | None = None
        self._fenced = asyncio.Event()

    @property
    def is_up(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Start it, unless somebody has; if its shards cannot be opened, let it end and start it again, until it serves."""
        if self.is_up:
            return
        for _ in range(STARTS_MAX):
            process = self._process = Process(self._around.loop, self.name)
            starting = process.start(self._open(process), name=f"start {self.name}")
            await asyncio.wait([starting, process.gone], return_when=asyncio.FIRST_COMPLETED)
            if process is not self._process:
                # It was killed while it started; whoever did that starts it again.
                return
            if starting.exception() is None:
                return
            if not isinstance(starting.exception(), SiloError):
                starting.result()
            self.crash()
            await asyncio.sleep(START_AGAIN_S)
        raise AssertionError(f"{self.name} does not start")

    async def _open(self, process: Process) -> None:
        around = self._around
        outside = Outside(
            open_database=lambda shard_id: self._open_database(shard_id, process),
            delete_database=self._delete_database,
            now_ms=around.wall_ms,
            ids=Ids(self._chance.randbytes),
            chance=self._chance,
            check_rate=around.check_rate,
        )
        broker = self.broker = Broker(around.settings, outside)
        await broker.open(around.cluster)
        around.network.listen(self.name, Endpoint(process, broker.handlers()))
        process.start(self._stop_when_fenced(broker), name=f"watch {self.name}")

    async def _open_database(self, shard_id: str, process: Process) -> Database:
        return await self._around.disks[shard_id].open(process)

    async def _delete_database(self, shard_id: str) -> None:
        self._around.disks[shard_id].erase()

    async def _stop_when_fenced(self, broker: Broker) -> None:
        await broker.failed.wait()
        self._around.network.hang_up(self.name)
        await broker.close()
        self._process = None
        self.broker = None

    def crash(self) -> None:
        """Kill it."""
        process, self._process, self.broker = self._process, None, None
        self._around.network.hang_up(self.name)
        if process is not None:
            process.crash()
            for disk in self._around.disks.values():
                disk.crashed(process)

    async def stop(self) -> None:
        """Ask it to stop, as SIGTERM does, and wait until it has."""
        process, broker = self._process, self.broker
        if process is None or broker is None:
            return
        broker.turn_away()
        closing = process.start(broker.close(), name=f"stop {self.name}")
        await asyncio.wait([closing, process.gone], return_when=asyncio.FIRST_COMPLETED)
        if self._process is process:
            closing.result()
            self.crash()

    async def gone_on(self, callbacks: int) -> None:
        """Wait until its process has gone on by so many steps, or is gone."""
        process = self._process
        if process is None or not callbacks:
            return
        there = asyncio.get_running_loop().create_future()

        def blown() -> None:
            if not there.done():
                there.set_result(None)

        process.light_fuse(callbacks, blown)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FUSE_S):
                await there

    async def checkpoint(self, *, within_s: float) -> bool:
        """Have all shards write what they have in memory.  Returns whether they have."""
        process, broker = self._process, self.broker
        if process is None or broker is None or broker.shards is None:
            return False
        works = [process.start(opened.shard.checkpoint()) for opened in broker.shards]
        done, _ = await asyncio.wait(works, timeout=within_s)
        return len(done) == len(works) and all(work.exception() is None for work in works)

    def pause(self) -> Callable[[], None]:
        """Let it stand still.  Returns what lets it go on."""
        process = self._process
        if process is None:
            return lambda: None
        process.pause()
        return process.go_on
