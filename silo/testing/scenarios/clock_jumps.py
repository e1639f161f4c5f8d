"""The wall clock is set on and back, by seconds and by an hour."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import ClockJump, Crash
from silo.testing.scenario import Scenario, accidents, floating, jobs, rate, slots

SCENARIO = Scenario(
    name="clock_jumps",
    about="time in the log never goes back, and nobody waits for longer than the clock was wrong",
    steps=[
        jobs(
            15,
            over_s=10,
            limits=lambda chance: (slots("one", 1), rate("r", 5, per_ms=1_000), floating("f", 1))[
                : chance.randint(0, 3)
            ],
        ),
        accidents(
            lambda at_s, chance: ClockJump(at_s=at_s, by_s=chance.choice((-60, -3, -0.01, 0.01, 3, 3_600))),
            times=4,
            over_s=12,
        ),
        accidents(lambda at_s, chance: Crash(at_s=at_s, down_s=1), times=1, over_s=12),
    ],
    workers=lambda: Habits(count=3, vanish=0.05),
    calm_s=4_000,
)
