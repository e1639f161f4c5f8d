"""Jobs come from elsewhere with a history, again and again, while they are at work here."""

from __future__ import annotations

import random
from collections.abc import Iterator

from silo.testing.people import Habits
from silo.testing.plan import Import, Step
from silo.testing.scenario import Scenario, jobs, meddling, slots


def imports(chance: random.Random) -> Iterator[Step]:
    for _ in range(24):
        limits = (slots("one", 1),) * chance.randint(0, 1)
        name = (chance.choice("ab"), f"j{chance.randrange(12)}")
        yield Import(at_s=chance.uniform(0, 10), name=name, failed=chance.randint(0, 3), limits=limits)


SCENARIO = Scenario(
    name="imports",
    about="an import never takes a job from its worker, nor a slot from its holder",
    steps=[imports, jobs(4, over_s=5), meddling(16, over_s=12, jobs=12)],
    workers=lambda: Habits(count=2, fail=0.3),
)
