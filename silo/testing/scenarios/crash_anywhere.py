"""The broker is killed after any number of steps: at every `await` of a commit, of a checkpoint, of its start."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Crash
from silo.testing.scenario import Scenario, accidents, jobs, meddling, slots

SCENARIO = Scenario(
    name="crash_anywhere",
    about="whatever a crash interrupts, nothing that was acknowledged is lost",
    steps=[
        jobs(15, over_s=8, limits=lambda chance: (slots("one", 1),) * chance.randint(0, 1)),
        meddling(10, over_s=8, jobs=15),
        accidents(
            lambda at_s, chance: Crash(at_s=at_s, down_s=0.1, after_callbacks=chance.randrange(60)),
            times=5,
            over_s=9,
        ),
    ],
    workers=lambda: Habits(count=3, run_s=(0.0, 0.3), poll_s=(0.05, 0.3)),
    settings={"database.checkpoint_rows": 20, "database.checkpoint_interval_ms": 100},
)
