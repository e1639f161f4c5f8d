"""One seed of one scenario: the world is made, its plan carried out, everything calms down, and what is left is audited."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

import attrs

from silo.cluster.shard_map import ShardMap
from silo.domain.ids import Ids
from silo.domain.limits import RateLimit
from silo.domain.tenants import tenant_hash
from silo.errors import Corrupt, LimiterFailed, SiloError
from silo.events import codec
from silo.events.catalogue import Event
from silo.events.log import LOG_PREFIX, first_seq_of, record_key
from silo.ratelimit.buckets import Answer, Bucket, ask
from silo.server.cluster_info import Node, SingleNode
from silo.settings import Settings
from silo.testing.audit import audit
from silo.testing.brokers import SimulatedBroker, Surroundings
from silo.testing.loop import Deadlock, NoProgress, Process, SimulatedLoop
from silo.testing.network import CallRefused, Network, NetworkFaults
from silo.testing.oracle import Broken, Oracle
from silo.testing.people import Client, Line, Place, Worker
from silo.testing.plan import (
    Ask,
    Checkpoint,
    ClockJump,
    Crash,
    DropHolders,
    Enqueue,
    Import,
    NetworkTrouble,
    Pause,
    Plan,
    Step,
    Stop,
    StoreTrouble,
    TakeOver,
    WorkersGone,
)
from silo.testing.scenario import Scenario
from silo.testing.small_memory import remembering
from silo.testing.store import Disk, StoreFaults

EPOCH_MS = 1_700_000_000_000
"""When the world begins."""

LOOK_S = 0.25
CHECKPOINT_WITHIN_S = 120.0


@attrs.define
class History:
    """What came of one seed.

    Attributes:
        failure: what was not as it must be; None if everything was.
        digest: of all that became durable, in order: two runs of one seed have the same.
        faults: what went wrong, and how often, by kind.
        logs: the events of each shard.
    """

    scenario: str
    seed: int
    plan: Plan
    failure: Broken | None = None
    digest: str = ""
    seconds: float = 0.0
    events: int = 0
    calls: int = 0
    faults: Counter[str] = attrs.field(factory=Counter)
    logs: dict[str, list[Event]] = attrs.field(factory=dict)


def run(scenario: Scenario, seed: int, *, plan: Plan | None = None) -> History:
    """Simulate one history.

    Args:
        plan: what happens in it; None: what the scenario and the seed give.
    """
    history = History(scenario.name, seed, scenario.plan(seed) if plan is None else plan)
    loop = SimulatedLoop(random.Random(f"loop {seed}"))
    world: World | None = None

    async def main() -> None:
        nonlocal world
        world = World(loop, scenario, seed, history)
        await world.run()

    with _quiet(), remembering(scenario.memory_factor):
        try:
            loop.simulate(main())
        except Broken as broken:
            history.failure = broken
        except (Deadlock, NoProgress) as stuck:
            history.failure = Broken("liveness", str(stuck))
        except Exception as bug:
            logging.getLogger(__name__).exception("%s, seed %d", scenario.name, seed)
            history.failure = Broken("no bugs", f"{type(bug).__name__}: {bug}")
    if world is not None:
        world.sum_up()
    history.seconds = loop.time()
    return history


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Brokers say much of what goes wrong, and here it goes wrong on purpose."""
    root = logging.getLogger("silo")
    level, root.level = root.level, logging.CRITICAL
    try:
        yield
    finally:
        root.setLevel(level)


