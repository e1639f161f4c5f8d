"""The broker stands still for longer than a lease, while its workers go on."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Pause
from silo.testing.scenario import Scenario, accidents, jobs, slots

SCENARIO = Scenario(
    name="long_pauses",
    about="a broker that wakes up late does wrong to nobody",
    steps=[
        jobs(15, over_s=10, limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1), retries=(2,)),
        accidents(lambda at_s, chance: Pause(at_s=at_s, for_s=chance.uniform(11, 25)), times=1, over_s=10),
    ],
    workers=lambda: Habits(count=3, run_s=(0.1, 8)),
)
