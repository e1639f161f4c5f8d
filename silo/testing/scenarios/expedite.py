"""Jobs of the future, and those between two tries, are expedited: never more run than may, and nothing starts twice."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.scenario import Scenario, jobs, meddling, slots

# A194
SCENARIO = Scenario(
    name="expedite",
    about="an expedited job keeps to its limits, and gains nothing on the others in a line",
    steps=[
        jobs(
            18,
            over_s=3,
            tenants=("a",),
            limits=lambda chance: (slots("one", 1),) * chance.randint(0, 1),
            retries=(0, 3),
            ahead_s=(0, 5, 20),
        ),
        meddling(40, over_s=15, jobs=18, tenants=("a",), methods=("ExpediteJob", "ExpediteJob", "CancelJob")),
    ],
    workers=lambda: Habits(count=3, fail=0.3),
)
