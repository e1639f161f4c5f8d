"""Checkpoints all the time, many of which fail, do not come back or are cut short by a crash."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Checkpoint, Crash, Step, StoreTrouble
from silo.testing.scenario import Scenario, accidents, jobs, meddling, slots
from silo.testing.store import StoreFaults


def trouble(at_s: float, chance: object) -> Step:
    return StoreTrouble(at_s=at_s, for_s=3.0, faults={"fail": 0.05, "unknown": 0.05, "stuck": 0.02})


SCENARIO = Scenario(
    name="torn_checkpoints",
    about="rows on disk are those of the old checkpoint or of the new one, never of both",
    steps=[
        jobs(18, over_s=12, limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1)),
        meddling(10, over_s=12, jobs=18),
        accidents(trouble, times=2, over_s=10),
        accidents(lambda at_s, chance: Checkpoint(at_s=at_s), times=6, over_s=14),
        accidents(
            lambda at_s, chance: Crash(at_s=at_s, down_s=0.2, after_callbacks=chance.randrange(30)),
            times=3,
            over_s=12,
        ),
    ],
    workers=lambda: Habits(count=3),
    store=lambda: StoreFaults(write_s=(0.005, 0.08)),
    settings={"database.checkpoint_rows": 5, "database.checkpoint_interval_ms": 10},
)
