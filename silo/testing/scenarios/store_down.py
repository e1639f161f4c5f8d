"""The store refuses everything for a minute, and then is there again."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import StoreTrouble
from silo.testing.scenario import Scenario, accidents, jobs, slots

SCENARIO = Scenario(
    name="store_down",
    about="a broker outlives its store's absence without a restart, and loses nothing",
    steps=[
        jobs(18, over_s=70, limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1)),
        accidents(
            lambda at_s, _: StoreTrouble(at_s=at_s, for_s=60.0, faults={"is_down": True}), times=1, over_s=8
        ),
    ],
    workers=lambda: Habits(count=3),
)
