"""A bit of everything: what a bad week looks like in a minute."""

from __future__ import annotations

import random

from silo.domain.limits import Limit
from silo.testing.people import Habits
from silo.testing.plan import ClockJump, Crash, NetworkTrouble, Step, StoreTrouble, WorkersGone
from silo.testing.scenario import Scenario, accidents, floating, jobs, meddling, rate, slots


def limits(chance: random.Random) -> tuple[Limit, ...]:
    some: list[Limit] = [
        slots(chance.choice("pq"), chance.choice((1, 2))),
        floating("f", 1),
        rate("r", 4, per_ms=2_000),
    ]
    return tuple(chance.sample(some, chance.choice((0, 0, 1, 1, 2, 3))))


def trouble(at_s: float, chance: random.Random) -> Step:
    for_s = chance.uniform(0.2, 4)
    lossy = {"lose_request": 0.2, "lose_reply": 0.2, "repeat": 0.2}
    return chance.choice(
        [
            Crash(at_s=at_s, down_s=for_s),
            StoreTrouble(at_s=at_s, for_s=for_s, faults={"fail": 0.1, "unknown": 0.1, "read_fail": 0.05}),
            StoreTrouble(at_s=at_s, for_s=for_s, faults={"stuck": 0.05, "write_s": (0.01, 0.3)}),
            NetworkTrouble(at_s=at_s, for_s=for_s, faults=lossy),
            ClockJump(at_s=at_s, by_s=chance.choice((-5, -0.5, 0.5, 5))),
            WorkersGone(at_s=at_s, for_s=for_s),
        ]
    )


SCENARIO = Scenario(
    name="mixed",
    about="limits of all kinds, retries, cancellations, crashes, a bad store and a bad network, all at once",
    steps=[
        jobs(28, over_s=50, limits=limits, priorities=(0, 50, 99), ahead_s=(0, 0, 0, 2, 15)),
        meddling(20, over_s=55, jobs=28),
        accidents(trouble, times=5, over_s=50),
    ],
    workers=lambda: Habits(count=3, fail=0.2, vanish=0.05, linger=0.03),
    settings={"database.checkpoint_rows": 60, "database.checkpoint_interval_ms": 700},
)
