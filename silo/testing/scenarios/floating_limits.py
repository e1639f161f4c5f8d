"""Maxima that workers find out: they rise, sink to nothing, are not found out, and the worker who looks vanishes."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.scenario import Scenario, floating, jobs

# A195
SCENARIO = Scenario(
    name="floating_limits",
    about="one refresh at a time, a new maximum counts at once, and a lost worker holds nothing up",
    steps=[
        jobs(
            22,
            over_s=15,
            limits=lambda chance: (
                floating(chance.choice("fg"), chance.choice((0, 1, 2)), refresh_ms=2_000),
            ),
        )
    ],
    workers=lambda: Habits(count=3, maxima=(None, 0, 1, 2, 5), vanish=0.1),
)
