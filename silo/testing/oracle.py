"""What the events of a queue mean, told once more: with lists that are sorted and searched, and nothing else.

The oracle hears each record of the log when it becomes durable, and checks for each event that it was allowed in the state
that the events before it give: no slot beyond the maximum, nobody leased twice or out of turn, what has ended has ended.
After each record it checks what must hold between two commands: no free slot beside somebody who waits for one, and no job
in limbo.

It also hears what clients and workers were told, at the moment in which they were: that must be in the log already, so an
acknowledgement that comes before its event is durable is caught by the first crash or none.

It shares no code with the projections, only the events themselves and the values in them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import attrs

from silo.domain.jobs import AttemptStatus, JobSpec, JobStatus
from silo.domain.limits import Algorithm, FloatingLimit, Limit, RateLimit
from silo.events import catalogue as facts
from silo.events.catalogue import Event
from silo.testing.plan import Name

GRANTS_PER_COMMAND = 200
"""A command gives away no more slots than this, and leaves the rest to the next."""

Turn = tuple[int, int, int]
"""A place in every line: virtual start, start, sequence number of the chain."""


class Broken(Exception):
    """Something is not as it must be.  `check` names what was looked at."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


@attrs.define
class Chain:
    """The attempt that a job has under way."""

    task_id: str
    attempt: int
    turn: Turn
    place: str
    gate: int
    held: list[str]


@attrs.define
class Job:
    """A job, and what the last event made of it."""

    name: Name
    spec: JobSpec
    status: JobStatus
    attempts: int = 0
    chain: Chain | None = None
    cancelled: bool = False
    forget_ms: int | None = None

    @property
    def limit(self) -> Limit | None:
        """The limit that its chain has come to."""
        chain = self.chain
        return self.spec.limits[chain.gate] if chain and chain.gate < len(self.spec.limits) else None


@attrs.define
class Floating:
    """A maximum that workers find out."""

    maximum: int
    refresh: str = ""
    leased_by: str = ""


@attrs.define
class Lease:
    """A task that a worker has."""

    name: Name
    worker_id: str
    expires_ms: int


@attrs.define
class Window:
    """A token bucket: hits since it began."""

    began_ms: int
    used: int


