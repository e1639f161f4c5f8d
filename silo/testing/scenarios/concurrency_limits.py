"""Several keys, ten jobs each, random times and failures: never more at once than a key allows, and no slot is left over."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.scenario import Scenario, jobs, slots

KEYS = (("one", 1), ("two", 2), ("three", 3))

# A190
SCENARIO = Scenario(
    name="concurrency_limits",
    about="holders never exceed the maximum of their key, and all slots are given back",
    steps=[
        jobs(10, over_s=4, limits=lambda _, key=key, most=most: (slots(key, most),), prefix=f"{key}-")  # type: ignore[misc]
        for key, most in KEYS
    ],
    workers=lambda: Habits(count=4, fail=0.25),
)
