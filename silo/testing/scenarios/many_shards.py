"""Three shards in one broker, each with a life of its own."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Crash, StoreTrouble
from silo.testing.scenario import Scenario, accidents, jobs, meddling, slots

TENANTS = tuple("abcdefgh")

SCENARIO = Scenario(
    name="many_shards",
    about="what happens to one shard is nothing to the others",
    steps=[
        jobs(18, over_s=10, tenants=TENANTS, limits=lambda chance: (slots("one", 1),) * chance.randint(0, 1)),
        meddling(12, over_s=12, jobs=18, tenants=TENANTS),
        accidents(
            lambda at_s, _: StoreTrouble(at_s=at_s, for_s=2.0, faults={"fail": 0.2}), times=2, over_s=10
        ),
        accidents(lambda at_s, _: Crash(at_s=at_s, down_s=0.5), times=1, over_s=10),
    ],
    workers=lambda: Habits(count=6),
    shards=3,
)
