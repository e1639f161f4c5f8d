"""Workers vanish with what they have leased, or are killed all at once: each attempt is taken back, and tried again."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import WorkersGone
from silo.testing.scenario import Scenario, accidents, jobs, slots

# A198
SCENARIO = Scenario(
    name="lost_workers",
    about="a lease that runs out gives the job to another worker, with a higher attempt",
    steps=[
        jobs(15, over_s=8, retries=(3,), limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1)),
        accidents(lambda at_s, chance: WorkersGone(at_s=at_s, for_s=1.0), times=2, over_s=15),
    ],
    workers=lambda: Habits(count=3, vanish=0.2),
)
