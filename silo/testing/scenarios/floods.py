"""A hundred and twenty queues with more than enough to do, and one small one: a slot that comes free there is used soon."""

from __future__ import annotations

from silo.events.catalogue import SlotGranted, SlotWaited
from silo.testing.people import Habits
from silo.testing.plan import Enqueue
from silo.testing.scenario import Logs, Scenario, jobs, slots

SOON_MS = 15_000
SMALL = "small"


def small_one_is_served(logs: Logs) -> str | None:
    [log] = logs.values()
    waiting: dict[str, int] = {}
    free_since = 0
    for event in log:
        if isinstance(event, SlotWaited) and event.queue == SMALL:
            waiting[event.job_id] = event.time_ms
        elif isinstance(event, SlotGranted) and event.queue == SMALL:
            waited_ms = event.time_ms - max(waiting.pop(event.job_id, event.time_ms), free_since)
            if waited_ms > SOON_MS:
                return f"{event.job_id} waited {waited_ms} ms for a slot that was free"
            free_since = event.time_ms
    return None


# A197
SCENARIO = Scenario(
    name="floods",
    about="queues that are full cost their neighbours nothing",
    steps=[
        jobs(
            160,
            over_s=1,
            tenants=("flood",),
            ahead_s=(0,),
            retries=(0,),
            limits=lambda chance: (slots(f"q{chance.randrange(120)}", 1),),
        ),
        lambda _: iter(
            [
                Enqueue(
                    at_s=1 + number / 10, name=("small", f"s{number}"), limits=(slots(SMALL, 1),), priority=0
                )
                for number in range(4)
            ]
        ),
    ],
    workers=lambda: Habits(count=4, tasks=16, run_s=(0.05, 0.3), fail=0),
    expect=small_one_is_served,
)
