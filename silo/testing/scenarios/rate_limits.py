"""Token buckets and leaky ones inside the shard, patient jobs and those that give up."""

from __future__ import annotations

import random

from silo.domain.limits import Limit
from silo.testing.people import Habits
from silo.testing.plan import Crash
from silo.testing.scenario import Scenario, accidents, jobs, meddling, rate, slots


def limits(chance: random.Random) -> tuple[Limit, ...]:
    patient = rate("patient", 2, per_ms=1_500)
    others: list[Limit] = [
        rate("leaky", 3, per_ms=3_000, leaky=True),
        rate("hasty", 2, per_ms=1_000, max_retries=2),
        slots("one", 1),
    ]
    return (patient, *chance.sample(others, chance.randint(0, 2)))


# A196
SCENARIO = Scenario(
    name="rate_limits",
    about="no window has more hits than its limit, and nobody waits for ever",
    steps=[
        jobs(18, over_s=6, tenants=("a",), limits=limits),
        meddling(10, over_s=10, jobs=18, tenants=("a",)),
        accidents(lambda at_s, chance: Crash(at_s=at_s, down_s=1.0), times=1, over_s=10),
    ],
    workers=lambda: Habits(count=3),
)
