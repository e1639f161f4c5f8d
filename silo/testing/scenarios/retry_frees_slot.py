"""A job that fails gives its slot back for the time of its backoff, and others use it."""

from __future__ import annotations

from silo.events.catalogue import AttemptFailed, AttemptSucceeded, JobEvent
from silo.testing.people import Habits
from silo.testing.plan import Enqueue
from silo.testing.scenario import Logs, Scenario, slots

FIRST, SECOND = ("a", "first"), ("a", "second")


def second_ends_first(logs: Logs) -> str | None:
    """While the first job waits for its second try, the second one gets through, unless it failed as well."""
    [log] = logs.values()
    told = [
        (event.job_id, type(event))
        for event in log
        if isinstance(event, JobEvent) and hasattr(event, "attempt")
    ]
    failed = [job_id for job_id, kind in told if kind is AttemptFailed]
    succeeded = [job_id for job_id, kind in told if kind is AttemptSucceeded]
    if failed == ["first"] and succeeded != ["second", "first"]:
        return f"the slot of the first job was kept during its backoff: {succeeded}"
    return None


# A192
SCENARIO = Scenario(
    name="retry_frees_slot",
    about="during a backoff the slot is free for others",
    steps=[
        lambda _: iter(
            [
                Enqueue(at_s=0.1, name=FIRST, limits=(slots("one", 1),), retries=3, backoff_ms=3_000),
                Enqueue(at_s=0.2, name=SECOND, limits=(slots("one", 1),), retries=3, backoff_ms=3_000),
            ]
        )
    ],
    workers=lambda: Habits(count=2, fail=0.5, run_s=(0.3, 0.6), poll_s=(0.05, 0.1)),
    expect=second_ends_first,
)
