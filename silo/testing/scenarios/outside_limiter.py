"""Rate limits that an outside service decides, over a network that loses its answers."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Crash, NetworkTrouble
from silo.testing.scenario import Scenario, accidents, jobs, meddling, rate, slots

SCENARIO = Scenario(
    name="outside_limiter",
    about="while the limiter does not answer nobody passes, and afterwards everybody does",
    steps=[
        jobs(
            24,
            over_s=6,
            limits=lambda chance: (rate("r", 6, per_ms=1_000), slots("two", 2))[: chance.randint(1, 2)],
        ),
        accidents(
            lambda at_s, chance: NetworkTrouble(
                at_s=at_s, for_s=chance.uniform(1, 4), faults={"lose_reply": 0.4}
            ),
            times=2,
            over_s=10,
        ),
        meddling(
            30,
            over_s=10,
            jobs=24,
            methods=("CancelJob", "CancelJob", "RestartJob", "RestartJob", "LeaseTask"),
        ),
        accidents(lambda at_s, chance: Crash(at_s=at_s, down_s=0.5), times=1, over_s=8),
    ],
    workers=lambda: Habits(count=3),
    limiter=True,
)
