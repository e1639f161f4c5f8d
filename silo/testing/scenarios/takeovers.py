"""Another broker opens the same shards in the middle of a commit; the first one may be standing still just then."""

from __future__ import annotations

from silo.testing.people import Habits
from silo.testing.plan import Pause, TakeOver
from silo.testing.scenario import Scenario, accidents, jobs, slots

SCENARIO = Scenario(
    name="takeovers",
    about="the older broker is fenced, acknowledges nothing more, and stops",
    steps=[
        jobs(18, over_s=10, limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1)),
        accidents(
            lambda at_s, chance: TakeOver(at_s=at_s, after_callbacks=chance.randrange(40)), times=3, over_s=10
        ),
        accidents(lambda at_s, chance: Pause(at_s=at_s, for_s=chance.uniform(0.5, 3)), times=2, over_s=10),
    ],
    workers=lambda: Habits(count=3),
)
