"""A long backlog: many times more jobs than are kept in memory, so fronts of queues are loaded while others change them.

A million jobs behave as a few hundred do when what is kept in memory shrinks by the same factor; so here it does.
"""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Crash
from silo.testing.scenario import Scenario, accidents, jobs, slots
from silo.testing.store import StoreFaults

SCENARIO = Scenario(
    name="backlog",
    about="order and limits hold across what is in memory and what is on disk",
    steps=[
        jobs(
            50,
            over_s=3,
            tenants=("a",),
            ahead_s=(0, 0, 0, 4),
            retries=(0, 0, 1),
            priorities=(0, 50),
            limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1),
        ),
        accidents(lambda at_s, chance: Crash(at_s=at_s, down_s=0.2), times=1, over_s=6),
    ],
    workers=lambda: Habits(count=3, run_s=(0.0, 0.2), poll_s=(0.1, 0.5)),
    store=lambda: StoreFaults(read_s=(0.0, 0.05), write_s=(0.001, 0.02)),
    settings={"database.checkpoint_rows": 40, "database.checkpoint_interval_ms": 50},
    memory_factor=1 / 500,
)
