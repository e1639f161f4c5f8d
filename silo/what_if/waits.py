"""How long attempts waited from the moment when they might start until a worker had them, by task group."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import attrs

from silo.events.catalogue import (
    ChainStarted,
    Event,
    JobCancelled,
    JobEnqueued,
    JobEvent,
    JobExpedited,
    JobFailed,
    JobImported,
    TaskLeased,
)


@attrs.frozen
class Measured:
    """Of one task group, or of all.

    Attributes:
        waits_ms: in ascending order; of attempts that still wait in the end, as long as they have waited until then.
        waiting: how many those are.
    """

    waits_ms: Sequence[int]
    waiting: int

    @property
    def leased(self) -> int:
        """How many attempts a worker has taken."""
        return len(self.waits_ms) - self.waiting

    def percentile(self, percent: float) -> int | None:
        """In ms, by the nearest rank; None if nobody waited at all."""
        if not self.waits_ms:
            return None
        return self.waits_ms[max(math.ceil(len(self.waits_ms) * percent / 100), 1) - 1]


class Waits:
    """Takes in events, recorded or simulated.

    Args:
        from_ms: what began to wait earlier counts from here on, and what was leased earlier not at all.
    """

    def __init__(self, from_ms: int) -> None:
        self._from_ms = from_ms
        self._groups: dict[tuple[str, str], str] = {}
        self._since: dict[tuple[str, str], int] = {}
        self._waits: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, event: Event) -> None:
        """Take in the next event."""
        if not isinstance(event, JobEvent):
            return
        name = (event.tenant, event.job_id)
        if isinstance(event, JobEnqueued | JobImported):
            self._groups[name] = event.spec.task_group
        elif isinstance(event, ChainStarted):
            self._since[name] = max(event.start_ms, event.time_ms)
        elif isinstance(event, JobExpedited):
            self._since[name] = event.time_ms
        elif isinstance(event, TaskLeased):
            since_ms = self._since.pop(name, event.time_ms)
            if event.time_ms >= self._from_ms:
                self._waits[self._groups[name]].append(max(event.time_ms - max(since_ms, self._from_ms), 0))
        elif isinstance(event, JobFailed | JobCancelled):
            self._since.pop(name, None)

    def measured(self, to_ms: int) -> dict[str, Measured]:
        """What there is to say at the end of the window, by task group."""
        waiting: defaultdict[str, list[int]] = defaultdict(list)
        for name, since_ms in self._since.items():
            if since_ms < to_ms:
                waiting[self._groups[name]].append(to_ms - max(since_ms, self._from_ms))
        return {
            group: Measured(sorted(self._waits[group] + waiting[group]), len(waiting[group]))
            for group in sorted({*self._waits, *waiting})
        }


def together(groups: dict[str, Measured]) -> Measured:
    """All groups as one."""
    waits = sorted(wait for group in groups.values() for wait in group.waits_ms)
    return Measured(waits, sum(group.waiting for group in groups.values()))
