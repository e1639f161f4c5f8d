"""Holders and waiters are cancelled: the slot goes on to the next who is still there."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.scenario import Scenario, jobs, meddling, slots

# A193
SCENARIO = Scenario(
    name="cancelled_holders",
    about="a cancelled holder gives its slot on, and a cancelled waiter is passed over",
    steps=[
        jobs(18, over_s=3, tenants=("a",), limits=lambda _: (slots("one", 1),), retries=(0, 2)),
        meddling(
            30,
            over_s=10,
            jobs=18,
            tenants=("a",),
            methods=("CancelJob", "CancelJob", "RestartJob", "DeleteJob"),
        ),
    ],
    workers=lambda: Habits(count=2, run_s=(0.1, 0.8)),
)
