"""Forty jobs for five slots and eight quick workers: many ends and grants in the same commits."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.scenario import Scenario, jobs, slots

# A191
SCENARIO = Scenario(
    name="grant_race",
    about="no slot is granted twice when many jobs end at the same moment",
    steps=[jobs(40, over_s=0.5, tenants=("a",), limits=lambda _: (slots("hot", 5),), ahead_s=(0,))],
    workers=lambda: Habits(count=8, run_s=(0.0, 0.02), poll_s=(0.05, 0.1), fail=0.1),
)
