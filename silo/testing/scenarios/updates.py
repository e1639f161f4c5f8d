"""The broker is stopped and started again, as for an update, over and over; ended jobs are forgotten in between."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Stop
from silo.testing.scenario import Scenario, accidents, jobs, slots

SCENARIO = Scenario(
    name="updates",
    about="a broker that stops in good order leaves nothing undone, and nobody notices",
    steps=[
        jobs(18, over_s=20, limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1)),
        accidents(lambda at_s, chance: Stop(at_s=at_s, down_s=chance.uniform(0, 2)), times=4, over_s=20),
    ],
    workers=lambda: Habits(count=3),
    settings={"database.completed_job_expire_s": 5, "database.terminal_job_expire_s": 8},
)
