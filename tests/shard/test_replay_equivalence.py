"""Whatever was asked of a shard, in whatever order, across whatever reopenings: its rows are those that the log gives.

Random histories run on a real shard, beside a model that is a dictionary of jobs.  At the end

- the rows on disk are byte for byte those of a rebuild from the first event,
- a replay from the last checkpoint gives the same,
- the model agrees on every reply and on every job,
- every live chain is in exactly one place, and an ended job in none (I14).
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.broker.timers import run_due
from silo.domain.ids import Ids
from silo.domain.jobs import LEASE_MS, AttemptStatus, JobStatus
from silo.errors import Refused
from silo.projections.counters import COUNTS, WHOLE_SHARD
from silo.projections.jobs import JOBS, Place
from silo.projections.leases import EXPIRIES, LEASES
from silo.projections.tasks import FORGETTING, READY, TIMERS
from silo.shard.cancel import cancel
from silo.shard.delete import delete
from silo.shard.disk import key_of, read_table
from silo.shard.draft import Rules
from silo.shard.enqueue import enqueue
from silo.shard.expedite import expedite
from silo.shard.import_jobs import Imported, NotImported, import_jobs
from silo.shard.jobs import JobName
from silo.shard.lease import LeaseTask, heartbeat, lease_task, lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job
from silo.shard.replay import verify
from silo.shard.restart import restart
from silo.shard.shard import Shard, ShardOptions
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.builders import (
    NOW,
    a_heartbeat,
    a_job,
    a_policy,
    an_attempt,
    an_import,
    cancelled,
    failure,
    for_worker,
    success,
)
from tests.serving import Clock, opens, opens_slate, run

RULES = Rules(priority_weight_ms=1_000, completed_expire_ms=20_000, terminal_expire_ms=40_000)
POLICIES = [None, a_policy(retry_count=1), a_policy(retry_count=3, max_interval_ms=0)]
NAMES = [JobName(tenant, job_id) for tenant in ("a", "b") for job_id in ("x", "y")]

names = st.sampled_from(NAMES)
REPORT = st.tuples(
    st.just("report"),
    names,
    st.sampled_from(["failure", "failure", "success", "cancelled"]),
    st.sampled_from([0, 300]),
)
LEASE = st.tuples(st.just("lease"), st.integers(1, 3))
STEPS = st.one_of(
    REPORT,
    LEASE,
    st.tuples(
        st.just("enqueue"),
        names,
        st.sampled_from([0, 0, 3_000]),
        st.integers(0, 5),
        st.sampled_from(POLICIES),
    ),
    LEASE,
    st.tuples(st.just("lease one"), names),
    st.tuples(
        st.just("report"),
        names,
        st.sampled_from(["success", "failure", "cancelled"]),
        st.sampled_from([0, 300]),
    ),
    st.tuples(st.just("heartbeat"), names),
    st.tuples(st.sampled_from(["cancel", "restart", "restart", "expedite", "delete"]), names),
    st.tuples(st.just("import"), names, st.lists(st.sampled_from(list(AttemptStatus)[1:]), max_size=2)),
    st.tuples(st.just("clock"), st.sampled_from([1, 1_000, 4_000, 11_000, 60_000, -5_000])),
    st.tuples(st.just("due")),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("reopen")),
)


@attrs.define
class Job:
    """A job as the model sees it: what a client could know, and when something will happen."""

    policy: Any
    priority: int
    requested_ms: int
    status: JobStatus = JobStatus.SCHEDULED
    outcomes: list[AttemptStatus] = attrs.field(factory=list)
    cancelled: bool = False
    relative: int = 1
    start_ms: int = 0
    order: int = 0
    task_id: str = ""
    logged_ms: int = 0
    renewed_ms: int = 0
    forget_ms: int | None = None


class Model:
    """Silo as a dictionary.  Its methods say what the shard will do; each answers as the shard will, or raises Refused."""

    def __init__(self) -> None:
        self.jobs: dict[JobName, Job] = {}
        self.chains = 0
        self.now_ms = NOW
        self.no_expiry_before_ms = 0

    def job(self, name: JobName, *statuses: JobStatus) -> Job:
        job = self.jobs.get(name)
        if job is None or (statuses and job.status not in statuses):
            raise Refused
        return job

    def set_out(self, job: Job, start_ms: int, relative: int) -> None:
        self.chains += 1
        job.status, job.order, job.relative, job.start_ms = (
            JobStatus.SCHEDULED,
            self.chains,
            relative,
            start_ms,
        )
        job.forget_ms = None

    def end(self, job: Job, status: JobStatus) -> None:
        kept_ms = RULES.completed_expire_ms if status is JobStatus.SUCCEEDED else RULES.terminal_expire_ms
        job.status, job.forget_ms = status, self.now_ms + kept_ms

    def enqueue(self, name: JobName, start_ms: int, priority: int, policy: Any) -> None:
        if name in self.jobs:
            raise Refused
        job = self.jobs[name] = Job(policy, priority, start_ms)
        self.set_out(job, start_ms or self.now_ms, 1)

    def ready(self) -> list[JobName]:
        def order(name: JobName) -> tuple[int, int, int]:
            job = self.jobs[name]
            return (job.start_ms + 1_000 * job.priority, job.start_ms, job.order)

        pending = [name for name, job in self.jobs.items() if job.status is JobStatus.SCHEDULED]
        return sorted((name for name in pending if self.jobs[name].start_ms <= self.now_ms), key=order)

    def lease(self, name: JobName, task_id: str) -> None:
        job = self.jobs[name]
        job.status, job.task_id = JobStatus.RUNNING, task_id
        job.logged_ms, job.renewed_ms = self.now_ms + LEASE_MS, 0
        job.outcomes.append(AttemptStatus.RUNNING)

    def report(self, job: Job, outcome: AttemptStatus) -> None:
        job.outcomes[-1] = outcome
        if outcome is AttemptStatus.SUCCEEDED:
            self.end(job, JobStatus.SUCCEEDED)
        elif outcome is AttemptStatus.CANCELLED or job.cancelled:
            self.end(job, JobStatus.CANCELLED)
        elif job.policy is None or job.relative > job.policy.retry_count:
            self.end(job, JobStatus.FAILED)
        else:
            self.set_out(job, job.policy.next_attempt_ms(self.now_ms, job.relative), job.relative + 1)

    def heartbeat(self, job: Job) -> None:
        expires_ms = self.now_ms + LEASE_MS
        if expires_ms - job.logged_ms >= LEASE_MS // 2:
            job.logged_ms = expires_ms
        else:
            job.renewed_ms = expires_ms

    def reopened(self) -> None:
        """What is in memory only is forgotten, and every lease gets a full one."""
        self.no_expiry_before_ms = self.now_ms + LEASE_MS
        for job in self.jobs.values():
            job.renewed_ms = 0

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

    def expedite(self, name: JobName, *, ready: bool) -> None:
        job = self.job(name, JobStatus.SCHEDULED)
        if ready or job.start_ms <= self.now_ms:
            raise Refused
        job.start_ms = self.now_ms

    def delete(self, name: JobName) -> None:
        if name in self.jobs and not self.jobs[name].status.is_terminal:
            raise Refused
        self.jobs.pop(name, None)

    def imported(self, name: JobName, outcomes: list[AttemptStatus], policy: Any) -> None:
        job = self.jobs.setdefault(name, Job(policy, 0, 0))
        job.outcomes, job.policy, job.cancelled = list(outcomes), policy, False
        last = outcomes[-1] if outcomes else None
        failures = outcomes.count(AttemptStatus.FAILED)
        if last is AttemptStatus.SUCCEEDED:
            self.end(job, JobStatus.SUCCEEDED)
        elif last is AttemptStatus.CANCELLED:
            self.end(job, JobStatus.CANCELLED)
        elif last and (policy is None or failures > policy.retry_count):
            self.end(job, JobStatus.FAILED)
        else:
            self.set_out(job, self.now_ms, len(outcomes) + 1)

    def due(self) -> None:
        for job in sorted(self.jobs.values(), key=lambda job: (job.logged_ms, job.task_id)):
            if job.status is JobStatus.RUNNING and job.logged_ms <= self.now_ms:
                job.logged_ms = max(job.logged_ms, job.renewed_ms, self.no_expiry_before_ms)
                if job.logged_ms <= self.now_ms:
                    self.report(job, AttemptStatus.CANCELLED if job.cancelled else AttemptStatus.FAILED)
        self.jobs = {
            name: job
            for name, job in self.jobs.items()
            if not job.status.is_terminal or job.forget_ms is None or job.forget_ms > self.now_ms
        }


class World:
    """A shard and its model, step by step."""

    def __init__(self, open_it: Any) -> None:
        self.clock = Clock()
        self.model = Model()
        self.open_it = open_it
        self.ids = Ids(random.Random(1).randbytes)
        self.shard: Shard

    async def open(self) -> None:
        options = ShardOptions(rules=RULES, checkpoint_interval_ms=3_600_000)
        self.shard = Shard("shard", self.open_it, options=options, now_ms=self.clock, ids=self.ids)
        await self.shard.open()
        self.model.now_ms = self.shard.now_ms()
        self.model.reopened()

    async def ask(self, decide: Any, command: Any) -> Any:
        """Ask the shard; a refusal is a reply too."""
        self.model.now_ms = self.shard.now_ms()
        try:
            return await self.shard.execute(decide, command)
        except Refused as refusal:
            return refusal

    def agree(self, reply: Any, expect: Any, *args: Any, **named: Any) -> None:
        """The model refuses just when the shard does."""
        try:
            expect(*args, **named)
        except Refused:
            assert isinstance(reply, Refused), f"the shard obeys, the model refuses: {expect.__name__} {args}"
        else:
            assert not isinstance(reply, Refused), reply

    async def step(self, kind: str, *about: Any) -> None:
        model = self.model
        match kind, about:
            case "enqueue", (name, delay_ms, priority, policy):
                start_ms = self.shard.now_ms() + delay_ms if delay_ms else 0
                job = a_job(
                    tenant=name.tenant,
                    job_id=name.job_id,
                    enqueue_time_ms=start_ms,
                    priority=priority,
                    retry_policy=policy,
                    metadata=(("name", name.job_id),),
                )
                self.agree(await self.ask(enqueue, job), model.enqueue, name, start_ms, priority, policy)
            case "lease", (count,):
                tasks = await self.ask(lease_tasks, for_worker(max_tasks=count))
                leased = [JobName(task.tenant, task.job_id) for task in tasks]
                assert leased == model.ready()[:count]
                for name, task in zip(leased, tasks, strict=True):
                    assert (task.attempt, task.relative_attempt) == self.numbers(name)
                    model.lease(name, task.task_id)
            case "lease one", (name,):
                task = await self.ask(lease_task, LeaseTask(job=name, worker_id="worker"))
                self.agree(task, model.job, name, JobStatus.SCHEDULED)
                if not isinstance(task, Refused):
                    assert (task.attempt, task.relative_attempt) == self.numbers(name)
                    model.lease(name, task.task_id)
            case "report", (name, outcome, size):
                await self.report(name, outcome, b"x" * size)
            case "heartbeat", (name,):
                job = model.jobs.get(name)
                reply = await self.ask(heartbeat, a_heartbeat(job.task_id if job else "none"))
                self.agree(reply, model.job, name, JobStatus.RUNNING)
                if not isinstance(reply, Refused):
                    assert (reply is not None) == job.cancelled
                    model.heartbeat(job)
            case "cancel", (name,):
                self.agree(await self.ask(cancel, name), model.cancel, name)
            case "restart", (name,):
                self.agree(await self.ask(restart, name), model.restart, name)
            case "expedite", (name,):
                job = self.model.jobs.get(name)
                due = job is not None and job.start_ms <= self.shard.now_ms()
                self.agree(await self.ask(expedite, name), model.expedite, name, ready=due)
            case "delete", (name,):
                self.agree(await self.ask(delete, name), model.delete, name)
            case "import", (name, new):
                await self.import_one(name, new)
            case "clock", (by_ms,):
                self.clock.now_ms += by_ms
            case "due", ():
                model.now_ms = self.shard.now_ms()
                await run_due(self.shard)
                model.due()
            case "checkpoint", ():
                await self.shard.checkpoint()
            case "reopen", ():
                await self.shard.close()
                await self.open()

    def numbers(self, name: JobName) -> tuple[int, int]:
        job = self.model.jobs[name]
        return len(job.outcomes) + 1, job.relative

    async def report(self, name: JobName, outcome: str, data: bytes) -> None:
        job = self.model.jobs.get(name)
        task_id = job.task_id if job else "none"
        command, status = {
            "success": (success(task_id, data), AttemptStatus.SUCCEEDED),
            "failure": (failure(task_id, error_data=data), AttemptStatus.FAILED),
            "cancelled": (cancelled(task_id), AttemptStatus.CANCELLED),
        }[outcome]
        reply = await self.ask(report_outcome, command)
        self.agree(reply, self.model.job, name, JobStatus.RUNNING)
        if not isinstance(reply, Refused):
            self.model.report(job, status)

    async def import_one(self, name: JobName, new: list[AttemptStatus]) -> None:
        """Import a job again with what is on record and something new, or for the first time."""
        policy = a_policy(retry_count=2)
        stored = []
        if name in self.model.jobs:
            seen = await self.ask(get_job, GetJob(name=name, include_attempts=True))
            stored = [
                an_attempt(
                    attempt.row.status,
                    started_ms=attempt.row.started_ms,
                    finished_ms=attempt.row.finished_ms or 0,
                    error_code=attempt.row.error_code or "",
                    data=attempt.data,
                )
                for attempt in seen.attempts
            ]
        job = an_import(*stored, *map(an_attempt, new), name=name, retry_policy=policy)
        reply = await self.ask(import_jobs, [job])
        known = self.model.jobs.get(name)
        if known is not None and known.status is JobStatus.RUNNING:
            assert isinstance(reply[0], NotImported)
            return
        told = [attempt.status for attempt in job.attempts]
        in_order = all(status is AttemptStatus.FAILED for status in new[:-1])
        possible = in_order and (known is None or (bool(new) and known.status is not JobStatus.SUCCEEDED))
        assert isinstance(reply[0], Imported) == possible, reply
        if possible:
            self.model.imported(name, told, policy)
            assert reply[0].status is self.model.jobs[name].status

    async def check(self) -> None:
        for name in NAMES:
            seen = await self.ask(get_job, GetJob(name=name, include_attempts=True))
            job = self.model.jobs.get(name)
            assert isinstance(seen, Refused) == (job is None)
            if job is not None:
                assert seen.row.status is job.status
                assert [attempt.row.status for attempt in seen.attempts] == job.outcomes
                assert (seen.row.cancelled_ms is not None) == job.cancelled
                assert seen.row.forget_ms == job.forget_ms


async def rows_of(reader: Any, table: Any) -> dict[Any, Any]:
    return {
        key_of(raw): table.decode(value) async for page in read_table(reader, table) for raw, value in page
    }


async def check_conservation(reader: Any) -> None:
    """Every live chain is in exactly one place, and nothing else is in any (I14)."""
    ready, timers, leases = [await rows_of(reader, table) for table in (READY, TIMERS, LEASES)]
    places = Counter(
        [(ref.tenant, ref.job_id, Place.READY) for ref in ready.values()]
        + [(ref.tenant, ref.job_id, Place.TIMER) for ref in timers.values()]
        + [(lease.tenant, lease.job_id, Place.LEASED) for lease in leases.values()]
    )
    jobs = await rows_of(reader, JOBS)
    expected = Counter((*key, row.chain.place) for key, row in jobs.items() if row.chain is not None)
    assert places == expected
    assert all(row.status.is_terminal == (row.chain is None) for row in jobs.values())
    assert all(
        (row.status is JobStatus.RUNNING) == (row.chain is not None and row.chain.place is Place.LEASED)
        for row in jobs.values()
    )
    assert {key[1] for key in await rows_of(reader, EXPIRIES)} == {key[0] for key in leases}
    forgotten = {(key[1], key[2]): key[0] for key in await rows_of(reader, FORGETTING)}
    assert forgotten == {key: row.forget_ms for key, row in jobs.items() if row.forget_ms is not None}
    counts = await rows_of(reader, COUNTS)
    for tenant in {key[0] for key in jobs} | {WHOLE_SHARD}:
        theirs = [row.status for key, row in jobs.items() if tenant in (key[0], WHOLE_SHARD)]
        assert (counts[(tenant,)].by_status if theirs else None) == (
            tuple(theirs.count(status) for status in JobStatus) if theirs else counts.get((tenant,))
        )


async def live_through(steps: list[Any], open_it: Any) -> None:
    world = World(open_it)
    await world.open()
    try:
        for step in steps:
            await world.step(*step)
        await world.check()
        # From the last checkpoint, wherever that was ...
        await world.step("reopen")
        await world.check()
        await world.shard.checkpoint()
        live = await world.shard.database.snapshot()
        # ... and from the first event.
        assert await verify(live, MemoryDatabase()) is None
        await check_conservation(live)
        live.release()
    finally:
        await world.shard.close()


histories = st.lists(STEPS, min_size=40, max_size=80)
quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=250, deadline=None, suppress_health_check=quiet)
@given(histories)
def test_rows_follow_from_the_log_and_replies_from_the_model(steps):
    run(live_through(steps, opens(MemoryDatabase())))


@settings(max_examples=10, deadline=None, suppress_health_check=quiet)
@given(histories)
def test_the_same_on_slatedb(steps):
    run(live_through(steps, opens_slate(StoreSpec.in_memory())))
