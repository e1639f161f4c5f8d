"""One tenant floods the broker; another, in the same shard, has a little to do now and then."""

from __future__ import annotations

from silo.events.catalogue import JobEnqueued, TaskLeased
from silo.testing.people import Habits
from silo.testing.scenario import Logs, Scenario, jobs

SOON_MS = 5_000


def little_ones_are_served(logs: Logs) -> str | None:
    came: dict[str, int] = {}
    for log in logs.values():
        for event in log:
            if isinstance(event, JobEnqueued) and event.tenant == "little":
                came[event.job_id] = event.time_ms
            elif isinstance(event, TaskLeased) and event.tenant == "little":
                waited_ms = event.time_ms - came[event.job_id]
                if event.attempt == 1 and waited_ms > SOON_MS:
                    return f"{event.job_id} waited {waited_ms} ms behind the flood"
    return None


SCENARIO = Scenario(
    name="neighbours",
    about="a first-rate job of a small tenant does not wait for the flood of another",
    steps=[
        jobs(30, over_s=1, tenants=("flood",), priorities=(50,), ahead_s=(0,), retries=(0,), prefix="f"),
        jobs(6, over_s=6, tenants=("little",), priorities=(0,), ahead_s=(0,), retries=(0,), prefix="l"),
    ],
    workers=lambda: Habits(count=3, tasks=2, run_s=(0.1, 0.5), poll_s=(0.05, 0.2), fail=0),
    expect=little_ones_are_served,
)
