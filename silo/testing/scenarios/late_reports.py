"""Workers stop to send heartbeats, and report long after their lease: what comes late counts for nothing."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.scenario import Scenario, jobs

SCENARIO = Scenario(
    name="late_reports",
    about="a report after the lease is refused, and never ends another attempt",
    steps=[jobs(16, over_s=8, retries=(3, 5), ahead_s=(0,))],
    workers=lambda: Habits(count=3, linger=0.4, fail=0.1),
)
