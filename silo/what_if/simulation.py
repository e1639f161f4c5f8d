"""A window of a shard's life, lived through again in virtual time.

Jobs arrive when they arrived, and work takes as long as it took.  Everything in between (who is let in, who is next, what is
retried when) is decided by the code that serves, and folded by it.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from statistics import median_low
from typing import Any, TypeVar

import attrs

from silo.domain.ids import Ids
from silo.domain.retry import RetryPolicy
from silo.errors import Refused
from silo.events.catalogue import (
    ChainDue,
    ChainStarted,
    Event,
    JobEvent,
    JobExpedited,
    RateChecked,
    RefreshScheduled,
    SlotGranted,
)
from silo.projections.concurrency import REFRESHES_DUE, UNSETTLED
from silo.projections.rates import BUCKET_TIMERS, CHECKS
from silo.projections.tasks import TIMERS
from silo.projections.view import Table
from silo.shard.cancel import cancel
from silo.shard.draft import Draft, Rules
from silo.shard.dry_run import DryRun
from silo.shard.due import wake_due
from silo.shard.enqueue import NewJob, enqueue
from silo.shard.expedite import expedite
from silo.shard.gates import settle_rest
from silo.shard.jobs import JobName
from silo.shard.lease import LeaseTasks
from silo.shard.lease_clock import LeaseClock
from silo.shard.outcome import Cancelled, Failure, Outcome, ReportOutcome, Success, report_outcome
from silo.shard.refresh import (
    LeasedRefresh,
    Refreshed,
    ReportRefresh,
    lease_work,
    report_refresh,
    schedule_due_refreshes,
)
from silo.shard.restart import restart
from silo.shard.throttle import check_due, open_buckets
from silo.what_if.changes import Changes, chosen
from silo.what_if.recording import Act, Action, Ending, Life, Recording, Run

Reply = TypeVar("Reply")

NEVER = 1 << 62
LEASED_AT_ONCE = 256
WORKER = "worker"

DUE: tuple[Callable[[None, Draft], int], ...] = (
    wake_due,
    check_due,
    open_buckets,
    schedule_due_refreshes,
    settle_rest,
)
"""What the clock may ask for; leases are kept here as long as work takes, and nothing is forgotten."""

QUEUES_OF_TIMES: tuple[Table[Any], ...] = (TIMERS, CHECKS, BUCKET_TIMERS, REFRESHES_DUE)

MAKES_READY = (ChainStarted, ChainDue, SlotGranted, RateChecked, JobExpedited)
"""After these a task may be ready that was not."""


@attrs.define
class _Playing:
    """A job under the name that it has here, and how many of its attempts have begun."""

    life: Life
    began: int = 0


class Simulation:
    """Plays a recording.

    Args:
        changes: to what was.
        rules: those of the broker.
        ids: of the attempts.

    Attributes:
        refused: what was done to jobs then, but cannot be done to them here, as they stand otherwise.
    """

    def __init__(self, recording: Recording, changes: Changes, rules: Rules, ids: Ids) -> None:
        self.refused: Counter[str] = Counter()
        self._recording = recording
        self._changes = changes
        self._dry = DryRun(
            now_ms=recording.from_ms,
            rules=rules,
            ids=ids,
            leases=LeaseClock(not_before_ms=NEVER),
        )
        self._playing: dict[JobName, _Playing] = {}
        self._names: dict[int, JobName] = {}
        self._free: dict[str, int] = {}
        self._usual_ms = _usual_durations(recording)
        self._ends: list[tuple[int, int, str, str, Outcome]] = []
        self._events: list[Event] = []
        self._groups_to_look_at: set[str] = set()

    def events(self) -> Iterator[Event]:
        """What happens, up to the end of the window.  May be asked for once."""
        actions = self._all_actions()
        action = next(actions, None)
        while True:
            next_ms = min(
                action.time_ms if action is not None else NEVER,
                self._ends[0][0] if self._ends else NEVER,
                self._due_ms(),
            )
            if next_ms > self._recording.to_ms:
                return
            self._dry.now_ms = max(next_ms, self._dry.now_ms)
            while self._ends and self._ends[0][0] <= next_ms:
                self._end(*heapq.heappop(self._ends)[2:])
            while action is not None and action.time_ms <= next_ms:
                self._do(action)
                action = next(actions, None)
            if self._due_ms() <= next_ms:
                for command in DUE:
                    while self._execute(command, None):
                        pass
            self._lease()
            yield from self._events
            self._events.clear()

    def _all_actions(self) -> Iterator[Action]:
        for life in self._recording.carried_in:
            yield Action(self._recording.from_ms, Act.ARRIVE, life)
        yield from self._recording.actions

    # --- one step ---------------------------------------------------------------------------------------------------------

    def _execute(self, decide: Callable[[Any, Draft], Reply], command: Any) -> Reply:
        reply, events = self._dry.execute(decide, command)
        for event in events:
            if isinstance(event, RefreshScheduled):
                self._groups_to_look_at.add(event.task_group)
            elif isinstance(event, MAKES_READY) and isinstance(event, JobEvent):
                life = self._playing[JobName(event.tenant, event.job_id)].life
                self._groups_to_look_at.add(life.spec.task_group)
        self._events += events
        return reply

    def _due_ms(self) -> int:
        return self._dry.execute(_next_due_ms, None)[0]

    def _do(self, action: Action) -> None:
        life = action.life
        if action.act is Act.ARRIVE:
            self._arrive(life)
            return
        name = self._names.get(id(life))
        decide = {Act.CANCEL: cancel, Act.RESTART: restart, Act.EXPEDITE: expedite}[action.act]
        try:
            if name is not None:
                self._execute(decide, name)
        except Refused:
            self.refused[action.act.value] += 1

    def _arrive(self, life: Life) -> None:
        # A job's id may come again after the job is gone; here no job goes.
        name = life.name
        while name in self._playing:
            name = JobName(name.tenant, f"{name.job_id}'")
        spec = self._changes.of(life.name, life.spec)
        if life.start_ms > self._dry.now_ms:
            spec = attrs.evolve(spec, enqueue_time_ms=life.start_ms)
        if life.failures and spec.retry_policy is not None:
            spec = attrs.evolve(spec, retry_policy=_what_is_left(spec.retry_policy, life.failures))
        self._playing[name] = _Playing(life)
        self._names[id(life)] = name
        self._execute(enqueue, NewJob(tenant=name.tenant, job_id=name.job_id, spec=spec, payload=b""))

    def _end(self, task_id: str, group: str, outcome: Outcome) -> None:
        self._free[group] += 1
        self._groups_to_look_at.add(group)
        self._execute(report_outcome, ReportOutcome(task_id, outcome))

    def _lease(self) -> None:
        while self._groups_to_look_at:
            group = self._groups_to_look_at.pop()
            if group not in self._free:
                self._free[group] = self._workers(group)
            while self._free[group] > 0:
                most = min(self._free[group], LEASED_AT_ONCE)
                work = self._execute(
                    lease_work, LeaseTasks(worker_id=WORKER, task_group=group, max_tasks=most)
                )
                if not work.tasks and not work.refreshes:
                    break
                self._free[group] -= len(work.tasks)
                for task in work.tasks:
                    self._begin(task.task_id, JobName(task.tenant, task.job_id), group)
                for refresh in work.refreshes:
                    self._find_out(refresh)

    def _workers(self, group: str) -> int:
        """How many attempts may run at a time."""
        workers = chosen(self._changes.workers, group)
        if workers is None:
            workers = self._recording.workers(group)
        return NEVER if workers is None else workers

    def _begin(self, task_id: str, name: JobName, group: str) -> None:
        playing = self._playing[name]
        run = self._run(playing.life, playing.began, group)
        playing.began += 1
        outcome: Outcome
        match run.ending:
            case Ending.SUCCEEDED:
                outcome = Success(b"")
            case Ending.FAILED:
                outcome = Failure(run.error_code, b"")
            case Ending.CANCELLED:
                outcome = Cancelled()
        end_ms = self._dry.now_ms + run.duration_ms
        heapq.heappush(self._ends, (end_ms, self._dry.last_seq, task_id, group, outcome))

    def _run(self, life: Life, number: int, group: str) -> Run:
        """How it goes: as it went; or as it usually does, and well, if nobody has seen the end of such an attempt."""
        if number < len(life.runs):
            return life.runs[number]
        usual_ms = self._usual_ms.get(group, 0)
        if number == len(life.runs) and life.running_since_ms is not None:
            # It still ran when the window ended.
            so_far_ms = self._recording.to_ms - max(life.running_since_ms, self._recording.from_ms)
            usual_ms = max(usual_ms, so_far_ms)
        return Run(usual_ms, Ending.SUCCEEDED)

    def _find_out(self, refresh: LeasedRefresh) -> None:
        """A refresh finds what was found out at that time; or what is assumed."""
        assumed = chosen(self._changes.limits, refresh.queue)
        if assumed is None:
            found = self._recording.maxima.get((refresh.tenant, refresh.queue), [])
            at = bisect_right(found, self._dry.now_ms, key=lambda each: each[0])
            assumed = found[max(at - 1, 0)][1] if found else refresh.maximum
        self._execute(report_refresh, ReportRefresh(refresh.task_id, Refreshed(assumed)))


def _next_due_ms(_: None, draft: Draft) -> int:
    if draft.view.first(UNSETTLED, (), 1):
        return draft.now_ms
    return min(
        (int(key[0]) for table in QUEUES_OF_TIMES for key, _ in draft.view.first(table, (), 1)), default=NEVER
    )


def _what_is_left(policy: RetryPolicy, failures: int) -> RetryPolicy:
    return attrs.evolve(policy, retry_count=max(policy.retry_count - failures, 0))


def _usual_durations(recording: Recording) -> dict[str, int]:
    """The median of how long attempts took, by task group, in ms."""
    durations: defaultdict[str, list[int]] = defaultdict(list)
    for life in recording.lives:
        durations[life.spec.task_group] += [run.duration_ms for run in life.runs]
    return {group: median_low(found) for group, found in durations.items() if found}