class World:
    """Everything that there is."""

    def __init__(self, loop: SimulatedLoop, scenario: Scenario, seed: int, history: History) -> None:
        self.loop = loop
        self.scenario = scenario
        self.history = history
        self.failed: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._unheard)
        self._seed = seed
        self._skew_s = 0.0
        self._happened = asyncio.Event()
        self._digest = hashlib.sha256()
        self._habits = scenario.workers()
        self._store_faults, self._network_faults = scenario.store(), scenario.network()
        self.network = Network(self._network_faults, self._chance("network"), happened=history.faults)
        self._store = Process(loop, "store")
        ids = Ids(self._chance("shards").randbytes)
        self._map = ShardMap.initial(scenario.shards, created_at_ms=EPOCH_MS, new_id=ids.uuid4)
        self.oracles = {shard.id: Oracle() for shard in self._map.shards}
        self.disks = {shard.id: self._disk(shard.id) for shard in self._map.shards}
        self._around = self._surroundings()
        self._address = "broker-0"
        self.brokers = {self._address: self._broker(self._address)}
        self._people = Process(loop, "clients")
        self._workers = Process(loop, "workers")
        self._generation = 0
        self._buckets: dict[str, Bucket] = {}
        self._limiter_chance = self._chance("limiter")
        self._works: list[asyncio.Task[None]] = []

    def _chance(self, of_what: str) -> random.Random:
        return random.Random(f"{self.scenario.name} {self._seed} {of_what}")

    def _disk(self, shard_id: str) -> Disk:
        return Disk(
            self._store,
            self._store_faults,
            self._chance(f"store {shard_id}"),
            happened=self.history.faults,
            heard=partial(self._heard, shard_id),
        )

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            loop=self.loop,
            network=self.network,
            settings=_settings(self.scenario),
            cluster=SingleNode(Node("node", "broker:7450"), self._map),
            disks=self.disks,
            wall_ms=self.wall_ms,
            check_rate=self._check_rate if self.scenario.limiter else None,
        )

    def _broker(self, name: str) -> SimulatedBroker:
        return SimulatedBroker(name, self._around, self._chance(name))

    def wall_ms(self) -> int:
        return EPOCH_MS + round((self.loop.time() + self._skew_s) * 1000)

    # --- what becomes durable --------------------------------------------------------------------------------------------

    def _heard(self, shard_id: str, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        for key, value in changes:
            self._digest.update(b"%d %b %d " % (len(key), key, -1 if value is None else len(value)))
            self._digest.update(value or b"")
            if key.startswith(LOG_PREFIX) and value is not None:
                with self._failing():
                    events = codec.decode(first_seq_of(key), value)
                    self.history.logs.setdefault(shard_id, []).extend(events)
                    self.oracles[shard_id].record(events)
                self._happened.set()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What fails here ends the world, whoever happens to be at work."""
        try:
            yield
        except (Broken, Corrupt) as error:
            self.fail(error)

    def _unheard(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nobody waited for is a bug, unless it is one of those that everybody was told."""
        error = context.get("exception")
        if not isinstance(error, (SiloError, CallRefused, Broken)):
            self.fail(Broken("no bugs", f"{context['message']}: {error!r}"))

    def fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    # --- a history -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry the plan out, calm down, and audit.  Raises Broken."""
        story = self.loop.create_task(self._story(), name="story")
        await asyncio.wait([story, self.failed], return_when=asyncio.FIRST_COMPLETED)
        if self.failed.done():
            story.cancel()
            await asyncio.wait([story])
            self.failed.result()
        story.result()

    async def _story(self) -> None:
        for disk in self.disks.values():
            seq = 1
            for record in self.scenario.before():
                disk.write([(record_key(seq), record)])
                seq += len(codec.decode(seq, record))
        await self.brokers[self._address].start()
        self._hire()
        for step in self.history.plan:
            await asyncio.sleep(max(0.0, step.at_s - self.loop.time()))
            self._works.append(self.loop.create_task(self._take(step), name=str(step)))
        await self._all(self._works)
        await self._calm()
        for shard_id, disk in self.disks.items():
            await audit(shard_id, disk, self.oracles[shard_id])
        missed = self.scenario.expect(self.history.logs)
        if missed is not None:
            raise Broken("expected of the scenario", missed)

    async def _all(self, works: list[asyncio.Task[None]]) -> None:
        if works:
            await asyncio.wait(works)
        for work in works:
            work.result()

    async def _calm(self) -> None:
        """Nothing goes wrong any more: all jobs must come to their end, and a checkpoint to disk."""
        self._store_faults.__init__()  # type: ignore[misc]
        self._network_faults.__init__()  # type: ignore[misc]
        self._habits.calm()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.scenario.calm_s):
                while any(oracle.open_jobs() for oracle in self.oracles.values()):
                    self._happened.clear()
                    await self._happened.wait()
        self._workers.crash()
        await self._write_all(self.loop.time() + CHECKPOINT_WITHIN_S)

    async def _write_all(self, ends: float) -> None:
        """Have the live broker write what it has in memory."""
        while not await self.brokers[self._address].checkpoint(within_s=CHECKPOINT_WITHIN_S / 4):
            if self.loop.time() > ends:
                raise Broken("liveness", "no checkpoint could be written")
            await asyncio.sleep(LOOK_S)

    def sum_up(self) -> None:
        """Note what came of it."""
        self.history.digest = self._digest.hexdigest()
        self.history.events = sum(oracle.seq for oracle in self.oracles.values())
        self.history.calls = self.network.calls
        self.history.faults += Counter()

    # --- people ----------------------------------------------------------------------------------------------------------

    def _place_of(self, tenant: str) -> Place:
        shard = self._map.owner_of(tenant_hash(tenant))
        return Place(shard.id, self.oracles[shard.id])

    def _line(self, name: str) -> Line:
        return Line(name, self.network, self._chance(name), lambda: self._address)

    def _hire(self) -> None:
        """Workers begin."""
        self._generation += 1
        places = [Place(shard.id, self.oracles[shard.id]) for shard in self._map.shards]
        process = self._workers = Process(self.loop, "workers")
        for number in range(max(self._habits.count, len(places))):
            name = f"worker-{self._generation}-{number}"
            worker = Worker(
                self._line(name),
                places[number % len(places)],
                self._habits,
                self._habits.task_groups[number // len(places) % len(self._habits.task_groups)],
                lambda work: process.start(self._guarded(work)),
                self.history.faults,
            )
            process.start(self._guarded(worker.run()), name=name)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the world ends with it
            self.fail(error)

    async def _check_rate(self, limit: RateLimit) -> Answer:
        """The outside service: buckets of its own, at some distance."""
        await asyncio.sleep(self._limiter_chance.choice((0.002, 0.01, 0.5)))
        if self._limiter_chance.random() < self._network_faults.lose_reply:
            self.history.faults["rate limiter failed"] += 1
            raise LimiterFailed("the rate limiter does not answer")
        key = f"{limit.name} {limit.unique_key}"
        answer = ask(self._buckets.get(key), limit, self.wall_ms())
        if answer.bucket is not None:
            self._buckets[key] = answer.bucket
        else:
            self._buckets.pop(key, None)
        return answer

    # --- steps -----------------------------------------------------------------------------------------------------------

    async def _take(self, step: Step) -> None:
        with self._failing():
            match step:
                case Enqueue() | Ask() | Import() | DropHolders():
                    await self._ask(step)
                case Crash(down_s=down_s, after_callbacks=callbacks):
                    await self.brokers[self._address].gone_on(callbacks)
                    await self._down(down_s, kill=True)
                case Stop(down_s=down_s):
                    await self._down(down_s, kill=False)
                case TakeOver(after_callbacks=callbacks):
                    await self.brokers[self._address].gone_on(callbacks)
                    await self._take_over()
                case Checkpoint():
                    await self._write_all(self.loop.time() + CHECKPOINT_WITHIN_S)
                case Pause(for_s=for_s):
                    self.history.faults["broker paused"] += 1
                    go_on = self.brokers[self._address].pause()
                    await asyncio.sleep(for_s)
                    go_on()
                case StoreTrouble(for_s=for_s, faults=faults):
                    await self._trouble(self._store_faults, for_s, faults)
                case NetworkTrouble(for_s=for_s, faults=faults):
                    await self._trouble(self._network_faults, for_s, faults)
                case ClockJump(by_s=by_s):
                    self.history.faults["clock jumped"] += 1
                    self._skew_s += by_s
                case WorkersGone(for_s=for_s):
                    self.history.faults["workers killed"] += 1
                    self._workers.crash()
                    await asyncio.sleep(for_s)
                    self._hire()
                case _:
                    raise TypeError(f"nobody takes {step}")

    async def _ask(self, step: Step) -> None:
        client = Client(self._line(f"client {step}"[:40]), self._place_of, self.wall_ms)
        asking = self._people.start(client.take(step))
        await asyncio.wait([asking])
        asking.result()

    async def _down(self, down_s: float, *, kill: bool) -> None:
        broker = self.brokers[self._address]
        if not broker.is_up:
            return
        self.history.faults["broker killed" if kill else "broker stopped"] += 1
        if kill:
            broker.crash()
        else:
            await broker.stop()
        await asyncio.sleep(down_s)
        await broker.start()

    async def _take_over(self) -> None:
        self.history.faults["broker taken over"] += 1
        name = f"broker-{len(self.brokers)}"
        successor = self.brokers[name] = self._broker(name)
        await successor.start()
        self._address = name

    async def _trouble(
        self, of_what: StoreFaults | NetworkFaults, for_s: float, faults: dict[str, Any]
    ) -> None:
        before = {name: getattr(of_what, name) for name in faults}
        for name, value in faults.items():
            setattr(of_what, name, value)
        await asyncio.sleep(for_s)
        for name, value in before.items():
            setattr(of_what, name, value)


def _settings(scenario: Scenario) -> Settings:
    """Those of a broker with tenants, with what the scenario changes."""
    settings = attrs.evolve(Settings(), tenancy=attrs.evolve(Settings().tenancy, enabled=True))
    for path, value in scenario.settings.items():
        section, _, name = path.partition(".")
        changed = attrs.evolve(getattr(settings, section), **{name: value})
        settings = attrs.evolve(settings, **{section: changed})
    if scenario.limiter:
        limiter = attrs.evolve(settings.gubernator, address="limiter:1051")
        settings = attrs.evolve(settings, gubernator=limiter)
    return settings
