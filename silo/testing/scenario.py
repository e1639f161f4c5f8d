"""A scenario: who is there, how they behave, and what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from silo.domain.limits import Algorithm, ConcurrencyLimit, FloatingLimit, Limit, RateLimit, RateLimitRetry
from silo.events.catalogue import Event
from silo.testing.network import NetworkFaults
from silo.testing.people import Habits
from silo.testing.plan import Ask, Enqueue, Name, Plan, Step
from silo.testing.store import StoreFaults

Steps = Callable[[random.Random], Iterator[Step]]
Logs = Mapping[str, Sequence[Event]]


@attrs.frozen(kw_only=True)
class Scenario:
    """What a world is like.  A seed makes one of the many histories that it may have.

    Attributes:
        name: as on the command line.
        about: what it is there to find, in a sentence.
        steps: what happens; any number of sources, each with its own chance, whose steps are put in order.
        workers: how the workers behave, until everything is calm.
        store, network: how these behave when there is no trouble.
        settings: what is changed of the settings, as in `{"database.checkpoint_rows": 50}`.
        shards: how many there are.
        limiter: whether an outside service decides rate limits.
        calm_s: how long at most it may take, once everything is calm, until all jobs have ended.
        memory_factor: how much is kept of what is on disk, of what production keeps.
        before: records that are in the log of each shard when the world begins.
        expect: what else must hold of the events, shard by shard; the text that it returns says what does not.
    """

    name: str
    about: str
    steps: Sequence[Steps]
    workers: Callable[[], Habits] = Habits
    store: Callable[[], StoreFaults] = StoreFaults
    network: Callable[[], NetworkFaults] = NetworkFaults
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    shards: int = 1
    limiter: bool = False
    calm_s: float = 600.0
    memory_factor: float = 1.0
    before: Callable[[], Sequence[bytes]] = list
    expect: Callable[[Logs], str | None] = lambda _: None

    def plan(self, seed: int) -> Plan:
        """The steps of one history, in the order of their times."""
        found: list[Step] = []
        for number, source in enumerate(self.steps):
            found += source(random.Random(f"{self.name} {seed} {number}"))
        return sorted(found, key=lambda step: step.at_s)


# --- limits --------------------------------------------------------------------------------------------------------------


def slots(key: str, maximum: int) -> ConcurrencyLimit:
    """So many at once."""
    return ConcurrencyLimit(key=key, max_concurrency=maximum)


def floating(key: str, default: int, *, refresh_ms: int = 3_000) -> FloatingLimit:
    """As many at once as workers find out."""
    return FloatingLimit(
        key=key, default_max_concurrency=default, refresh_interval_ms=refresh_ms, metadata=()
    )


def rate(name: str, limit: int, *, per_ms: int, leaky: bool = False, max_retries: int = 0) -> RateLimit:
    """So many in so many ms."""
    return RateLimit(
        name=name,
        unique_key="all",
        limit=limit,
        duration_ms=per_ms,
        hits=1,
        algorithm=Algorithm.LEAKY_BUCKET if leaky else Algorithm.TOKEN_BUCKET,
        behavior=0,
        retry=RateLimitRetry(initial_backoff_ms=100, max_backoff_ms=2_000, max_retries=max_retries),
    )


# --- sources of steps ----------------------------------------------------------------------------------------------------


def jobs(
    count: int,
    *,
    over_s: float,
    tenants: Sequence[str] = ("a", "b"),
    limits: Callable[[random.Random], tuple[Limit, ...]] = lambda _: (),
    priorities: Sequence[int] = (50,),
    retries: Sequence[int] = (0, 0, 1, 3),
    ahead_s: Sequence[float] = (0, 0, 0, 2, 10),
    task_groups: Sequence[str] = ("work",),
    prefix: str = "j",
) -> Steps:
    """So many jobs arrive within some seconds."""

    def steps(chance: random.Random) -> Iterator[Step]:
        for number in range(count):
            yield Enqueue(
                at_s=round(chance.uniform(0, over_s), 3),
                name=(chance.choice(tenants), f"{prefix}{number}"),
                task_group=chance.choice(task_groups),
                priority=chance.choice(priorities),
                start_in_s=chance.choice(ahead_s),
                retries=chance.choice(retries),
                backoff_ms=chance.choice((50, 500, 2_000)),
                limits=limits(chance),
                metadata=(("number", str(number % 7)),),
                payload_bytes=chance.choice((0, 16, 16, 200, 3_000)),
            )

    return steps


def meddling(
    count: int,
    *,
    over_s: float,
    jobs: int,
    tenants: Sequence[str] = ("a", "b"),
    methods: Sequence[str] = (
        "CancelJob",
        "CancelJob",
        "RestartJob",
        "ExpediteJob",
        "DeleteJob",
        "LeaseTask",
        "GetJob",
    ),
    prefix: str = "j",
) -> Steps:
    """Clients cancel, restart, expedite, delete and lease jobs that may be there."""

    def steps(chance: random.Random) -> Iterator[Step]:
        for _ in range(count):
            name: Name = (chance.choice(tenants), f"{prefix}{chance.randrange(jobs)}")
            yield Ask(at_s=round(chance.uniform(0.2, over_s), 3), method=chance.choice(methods), name=name)

    return steps


def accidents(kind: Callable[[float, random.Random], Step], *, times: int, over_s: float) -> Steps:
    """The same accident at any times."""

    def steps(chance: random.Random) -> Iterator[Step]:
        for _ in range(times):
            yield kind(round(chance.uniform(0.5, over_s), 3), chance)

    return steps
