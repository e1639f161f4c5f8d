"""What came to a shard from outside during a window of its log: jobs, cancellations, and how long work took.

Everything else follows from that, so it is left out here and decided anew by `simulation.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import attrs

from silo.domain.jobs import JobSpec
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    CancellationRequested,
    ChainDue,
    ChainStarted,
    Event,
    JobCancelled,
    JobDeleted,
    JobEnqueued,
    JobEvent,
    JobExpedited,
    JobFailed,
    JobForgotten,
    JobImported,
    JobReimported,
    JobRestarted,
    RateChecked,
    RefreshSucceeded,
    SlotGranted,
    TaskLeased,
)
from silo.shard.jobs import JobName

USED: tuple[type[Event], ...] = (
    JobEnqueued,
    JobImported,
    JobReimported,
    CancellationRequested,
    JobFailed,
    JobCancelled,
    JobRestarted,
    JobExpedited,
    JobDeleted,
    JobForgotten,
    ChainStarted,
    ChainDue,
    SlotGranted,
    RateChecked,
    TaskLeased,
    AttemptSucceeded,
    AttemptFailed,
    AttemptCancelled,
    RefreshSucceeded,
)
"""The types of events that a recording is made of."""

SHORT_MS = 100
"""A task that was ready for longer than this before a worker had it has waited for a worker."""

SHORT_SHARE = 0.01
"""If more than this share of the tasks of a task group did, its workers were too few at times."""


class Ending(Enum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@attrs.frozen
class Run:
    """How long an attempt took, within the window, and how it ended."""

    duration_ms: int
    ending: Ending
    error_code: str = ""


@attrs.define(eq=False)
class Life:
    """A job that arrived in the window, or was pending or running when it began.

    Attributes:
        runs: its attempts, as far as they ended in the window or later.
        running_since_ms: when the attempt began that had not ended yet.
        failures: before the window, since the last restart.
        start_ms: when the chain may start that was under way when the window began.
        ready_ms: since when the task is ready, if it is.
    """

    name: JobName
    spec: JobSpec
    runs: list[Run] = attrs.field(factory=list)
    running_since_ms: int | None = None
    failures: int = 0
    start_ms: int = 0
    ready_ms: int = 0
    has_ended: bool = False


class Act(Enum):
    ARRIVE = "arrive"
    CANCEL = "cancel"
    RESTART = "restart"
    EXPEDITE = "expedite"


@attrs.frozen
class Action:
    """What somebody outside did to a job."""

    time_ms: int
    act: Act
    life: Life


class Recording:
    """Takes in the events of a shard in order, up to the end of the window.

    Args:
        from_ms: where the window begins; what was pending then arrives at its first moment.

    Attributes:
        actions: what was done in the window, in order.
        maxima: of each queue with a floating limit, (tenant, key): what its refreshes found out, and when.
        peak_running: of each task group, how many attempts ran at most at the same time.
        left_out: types of events that a simulation does not repeat, and how often there were some.
    """

    def __init__(self, from_ms: int) -> None:
        self.from_ms = from_ms
        self.to_ms = from_ms
        self.actions: list[Action] = []
        self.maxima: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        self.peak_running: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.priority_weight_ms: int | None = None
        self._running: Counter[str] = Counter()
        self._leased_in: Counter[str] = Counter()
        self._short_in: Counter[str] = Counter()
        self._lives: dict[tuple[str, str], Life] = {}
        self._carried_in: list[Life] | None = None

    def add(self, event: Event) -> None:
        """Take in the next event."""
        if event.time_ms >= self.from_ms and self._carried_in is None:
            self._begin()
        self.to_ms = max(self.to_ms, event.time_ms)
        if isinstance(event, RefreshSucceeded):
            self.maxima[event.tenant, event.queue].append((event.time_ms, event.new_max_concurrency))
        elif isinstance(event, JobEnqueued | JobImported):
            self._arrived(event)
        elif isinstance(event, JobEvent):
            life = self._lives.get((event.tenant, event.job_id))
            happened = _HAPPENED.get(type(event))
            if life is not None and happened is not None:
                happened(self, life, event)
            elif self._in_window and isinstance(event, JobRestarted | JobReimported):
                # It had ended before the window began, and is not known any more.
                self.left_out[f"{type(event).__name__} of jobs that had ended before"] += 1

    def end(self, to_ms: int | None = None) -> None:
        """There are no more events; the window ends then, or with the last of them."""
        if self._carried_in is None:
            self._begin()
        if to_ms is not None:
            self.to_ms = to_ms

    def workers(self, group: str) -> int | None:
        """How many attempts of a task group its workers could run at a time, as far as one can see.

        None: more than ran, as tasks hardly ever waited for a worker.
        """
        is_short = self._short_in[group] > SHORT_SHARE * self._leased_in[group]
        return self.peak_running[group] if is_short else None

    @property
    def carried_in(self) -> list[Life]:
        """The jobs that were pending or running when the window began, in the order of their starts."""
        return self._carried_in or []

    @property
    def lives(self) -> Iterator[Life]:
        """All jobs that there were."""
        yield from self.carried_in
        yield from (action.life for action in self.actions if action.act is Act.ARRIVE)

    def _begin(self) -> None:
        pending = [life for life in self._lives.values() if not life.has_ended]
        pending.sort(key=lambda life: (life.running_since_ms is None, life.start_ms))
        self._carried_in = pending
        self._lives = {(life.name.tenant, life.name.job_id): life for life in pending}
        self.peak_running = +self._running
        # What was found out earlier is what holds.
        for queue, found in self.maxima.items():
            self.maxima[queue] = [(self.from_ms, found[-1][1])]

    @property
    def _in_window(self) -> bool:
        return self._carried_in is not None

    def _arrived(self, event: JobEnqueued | JobImported) -> None:
        life = Life(JobName(event.tenant, event.job_id), event.spec)
        self._lives[event.tenant, event.job_id] = life
        life.start_ms = max(event.spec.enqueue_time_ms, event.time_ms)
        if isinstance(event, JobImported):
            life.has_ended = event.status.is_terminal
        if self._in_window and not life.has_ended:
            self.actions.append(Action(event.time_ms, Act.ARRIVE, life))

    def _act(self, act: Act, life: Life, event: Event) -> None:
        if self._in_window:
            self.actions.append(Action(event.time_ms, act, life))

    def _set_out(self, life: Life, event: ChainStarted) -> None:
        life.ready_ms = max(event.start_ms, event.time_ms)
        if not self._in_window:
            life.start_ms, life.has_ended = max(event.start_ms, event.time_ms), False
        if life.spec.priority and self.priority_weight_ms is None:
            self.priority_weight_ms = (event.virtual_start_ms - event.start_ms) // life.spec.priority

    def _led_on(self, life: Life, event: ChainDue | SlotGranted | RateChecked) -> None:
        life.ready_ms = event.time_ms

    def _leased(self, life: Life, event: TaskLeased) -> None:
        life.running_since_ms = event.time_ms
        group = life.spec.task_group
        if self._in_window:
            self._leased_in[group] += 1
            self._short_in[group] += event.time_ms - max(life.ready_ms, self.from_ms) > SHORT_MS
        self._running[group] += 1
        self.peak_running[group] = max(self.peak_running[group], self._running[group])

    def _ran(self, life: Life, event: AttemptSucceeded | AttemptFailed | AttemptCancelled) -> None:
        if life.running_since_ms is None:
            return
        self._running[life.spec.task_group] -= 1
        if self._in_window:
            duration_ms = event.time_ms - max(life.running_since_ms, self.from_ms)
            error_code = event.error_code if isinstance(event, AttemptFailed) else ""
            life.runs.append(Run(duration_ms, _ENDINGS[type(event)], error_code))
        elif isinstance(event, AttemptFailed):
            life.failures += 1
        life.running_since_ms = None
        life.has_ended = isinstance(event, AttemptSucceeded)

    def _cancelled(self, life: Life, event: CancellationRequested) -> None:
        self._act(Act.CANCEL, life, event)

    def _restarted(self, life: Life, event: JobRestarted) -> None:
        if not self._in_window:
            life.has_ended, life.failures = False, 0
        self._act(Act.RESTART, life, event)

    def _expedited(self, life: Life, event: JobExpedited) -> None:
        life.ready_ms = event.time_ms
        if not self._in_window:
            life.start_ms = event.time_ms
        self._act(Act.EXPEDITE, life, event)

    def _ended(self, life: Life, event: JobFailed | JobCancelled) -> None:
        life.has_ended = True

    def _gone(self, life: Life, event: JobDeleted | JobForgotten) -> None:
        del self._lives[event.tenant, event.job_id]

    def _reimported(self, life: Life, event: JobReimported) -> None:
        life.has_ended = event.status.is_terminal
        if self._in_window:
            self.left_out[type(event).__name__] += 1


_ENDINGS = {
    AttemptSucceeded: Ending.SUCCEEDED,
    AttemptFailed: Ending.FAILED,
    AttemptCancelled: Ending.CANCELLED,
}

_HAPPENED: dict[type[Event], Callable[[Recording, Life, Any], None]] = {
    ChainStarted: Recording._set_out,
    ChainDue: Recording._led_on,
    SlotGranted: Recording._led_on,
    RateChecked: Recording._led_on,
    TaskLeased: Recording._leased,
    AttemptSucceeded: Recording._ran,
    AttemptFailed: Recording._ran,
    AttemptCancelled: Recording._ran,
    CancellationRequested: Recording._cancelled,
    JobRestarted: Recording._restarted,
    JobExpedited: Recording._expedited,
    JobFailed: Recording._ended,
    JobCancelled: Recording._ended,
    JobDeleted: Recording._gone,
    JobForgotten: Recording._gone,
    JobReimported: Recording._reimported,
}
