"""Clients look at jobs while these are on their way to a slow store: what they are shown will not be gone after a crash."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Crash
from silo.testing.scenario import Scenario, accidents, jobs, meddling
from silo.testing.store import StoreFaults

SCENARIO = Scenario(
    name="early_reads",
    about="nobody is shown what is not durable",
    steps=[
        jobs(15, over_s=2, tenants=("a",), ahead_s=(0,)),
        meddling(120, over_s=3, jobs=15, tenants=("a",), methods=("GetJob", "GetJob", "GetJob", "CancelJob")),
        accidents(lambda at_s, chance: Crash(at_s=at_s, down_s=0.2), times=1, over_s=3),
    ],
    workers=lambda: Habits(count=2),
    store=lambda: StoreFaults(write_s=(0.02, 0.12)),
)
