"""Requests and replies are lost, come twice and in any order, and now and then nothing comes through at all."""

from __future__ import annotations

from silo.testing.network import NetworkFaults
from silo.testing.people import Habits
from silo.testing.plan import NetworkTrouble
from silo.testing.scenario import Scenario, accidents, jobs, meddling, slots

CUT = {("workers", "broker-0"), ("worker-1-0", "broker-0"), ("worker-1-1", "broker-0")}

SCENARIO = Scenario(
    name="lossy_network",
    about="a lost reply costs an attempt at most, and nothing is done twice",
    steps=[
        jobs(16, over_s=10, limits=lambda chance: (slots("two", 2),) * chance.randint(0, 1), retries=(2, 4)),
        meddling(8, over_s=15, jobs=16),
        accidents(
            lambda at_s, _: NetworkTrouble(at_s=at_s, for_s=13.0, faults={"apart": CUT}), times=1, over_s=10
        ),
    ],
    workers=lambda: Habits(count=3),
    network=lambda: NetworkFaults(delay_s=(0.0, 0.2), lose_request=0.08, lose_reply=0.08, repeat=0.1),
)
