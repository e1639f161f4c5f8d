"""An operator takes all slots of a tenant away, now and then, while its jobs run and wait."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import DropHolders
from silo.testing.scenario import Scenario, accidents, jobs, meddling, slots

SCENARIO = Scenario(
    name="dropped_holders",
    about="slots that were dropped are given to others once, and not again when their old holders end",
    steps=[
        jobs(15, over_s=6, limits=lambda chance: (slots("one", 1), slots("two", 2))[: chance.randint(1, 2)]),
        accidents(
            lambda at_s, chance: DropHolders(at_s=at_s, tenant=chance.choice("ab")), times=5, over_s=12
        ),
        meddling(8, over_s=12, jobs=15),
    ],
    workers=lambda: Habits(count=3, run_s=(0.3, 2.0)),
)
