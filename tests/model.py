"""Silo as a few dictionaries and lists: what every command should do, written as simply as can be.

Its methods say what a shard will answer, or raise Refused when it will.  It knows nothing of events, rows or disks, and it
sorts and counts where a shard has an index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from silo.domain.jobs import LEASE_MS, AttemptStatus, JobStatus
from silo.domain.limits import FloatingLimit, RateLimit, SlotLimit
from silo.errors import Refused
from silo.shard.draft import Rules
from silo.shard.jobs import JobName

Queue = tuple[str, str]
"""A tenant and a concurrency key."""

Bucket = tuple[str, str, str]
"""A tenant, and name and key of a rate limit."""


@attrs.define(eq=False)
class Job:
    """A job as the model sees it: what a client could know, and when something will happen.

    `place` is where its chain is: timer, gate, waiting, checking, throttled, ready, leased; empty once it has ended.
    """

    name: JobName
    policy: Any
    priority: int
    requested_ms: int
    limits: tuple[Any, ...] = ()
    status: JobStatus = JobStatus.SCHEDULED
    outcomes: list[AttemptStatus] = attrs.field(factory=list)
    cancelled: bool = False
    relative: int = 1
    start_ms: int = 0
    virtual_ms: int = 0
    order: int = 0
    place: str = ""
    gate: int = 0
    held: dict[Queue, int] = attrs.field(factory=dict)
    """The queues of which it holds a slot, and since when."""
    tries: int = 0
    check_ms: int = 0
    error_code: str = ""
    task_id: str = ""
    logged_ms: int = 0
    renewed_ms: int = 0
    forget_ms: int | None = None

    @property
    def turn(self) -> tuple[int, int, int]:
        """Its place in every line."""
        return (self.virtual_ms, self.start_ms, self.order)


@attrs.define
class Floating:
    maximum: int
    interval_ms: int
    refreshed_ms: int = 0
    failures: int = 0
    retry_ms: int = 0
    refresh: str = ""
    """Empty, scheduled or leased."""
    task_id: str = ""
    group_order: int = 0
    logged_ms: int = 0
    renewed_ms: int = 0


class Model:
    """One shard."""

    def __init__(self, rules: Rules, now_ms: int) -> None:
        self.rules = rules
        self.now_ms = now_ms
        self.jobs: dict[JobName, Job] = {}
        self.floating: dict[Queue, Floating] = {}
        self.windows: dict[Bucket, list[int]] = {}
        """For each bucket when its window ends, and how many hits it has."""
        self.turns: list[Queue] = []
        """Queues with room beside a waiter, in the order in which they are served."""
        self.chains = 0
        self.scheduled = 0
        self.no_expiry_before_ms = 0

    def command(self, act: Callable[..., Any], *args: Any) -> Any:
        """Do what one command does: act, then give away what room there is."""
        reply = act(*args)
        self.settle()
        return reply

    def job(self, name: JobName, *statuses: JobStatus) -> Job:
        job = self.jobs.get(name)
        if job is None or (statuses and job.status not in statuses):
            raise Refused
        return job

    # --- chains and gates ------------------------------------------------------------------------------------------------

    def set_out(self, job: Job, start_ms: int, relative: int, *, gate: int = 0) -> None:
        self.end_chain(job)
        self.chains += 1
        job.status, job.order, job.relative, job.start_ms = (
            JobStatus.SCHEDULED,
            self.chains,
            relative,
            start_ms,
        )
        job.virtual_ms = start_ms + job.priority * self.rules.priority_weight_ms
        job.gate, job.tries, job.forget_ms, job.error_code = gate, 0, None, ""
        job.place = "timer" if start_ms > self.now_ms else "gate"
        self.walk(job)

    def end_chain(self, job: Job) -> None:
        waited_for = [self.queue(job)] if job.place == "waiting" else []
        held, job.held, job.place = job.held, {}, ""
        for queue in sorted([*waited_for, *held]):
            self.touch(queue)

    def walk(self, job: Job) -> None:
        while job.place == "gate":
            if job.gate == len(job.limits):
                job.place = "ready"
            elif isinstance(job.limits[job.gate], RateLimit):
                self.ask_bucket(job, job.limits[job.gate])
            else:
                self.ask_queue(job, job.limits[job.gate])

    # --- slots -----------------------------------------------------------------------------------------------------------

    def queue(self, job: Job) -> Queue:
        return (job.name.tenant, job.limits[job.gate].key)

    def holders(self, queue: Queue) -> list[Job]:
        return [job for job in self.jobs.values() if queue in job.held]

    def waiters(self, queue: Queue) -> list[Job]:
        """All that wait, in the order in which they would be let in."""
        waiting = [job for job in self.jobs.values() if job.place == "waiting" and self.queue(job) == queue]
        return sorted(waiting, key=lambda job: job.turn)

    def has_room(self, queue: Queue, limit: SlotLimit) -> bool:
        floats = isinstance(limit, FloatingLimit)
        return len(self.holders(queue)) < (self.floating[queue].maximum if floats else limit.max_concurrency)

    def eligible(self, queue: Queue) -> list[Job]:
        return [job for job in self.waiters(queue) if self.has_room(queue, job.limits[job.gate])]

    def touch(self, queue: Queue) -> None:
        """Something about the queue has changed: does it have something to give?"""
        if not self.eligible(queue):
            self.turns = [other for other in self.turns if other != queue]
        elif queue not in self.turns:
            self.turns.append(queue)

    def ask_queue(self, job: Job, limit: SlotLimit) -> None:
        queue = self.queue(job)
        if isinstance(limit, FloatingLimit) and queue not in self.floating:
            self.floating[queue] = Floating(limit.default_max_concurrency, limit.refresh_interval_ms)
            self.touch(queue)
        if self.has_room(queue, limit) and not self.eligible(queue):
            self.grant(job, queue)
        else:
            job.place = "waiting"
            self.touch(queue)
            self.schedule_refresh(queue)

    def grant(self, job: Job, queue: Queue) -> None:
        job.held[queue] = self.now_ms
        job.gate, job.place = job.gate + 1, "gate"
        self.turns = [other for other in self.turns if other != queue]
        self.touch(queue)

    def settle(self) -> None:
        while self.turns:
            queue = self.turns[0]
            job = self.eligible(queue)[0]
            self.grant(job, queue)
            self.walk(job)

    def drop_holders(self, tenant: str) -> int:
        jobs = [job for job in self.jobs.values() if job.name.tenant == tenant]
        # In the order in which the holders of all queues are listed.
        listed = sorted(
            (queue, since_ms, job.task_id, job.name) for job in jobs for queue, since_ms in job.held.items()
        )
        dropped = len(listed)
        for name in dict.fromkeys(name for *_, name in listed):
            held, self.jobs[name].held = self.jobs[name].held, {}
            for queue in sorted(held):
                self.touch(queue)
        return dropped

    # --- floating limits -------------------------------------------------------------------------------------------------

    def floats(self, queue: Queue) -> bool:
        """Whether somebody waits who goes by the floating maximum."""
        return any(isinstance(job.limits[job.gate], FloatingLimit) for job in self.waiters(queue))

    def refresh_due_ms(self, queue: Queue) -> int:
        floating = self.floating[queue]
        return max(floating.refreshed_ms + floating.interval_ms, floating.retry_ms)

    def schedule_refresh(self, queue: Queue) -> None:
        floating = self.floating.get(queue)
        if (
            floating
            and not floating.refresh
            and self.floats(queue)
            and self.refresh_due_ms(queue) <= self.now_ms
        ):
            self.scheduled += 1
            floating.refresh, floating.group_order = "scheduled", self.scheduled

    def scheduled_refreshes(self) -> list[Queue]:
        found = [queue for queue, floating in self.floating.items() if floating.refresh == "scheduled"]
        return sorted(found, key=lambda queue: self.floating[queue].group_order)

    def lease_refresh(self, queue: Queue, task_id: str) -> None:
        floating = self.floating[queue]
        floating.refresh, floating.task_id = "leased", task_id
        floating.logged_ms, floating.renewed_ms = self.now_ms + LEASE_MS, 0

    def refreshed(self, queue: Queue, maximum: int | None) -> None:
        floating = self.floating[queue]
        if floating.refresh != "leased":
            raise Refused
        floating.refresh = ""
        if maximum is None:
            floating.retry_ms = self.now_ms + min(1_000 * 2**floating.failures, 60_000)
            floating.failures += 1
        else:
            floating.maximum, floating.refreshed_ms = maximum, self.now_ms
            floating.failures = floating.retry_ms = 0
            self.touch(queue)

    # --- rate limits: token buckets --------------------------------------------------------------------------------------

    def line(self, bucket: Bucket) -> list[Job]:
        """Who waits for a bucket, in the order in which they are let in."""
        throttled = [job for job in self.jobs.values() if job.place == "throttled"]
        waiting = [job for job in throttled if self.bucket(job) == bucket]
        return sorted(waiting, key=lambda job: job.turn)

    def bucket(self, job: Job) -> Bucket:
        return (job.name.tenant, job.limits[job.gate].name, job.limits[job.gate].unique_key)

    def take(self, job: Job) -> bool:
        limit = job.limits[job.gate]
        window = self.windows.setdefault(self.bucket(job), [0, 0])
        if window[0] <= self.now_ms:
            window[:] = [self.now_ms + limit.duration_ms, 0]
        if window[1] + limit.hits > limit.limit:
            return False
        window[1] += limit.hits
        return True

    def ask_bucket(self, job: Job, limit: RateLimit) -> None:
        patient = not limit.retry.max_retries
        if patient and any(other.turn < job.turn for other in self.line(self.bucket(job))):
            job.place = "throttled"
        elif self.take(job):
            job.gate, job.place, job.tries = job.gate + 1, "gate", 0
        elif patient:
            job.place = "throttled"
        elif job.tries >= limit.retry.max_retries:
            self.end(job, JobStatus.FAILED)
            job.error_code = "RATE_LIMIT_EXHAUSTED"
        else:
            reset_ms = self.windows[self.bucket(job)][0]
            backoff_ms = limit.retry.initial_backoff_ms * limit.retry.backoff_multiplier**job.tries
            soon = reset_ms < self.now_ms + limit.retry.max_backoff_ms
            job.check_ms = (
                reset_ms if soon else self.now_ms + min(round(backoff_ms), limit.retry.max_backoff_ms)
            )
            job.place, job.tries = "checking", job.tries + 1

    # --- what clients ask ------------------------------------------------------------------------------------------------

    def enqueue(
        self, name: JobName, start_ms: int, priority: int, policy: Any, limits: tuple[Any, ...]
    ) -> None:
        if name in self.jobs:
            raise Refused
        job = self.jobs[name] = Job(name, policy, priority, start_ms, limits)
        self.set_out(job, start_ms or self.now_ms, 1)

    def end(self, job: Job, status: JobStatus) -> None:
        self.end_chain(job)
        kept_ms = (
            self.rules.completed_expire_ms if status is JobStatus.SUCCEEDED else self.rules.terminal_expire_ms
        )
        job.status = status
        job.forget_ms = None if kept_ms is None else self.now_ms + kept_ms

    def cancel(self, name: JobName) -> None:
        job = self.job(name, JobStatus.SCHEDULED, JobStatus.RUNNING, JobStatus.CANCELLED)
        if job.cancelled:
            raise Refused
        job.cancelled = True
        if job.status is JobStatus.SCHEDULED:
            self.end(job, JobStatus.CANCELLED)

    def restart(self, name: JobName) -> None:
        job = self.job(name, JobStatus.FAILED, JobStatus.CANCELLED)
        job.cancelled = False
        self.set_out(job, max(job.requested_ms, self.now_ms), 1)

    def expedite(self, name: JobName) -> None:
        job = self.job(name, JobStatus.SCHEDULED)
        waits_until_ms = {"timer": job.start_ms, "checking": job.check_ms}.get(job.place, 0)
        if job.cancelled or waits_until_ms <= self.now_ms:
            raise Refused
        job.start_ms, job.place = self.now_ms, "gate"
        job.virtual_ms = self.now_ms + job.priority * self.rules.priority_weight_ms
        self.walk(job)

    def delete(self, name: JobName) -> None:
        if name in self.jobs and not self.jobs[name].status.is_terminal:
            raise Refused
        self.jobs.pop(name, None)

    def erase(self, name: JobName) -> None:
        """What jobs carry is none of the model's business."""
        if name in self.jobs and not self.jobs[name].status.is_terminal:
            raise Refused

    def erase_tenant(self, tenant: str) -> None:
        if any(name.tenant == tenant and not job.status.is_terminal for name, job in self.jobs.items()):
            raise Refused

    def imported(
        self, name: JobName, outcomes: list[AttemptStatus], policy: Any, limits: tuple[Any, ...]
    ) -> JobStatus:
        job = self.jobs.setdefault(name, Job(name, policy, 0, 0, limits))
        self.end_chain(job)
        job.outcomes, job.policy, job.cancelled, job.error_code = list(outcomes), policy, False, ""
        last = outcomes[-1] if outcomes else None
        failures = outcomes.count(AttemptStatus.FAILED)
        if last is AttemptStatus.SUCCEEDED:
            self.end(job, JobStatus.SUCCEEDED)
        elif last is AttemptStatus.CANCELLED:
            self.end(job, JobStatus.CANCELLED)
        elif last and (policy is None or failures > policy.retry_count):
            self.end(job, JobStatus.FAILED)
        else:
            # What the import says may fail at a gate afterwards.
            self.set_out(job, self.now_ms, len(outcomes) + 1)
            return JobStatus.SCHEDULED
        return job.status

    # --- what workers ask ------------------------------------------------------------------------------------------------

    def ready(self) -> list[JobName]:
        ready = sorted((job for job in self.jobs.values() if job.place == "ready"), key=lambda job: job.turn)
        return [job.name for job in ready]

    def lease(self, name: JobName, task_id: str) -> None:
        job = self.jobs[name]
        job.status, job.place, job.task_id = JobStatus.RUNNING, "leased", task_id
        job.logged_ms, job.renewed_ms = self.now_ms + LEASE_MS, 0
        job.outcomes.append(AttemptStatus.RUNNING)

    def lease_one(self, name: JobName, task_id: str) -> None:
        job = self.job(name, JobStatus.SCHEDULED)
        if job.cancelled or job.place == "waiting":
            raise Refused
        self.set_out(job, min(job.start_ms, self.now_ms), job.relative, gate=len(job.limits))
        self.lease(name, task_id)

    def report(self, name: JobName, outcome: AttemptStatus) -> None:
        self.finish(self.job(name, JobStatus.RUNNING), outcome)

    def finish(self, job: Job, outcome: AttemptStatus) -> None:
        job.outcomes[-1] = outcome
        if outcome is AttemptStatus.SUCCEEDED:
            self.end(job, JobStatus.SUCCEEDED)
        elif outcome is AttemptStatus.CANCELLED or job.cancelled:
            self.end(job, JobStatus.CANCELLED)
        elif job.policy is None or job.relative > job.policy.retry_count:
            self.end(job, JobStatus.FAILED)
        else:
            self.set_out(job, job.policy.next_attempt_ms(self.now_ms, job.relative), job.relative + 1)

    def heartbeat(self, lease: Job | Floating) -> None:
        expires_ms = self.now_ms + LEASE_MS
        if expires_ms - lease.logged_ms >= LEASE_MS // 2:
            lease.logged_ms = expires_ms
        else:
            lease.renewed_ms = expires_ms

    # --- what the clock says ---------------------------------------------------------------------------------------------

    def due(self) -> None:
        """Everything that is due, in the order of the commands that do it."""
        self.command(self.wake)
        while self.command(self.expire):
            pass
        self.command(self.check)
        self.command(self.open_buckets)
        self.command(self.refresh)
        self.forget()

    def wake(self) -> None:
        due = [job for job in self.jobs.values() if job.place == "timer" and job.start_ms <= self.now_ms]
        for job in sorted(due, key=lambda job: (job.start_ms, job.order)):
            job.place = "gate"
            self.walk(job)

    def expire(self) -> bool:
        leases: list[Job | Floating] = [job for job in self.jobs.values() if job.place == "leased"]
        leases += [floating for floating in self.floating.values() if floating.refresh == "leased"]
        overdue = [lease for lease in leases if lease.logged_ms <= self.now_ms]
        for lease in sorted(overdue, key=lambda lease: (lease.logged_ms, lease.task_id)):
            lease.logged_ms = max(lease.logged_ms, lease.renewed_ms, self.no_expiry_before_ms)
            if lease.logged_ms > self.now_ms:
                continue
            if isinstance(lease, Floating):
                lease.refresh = ""
            else:
                self.finish(lease, AttemptStatus.CANCELLED if lease.cancelled else AttemptStatus.FAILED)
        return bool(overdue)

    def check(self) -> None:
        due = [job for job in self.jobs.values() if job.place == "checking" and job.check_ms <= self.now_ms]
        for job in sorted(due, key=lambda job: (job.check_ms, job.order)):
            self.ask_bucket(job, job.limits[job.gate])
            self.walk(job)

    def open_buckets(self) -> None:
        # Within one command a job may come to another bucket's line, but each bucket is looked at in its turn.
        for bucket in sorted(self.windows, key=lambda bucket: (self.windows[bucket][0], bucket)):
            while (line := self.line(bucket)) and self.take(line[0]):
                line[0].gate, line[0].place, line[0].tries = line[0].gate + 1, "gate", 0
                self.walk(line[0])

    def refresh(self) -> None:
        due = [queue for queue in self.floating if self.refresh_due_ms(queue) <= self.now_ms]
        for queue in sorted(due, key=lambda queue: (self.refresh_due_ms(queue), queue)):
            self.schedule_refresh(queue)

    def forget(self) -> None:
        def is_over(job: Job) -> bool:
            return job.status.is_terminal and job.forget_ms is not None and job.forget_ms <= self.now_ms

        self.jobs = {name: job for name, job in self.jobs.items() if not is_over(job)}

    def reopened(self) -> None:
        """What is in memory only is forgotten, and every lease gets a full one."""
        self.no_expiry_before_ms = self.now_ms + LEASE_MS
        for lease in (*self.jobs.values(), *self.floating.values()):
            lease.renewed_ms = 0

    # --- what must hold --------------------------------------------------------------------------------------------------

    def check_laws(self) -> None:
        """Between two commands nobody waits for room that there is, and nobody is at a gate."""
        assert all(job.place != "gate" for job in self.jobs.values())
        for job in self.jobs.values():
            assert bool(job.place) == (not job.status.is_terminal)
            if job.place == "waiting":
                assert not self.has_room(self.queue(job), job.limits[job.gate])