class Oracle:
    """The naive queue of one shard.

    Attributes:
        jobs: all that there are, by name.
        seen: how many events of each kind there were.
    """

    def __init__(self) -> None:
        self.jobs: dict[Name, Job] = {}
        self.named: defaultdict[Name, dict[Name, Job]] = defaultdict(dict)
        """The jobs that name a queue in their limits."""
        self.leases: dict[str, Lease] = {}
        self.floating: dict[Name, Floating] = {}
        self.windows: dict[tuple[str, str, str], Window] = {}
        self.seen: Counter[str] = Counter()
        self.seq = 0
        self.time_ms = 0
        self.ended: dict[str, str] = {}
        """Task id to how its attempt ended."""
        self.refreshed: set[str] = set()
        self.known: set[Name] = set()
        """Jobs that were there at some time."""

    # --- what clients were told ------------------------------------------------------------------------------------------

    def told_enqueued(self, name: Name) -> None:
        if name not in self.known:
            raise Broken("acknowledged", f"{name} was acknowledged, and is not in the log")

    def told_leased(self, task_id: str, name: Name, attempt: int, worker_id: str) -> None:
        lease = self.leases.get(task_id)
        if lease is None and task_id in self.ended:
            # The reply was slow, and the lease has run out meanwhile.
            return
        if lease is None or lease.name != name or lease.worker_id != worker_id:
            raise Broken("acknowledged", f"{worker_id} got {task_id} of {name}, but the log has {lease}")
        job = self.jobs[name]
        if job.attempts != attempt:
            raise Broken(
                "acknowledged", f"{worker_id} got attempt {attempt} of {name}, the log has {job.attempts}"
            )

    def told_reported(self, task_id: str, outcome: str) -> None:
        if self.ended.get(task_id) != outcome:
            raise Broken(
                "acknowledged",
                f"{outcome} of {task_id} was acknowledged, and the log has {self.ended.get(task_id)}",
            )

    def told_refreshed(self, task_id: str) -> None:
        if task_id not in self.refreshed:
            raise Broken("acknowledged", f"refresh {task_id} was acknowledged, and is not in the log")

    def told_asked(self, method: str, name: Name, *, was_there: bool) -> None:
        """A call about a job was answered without an error; the job was there, or not, when it was made."""
        kind = {
            "CancelJob": "CancellationRequested",
            "RestartJob": "JobRestarted",
            "ExpediteJob": "JobExpedited",
            "DeleteJob": "JobDeleted",
        }.get(method)
        if method == "GetJob" and name not in self.known:
            raise Broken("acknowledged", f"{name} was shown, and is not in the log")
        # To delete a job that is not there is no error, and no event.
        is_nothing = method == "DeleteJob" and not was_there
        if kind is not None and not is_nothing and not self.seen[f"{kind} {name}"]:
            raise Broken("acknowledged", f"{method} of {name} was acknowledged, and is not in the log")

    # --- what is still to be done ----------------------------------------------------------------------------------------

    def open_jobs(self) -> list[Job]:
        return [job for job in self.jobs.values() if not job.status.is_terminal]

    # --- the log ---------------------------------------------------------------------------------------------------------

    def record(self, events: Sequence[Event]) -> None:
        """A record has become durable."""
        grants = 0
        queues: dict[Name, None] = {}
        for event in events:
            self._stamp(event)
            for queue in self._queues_of(event):
                queues[queue] = None
            _TAKE[type(event)](self, event)
            self.seen[type(event).__name__] += 1
            if isinstance(event, facts.JobEvent):
                self.seen[f"{type(event).__name__} {(event.tenant, event.job_id)}"] += 1
            grants += isinstance(event, facts.SlotGranted)
            for queue in self._queues_of(event):
                queues[queue] = None
        if grants < GRANTS_PER_COMMAND:
            for queue in queues:
                self._no_room_beside_a_waiter(queue)
        for name in {
            (event.tenant, event.job_id): None for event in events if isinstance(event, facts.JobEvent)
        }:
            self._not_in_limbo(name)

    def _stamp(self, event: Event) -> None:
        _check(event.seq == self.seq + 1, "log", f"event {event.seq} comes after {self.seq}")
        _check(event.time_ms >= self.time_ms, "log", f"event {event.seq} is earlier than the one before")
        self.seq, self.time_ms = event.seq, event.time_ms

    def _queues_of(self, event: Event) -> list[Name]:
        """The queues whose state an event may change."""
        if isinstance(event, facts.QueueEvent):
            return [(event.tenant, event.queue)]
        if isinstance(event, facts.JobEvent):
            job = self.jobs.get((event.tenant, event.job_id))
            if job is not None and job.spec.limits:
                return [
                    (event.tenant, limit.key) for limit in job.spec.limits if not isinstance(limit, RateLimit)
                ]
        return []

    # --- after each record -----------------------------------------------------------------------------------------------

    def _no_room_beside_a_waiter(self, queue: Name) -> None:
        waiting = self._eligible(queue)
        _check(
            not waiting,
            "work conserving",
            f"{queue} has {len(self.holders(queue))} holders, and room for {[job.name for job in waiting]}",
        )

    def _not_in_limbo(self, name: Name) -> None:
        job = self.jobs.get(name)
        if job is None:
            return
        chain = job.chain
        _check(
            job.status.is_terminal == (chain is None), "limbo", f"{name} is {job.status.name} with {chain}"
        )
        if chain is not None:
            _check(chain.place != "gate", "limbo", f"{name} stands before a gate between two commands")
            leased = chain.place == "leased"
            _check(
                (job.status is JobStatus.RUNNING) == leased,
                "limbo",
                f"{name} is {job.status.name}, {chain.place}",
            )
            _check(
                leased == (chain.task_id in self.leases),
                "one lease",
                f"{name} is {chain.place} without a lease",
            )

    # --- queues ----------------------------------------------------------------------------------------------------------

    def holders(self, queue: Name) -> list[Job]:
        return [job for job in self.named[queue].values() if job.chain and queue[1] in job.chain.held]

    def _maximum(self, tenant: str, limit: Limit) -> int:
        if isinstance(limit, FloatingLimit):
            floating = self.floating.get((tenant, limit.key))
            _check(floating is not None, "limits", f"{limit.key} has no maximum")
            assert floating is not None
            return floating.maximum
        assert not isinstance(limit, RateLimit)
        return limit.max_concurrency

    def _waiters(self, queue: Name) -> Iterator[Job]:
        for job in self.named[queue].values():
            if job.chain and job.chain.place == "waiting":
                limit = job.limit
                if limit is not None and not isinstance(limit, RateLimit) and limit.key == queue[1]:
                    yield job

    def _eligible(self, queue: Name) -> list[Job]:
        """Who waits, and would be let in by the number of holders, in turn."""
        waiters = list(self._waiters(queue))
        if not waiters:
            return []
        holders = len(self.holders(queue))
        found = [job for job in waiters if job.limit and holders < self._maximum(queue[0], job.limit)]
        return sorted(found, key=_turn)

    # --- events: jobs ----------------------------------------------------------------------------------------------------

    def job(self, event: facts.JobEvent) -> Job:
        job = self.jobs.get((event.tenant, event.job_id))
        _check(
            job is not None,
            "log",
            f"event {event.seq}, {type(event).__name__}, is about a job that is not there",
        )
        assert job is not None
        return job

    def chain(self, event: facts.JobEvent) -> Chain:
        chain = self.job(event).chain
        text = f"event {event.seq}, {type(event).__name__}, needs an attempt under way of {event.job_id}"
        _check(chain is not None, "terminal", text)
        assert chain is not None
        task_id = getattr(event, "task_id", chain.task_id)
        _check(task_id == chain.task_id, "one attempt", f"{text}, which is {chain.task_id}, not {task_id}")
        return chain

    def shard_created(self, event: facts.ShardCreated) -> None:
        _check(event.seq == 1, "log", "the shard was created twice")

    def _add(self, job: Job) -> None:
        self.jobs[job.name] = job
        for limit in job.spec.limits:
            if not isinstance(limit, RateLimit):
                self.named[job.name[0], limit.key][job.name] = job

    def _remove(self, job: Job) -> None:
        del self.jobs[job.name]
        for limit in job.spec.limits:
            if not isinstance(limit, RateLimit):
                del self.named[job.name[0], limit.key][job.name]

    def job_enqueued(self, event: facts.JobEnqueued) -> None:
        name = (event.tenant, event.job_id)
        _check(name not in self.jobs, "log", f"{name} was enqueued, and is there already")
        self._add(Job(name, event.spec, JobStatus.SCHEDULED))
        self.known.add(name)

    def job_imported(self, event: facts.JobImported) -> None:
        name = (event.tenant, event.job_id)
        _check(name not in self.jobs, "log", f"{name} was imported, and is there already")
        self._add(Job(name, event.spec, event.status, forget_ms=event.forget_ms))
        self.known.add(name)

    def job_reimported(self, event: facts.JobReimported) -> None:
        job = self.job(event)
        allowed = job.status not in (JobStatus.RUNNING, JobStatus.SUCCEEDED)
        _check(allowed, "terminal", f"{job.name} was imported again, and is {job.status.name}")
        job.spec = attrs.evolve(job.spec, retry_policy=event.retry_policy)
        job.status, job.chain, job.cancelled, job.forget_ms = event.status, None, False, event.forget_ms

    def attempt_imported(self, event: facts.AttemptImported) -> None:
        job = self.job(event)
        _check(
            event.attempt == job.attempts + 1,
            "attempts",
            f"{job.name} has {job.attempts}, got {event.attempt}",
        )
        _check(
            event.status is not AttemptStatus.RUNNING,
            "attempts",
            f"{job.name}: a running attempt was imported",
        )
        job.attempts = event.attempt

    def cancellation_requested(self, event: facts.CancellationRequested) -> None:
        job = self.job(event)
        ended = job.status in (JobStatus.SUCCEEDED, JobStatus.FAILED)
        _check(
            not job.cancelled and not ended, "terminal", f"{job.name} was cancelled, and is {job.status.name}"
        )
        job.cancelled = True

    def _end(self, event: facts.JobEvent, status: JobStatus, forget_ms: int | None) -> Job:
        job = self.job(event)
        _check(
            not job.status.is_terminal,
            "terminal",
            f"{job.name} is {job.status.name}, and became {status.name}",
        )
        job.status, job.chain, job.forget_ms = status, None, forget_ms
        return job

    def job_failed(self, event: facts.JobFailed) -> None:
        job = self.job(event)
        _check(not job.cancelled, "cancel", f"{job.name} was to be cancelled, and failed")
        if not event.error_code:
            policy = job.spec.retry_policy
            _check(
                policy is None or job.attempts > policy.retry_count, "retries", f"{job.name} has a try left"
            )
        self._end(event, JobStatus.FAILED, event.forget_ms)

    def job_cancelled(self, event: facts.JobCancelled) -> None:
        job = self._end(event, JobStatus.CANCELLED, event.forget_ms)
        asked = job.cancelled or event.method in ("ReportOutcome", "ImportJobs", "ReportOutcomes", "Work")
        _check(asked, "cancel", f"nobody wanted {job.name} to be cancelled")

    def job_restarted(self, event: facts.JobRestarted) -> None:
        job = self.job(event)
        may = job.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        _check(may, "terminal", f"{job.name} was restarted, and is {job.status.name}")
        job.status, job.cancelled, job.forget_ms = JobStatus.SCHEDULED, False, None

    def job_expedited(self, event: facts.JobExpedited) -> None:
        job, chain = self.job(event), self.chain(event)
        _check(
            chain.place in ("timer", "checking"),
            "expedite",
            f"{job.name} waits for no time but is {chain.place}",
        )
        chain.turn = (event.virtual_start_ms, event.time_ms, chain.turn[2])
        self._come_to(job, chain.gate)

    def job_deleted(self, event: facts.JobDeleted) -> None:
        job = self.job(event)
        _check(job.status.is_terminal, "terminal", f"{job.name} was deleted, and is {job.status.name}")
        self._remove(job)

    def job_forgotten(self, event: facts.JobForgotten) -> None:
        job = self.job(event)
        due = job.status.is_terminal and job.forget_ms is not None and job.forget_ms <= event.time_ms
        _check(
            due,
            "retention",
            f"{job.name} was forgotten, and is {job.status.name}, to be kept until {job.forget_ms}",
        )
        self._remove(job)

    # --- events: chains --------------------------------------------------------------------------------------------------

    def _come_to(self, job: Job, gate: int) -> None:
        """The job's chain stands before a gate, or is through."""
        assert job.chain is not None
        job.chain.gate = gate
        job.chain.place = "ready" if gate == len(job.spec.limits) else "gate"

    def chain_started(self, event: facts.ChainStarted) -> None:
        job = self.job(event)
        _check(
            not job.status.is_terminal, "terminal", f"{job.name} is {job.status.name}, and has a new attempt"
        )
        _check(
            job.status is not JobStatus.RUNNING,
            "one attempt",
            f"{job.name} is running, and has a new attempt",
        )
        _check(
            event.attempt == job.attempts + 1,
            "attempts",
            f"{job.name} has {job.attempts}, began {event.attempt}",
        )
        _check(not job.cancelled, "cancel", f"{job.name} was to be cancelled, and has a new attempt")
        if event.relative_attempt > 1:
            policy = job.spec.retry_policy
            may = policy is not None and event.relative_attempt <= policy.retry_count + 1
            _check(may, "retries", f"{job.name} is tried for the {event.relative_attempt}th time")
        turn = (event.virtual_start_ms, event.start_ms, event.seq)
        job.chain = Chain(event.task_id, event.attempt, turn, "timer", event.gate, [])
        if event.start_ms <= event.time_ms:
            self._come_to(job, event.gate)

    def chain_due(self, event: facts.ChainDue) -> None:
        job, chain = self.job(event), self.chain(event)
        due = chain.place == "timer" and chain.turn[1] <= event.time_ms
        _check(
            due, "timers", f"{job.name} is {chain.place} and was due at {chain.turn[1]}, not {event.time_ms}"
        )
        self._come_to(job, chain.gate)

    def _at_gate(self, event: facts.GateEvent, *places: str) -> tuple[Job, Chain]:
        job, chain = self.job(event), self.chain(event)
        here = chain.gate == event.gate and chain.place in places
        text = f"{type(event).__name__} of {job.name} at gate {event.gate}, which is {chain.place} at {chain.gate}"
        _check(here, "chains", text)
        return job, chain

    def slot_granted(self, event: facts.SlotGranted) -> None:
        job, chain = self._at_gate(event, "gate", "waiting")
        queue, limit = (event.tenant, event.queue), job.limit
        assert limit is not None
        maximum, holders = self._maximum(event.tenant, limit), len(self.holders(queue))
        _check(
            event.maximum == maximum, "maximum", f"{queue} has a maximum of {maximum}, not {event.maximum}"
        )
        _check(holders < maximum, "maximum", f"{job.name} is one more than the {holders} holders of {queue}")
        before = [other for other in self._eligible(queue) if other is not job]
        if chain.place == "waiting":
            before = [other for other in before if _turn(other) < _turn(job)]
        _check(
            not before, "order", f"{job.name} got a slot of {queue} before {[other.name for other in before]}"
        )
        chain.held.append(event.queue)
        self._come_to(job, event.gate + 1)

    def slot_waited(self, event: facts.SlotWaited) -> None:
        job, chain = self._at_gate(event, "gate")
        queue, limit = (event.tenant, event.queue), job.limit
        assert limit is not None
        full = len(self.holders(queue)) >= self._maximum(event.tenant, limit)
        _check(
            full or bool(self._eligible(queue)),
            "work conserving",
            f"{job.name} waits for {queue}, which has room",
        )
        chain.place = "waiting"

    def rate_check_due(self, event: facts.RateCheckDue) -> None:
        _, chain = self._at_gate(event, "gate")
        chain.place = "checking"

    def rate_checked(self, event: facts.RateChecked) -> None:
        job, chain = self._at_gate(event, "gate", "checking", "throttled")
        limit = job.limit
        assert isinstance(limit, RateLimit)
        if (
            event.is_local
            and limit.algorithm is Algorithm.TOKEN_BUCKET
            and not limit.behavior
            and not event.error
        ):
            self._hit(event, limit)
        _check(not (event.allowed and event.error), "rate", f"{job.name} passes, though {event.error}")
        if event.allowed:
            self._come_to(job, event.gate + 1)
        elif event.retry_ms is not None:
            chain.place = "checking"
        else:
            # What follows says where it waits, or that it failed.
            chain.place = "gate"

    def _hit(self, event: facts.RateChecked, limit: RateLimit) -> None:
        key = (event.tenant, limit.name, limit.unique_key)
        window = self.windows.get(key)
        if window is None or event.time_ms >= window.began_ms + limit.duration_ms:
            window = self.windows[key] = Window(event.time_ms, 0)
        fits = window.used + limit.hits <= limit.limit
        _check(fits == event.allowed, "rate", f"{key} has {window.used} of {limit.limit}: {event.allowed=}")
        if event.allowed:
            window.used += limit.hits

    def rate_waited(self, event: facts.RateWaited) -> None:
        _, chain = self._at_gate(event, "gate", "throttled")
        chain.place = "throttled"

    def holders_dropped(self, event: facts.HoldersDropped) -> None:
        chain = self.chain(event)
        _check(
            list(event.queues) == chain.held,
            "slots",
            f"{event.job_id} holds {chain.held}, dropped {event.queues}",
        )
        chain.held.clear()

    # --- events: leases --------------------------------------------------------------------------------------------------

    def task_leased(self, event: facts.TaskLeased) -> None:
        job, chain = self.job(event), self.chain(event)
        _check(chain.place == "ready", "lease", f"{job.name} was leased, and is {chain.place}")
        _check(
            event.attempt == chain.attempt,
            "attempts",
            f"{job.name} is at {chain.attempt}, leased {event.attempt}",
        )
        held = [lease for lease in self.leases.values() if lease.name == job.name]
        _check(not held, "one lease", f"{job.name} was leased, and {held} holds it")
        if event.method != "LeaseTask":
            group = job.spec.task_group
            first = min(
                _turn(other)
                for other in self.jobs.values()
                if other.chain and other.chain.place == "ready" and other.spec.task_group == group
            )
            _check(_turn(job) == first, "order", f"{job.name} was leased at {_turn(job)}, before {first}")
        chain.place = "leased"
        job.status, job.attempts = JobStatus.RUNNING, event.attempt
        self.leases[event.task_id] = Lease(job.name, event.worker_id, event.expires_ms)

    def lease_renewed(self, event: facts.LeaseRenewed) -> None:
        lease = self.leases.get(event.task_id)
        _check(lease is not None, "one lease", f"{event.task_id} was renewed, and is not leased")
        assert lease is not None
        _check(
            event.expires_ms >= lease.expires_ms,
            "lease",
            f"a heartbeat shortened the lease of {event.task_id}",
        )
        lease.expires_ms = event.expires_ms

    def lease_expired(self, event: facts.LeaseExpired) -> None:
        lease = self.leases.get(event.task_id)
        _check(lease is not None, "one lease", f"{event.task_id} expired, and is not leased")
        assert lease is not None
        over = lease.expires_ms <= event.expired_ms <= event.time_ms
        _check(
            over, "lease", f"{event.task_id} is leased until {lease.expires_ms}, expired at {event.time_ms}"
        )

    def _end_attempt(
        self, event: facts.AttemptSucceeded | facts.AttemptFailed | facts.AttemptCancelled
    ) -> Job:
        job, chain = self.job(event), self.chain(event)
        _check(
            event.task_id in self.leases,
            "one lease",
            f"{event.task_id} of {job.name} ended, and is not leased",
        )
        _check(
            event.attempt == chain.attempt,
            "attempts",
            f"{job.name} is at {chain.attempt}, ended {event.attempt}",
        )
        del self.leases[event.task_id]
        self.ended[event.task_id] = type(event).__name__
        job.chain = None
        return job

    def attempt_succeeded(self, event: facts.AttemptSucceeded) -> None:
        job = self._end_attempt(event)
        job.status, job.forget_ms = JobStatus.SUCCEEDED, event.forget_ms

    def attempt_failed(self, event: facts.AttemptFailed) -> None:
        self._end_attempt(event).status = JobStatus.SCHEDULED

    def attempt_cancelled(self, event: facts.AttemptCancelled) -> None:
        self._end_attempt(event).status = JobStatus.SCHEDULED

    # --- events: floating limits and buckets -----------------------------------------------------------------------------

    def limit_created(self, event: facts.LimitCreated) -> None:
        queue = (event.tenant, event.queue)
        _check(queue not in self.floating, "limits", f"{queue} was made twice")
        self.floating[queue] = Floating(event.default_max_concurrency)

    def refresh_scheduled(self, event: facts.RefreshScheduled) -> None:
        floating = self.floating[event.tenant, event.queue]
        _check(not floating.refresh, "one refresh", f"{event.queue} has one under way")
        floating.refresh = event.task_id

    def _refresh(self, event: facts.QueueEvent, task_id: str) -> Floating:
        floating = self.floating[event.tenant, event.queue]
        _check(
            floating.refresh == task_id,
            "one refresh",
            f"{event.queue} has {floating.refresh!r}, not {task_id}",
        )
        return floating

    def refresh_leased(self, event: facts.RefreshLeased) -> None:
        floating = self._refresh(event, event.task_id)
        _check(not floating.leased_by, "one lease", f"{event.queue} is leased by {floating.leased_by}")
        floating.leased_by = event.worker_id

    def refresh_renewed(self, event: facts.RefreshRenewed) -> None:
        self._refresh(event, event.task_id)

    def refresh_succeeded(self, event: facts.RefreshSucceeded) -> None:
        self._end_refresh(event, event.task_id)
        self.floating[event.tenant, event.queue].maximum = event.new_max_concurrency
        self.refreshed.add(event.task_id)

    def refresh_failed(self, event: facts.RefreshFailed) -> None:
        self._end_refresh(event, event.task_id)
        self.refreshed.add(event.task_id)

    def refresh_expired(self, event: facts.RefreshExpired) -> None:
        self._end_refresh(event, event.task_id)

    def _end_refresh(self, event: facts.QueueEvent, task_id: str) -> None:
        floating = self._refresh(event, task_id)
        _check(
            bool(floating.leased_by), "one lease", f"the refresh of {event.queue} ended, and is not leased"
        )
        floating.refresh = floating.leased_by = ""

    def nothing(self, event: Event) -> None:
        """An event that changes nothing of what is looked at here."""


def _check(holds: bool, check: str, text: str) -> None:
    if not holds:
        raise Broken(check, text)


def _turn(job: Job) -> Turn:
    assert job.chain is not None
    return job.chain.turn


_TAKE = {
    kind: getattr(
        Oracle, "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__)[1:], Oracle.nothing
    )
    for kind in facts.EVENTS
}
