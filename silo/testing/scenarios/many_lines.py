"""Jobs that share a key and differ in its maximum and in their priority: so many lines, and one order among all of them."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.scenario import Scenario, floating, jobs, meddling, slots

SCENARIO = Scenario(
    name="many_lines",
    about="of all that may be let in, in whatever line, the first by virtual start is",
    steps=[
        jobs(
            22,
            over_s=5,
            tenants=("a",),
            limits=lambda chance: (
                slots("hot", chance.choice((1, 2, 3, 4))) if chance.random() < 0.8 else floating("hot", 2),
            ),
            priorities=(0, 10, 50, 99),
        ),
        meddling(10, over_s=10, jobs=22, tenants=("a",), methods=("CancelJob", "RestartJob")),
    ],
    workers=lambda: Habits(count=3, run_s=(0.1, 0.6), poll_s=(0.05, 0.2)),
)
