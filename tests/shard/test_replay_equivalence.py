"""Whatever was asked of a shard, in whatever order, across whatever reopenings: its rows are those that the log gives.

Random histories run on a real shard, beside a model that is a dictionary of jobs.  At the end

- the rows on disk are byte for byte those of a rebuild from the first event,
- a replay from the last checkpoint gives the same,
- the model agrees on every reply and on every job,
- everything adds up (I14).
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.broker.erasures import carry_out
from silo.broker.timers import run_due
from silo.domain.ids import Ids
from silo.domain.jobs import AttemptStatus, JobStatus
from silo.domain.limits import Limit, RateLimit, RateLimitRetry
from silo.errors import Refused
from silo.projections.jobs import JobRow
from silo.shard.cancel import cancel
from silo.shard.conservation import check_conservation
from silo.shard.delete import delete
from silo.shard.draft import SYSTEM, Rules
from silo.shard.enqueue import enqueue
from silo.shard.erase import erase, erase_tenant, next_erasures
from silo.shard.expedite import expedite
from silo.shard.holders import drop_tenant_holders
from silo.shard.import_jobs import Imported, NotImported, import_jobs
from silo.shard.jobs import JobName
from silo.shard.lease import LeaseTask, heartbeat, lease_task
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job
from silo.shard.refresh import NotRefreshed, Refreshed, ReportRefresh, lease_work, report_refresh
from silo.shard.replay import verify
from silo.shard.restart import restart
from silo.shard.shard import Shard, ShardOptions
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.archive.makers import Here
from tests.builders import (
    NOW,
    a_floating_limit,
    a_heartbeat,
    a_job,
    a_limit,
    a_policy,
    a_rate_limit,
    an_attempt,
    an_import,
    cancelled,
    failure,
    for_worker,
    success,
)
from tests.model import Model
from tests.serving import Clock, opens, opens_slate, run

RULES = Rules(priority_weight_ms=1_000, completed_expire_ms=20_000, terminal_expire_ms=40_000)
POLICIES = [None, a_policy(retry_count=1), a_policy(retry_count=3, max_interval_ms=0)]
NAMES = [JobName(tenant, job_id) for tenant, job_ids in (("a", "vwxyz"), ("b", "xyz")) for job_id in job_ids]
LIMITS = [
    *(a_limit(maximum, key) for key in "pq" for maximum in (0, 1, 1, 2)),
    *(a_floating_limit(default, "f", refresh_interval_ms=5_000) for default in (0, 1)),
    *(
        a_rate_limit(
            limit, duration_ms=4_000, retry=RateLimitRetry(max_retries=retries, max_backoff_ms=3_000)
        )
        for limit in (1, 2)
        for retries in (0, 2)
    ),
]


def asks_for(limit: Limit) -> object:
    """What a job may ask for once."""
    return limit if isinstance(limit, RateLimit) else limit.key


names = st.sampled_from(NAMES)
limits = st.lists(st.sampled_from(LIMITS), max_size=3, unique_by=asks_for).map(tuple)
REPORT = st.tuples(
    st.just("report"),
    names,
    st.sampled_from(["failure", "failure", "success", "cancelled"]),
    st.sampled_from([0, 600]),
)
LEASE = st.tuples(st.just("lease"), st.integers(1, 3))
ENQUEUE = st.tuples(
    st.just("enqueue"),
    names,
    st.sampled_from([0, 0, 3_000]),
    st.integers(0, 5),
    st.sampled_from(POLICIES),
    limits,
)
# Many jobs of one tenant, few slots, and retries at once: whatever ends here makes room for somebody.
CROWDED = st.one_of(
    st.tuples(
        st.just("enqueue"),
        names,
        st.just(0),
        st.integers(0, 2),
        st.just(POLICIES[2]),
        st.sampled_from(
            [(a_limit(1, "p"),), (a_limit(2, "p"), a_limit(1, "q")), (a_limit(1, "q"), a_limit(1, "p"))]
        ),
    ),
    LEASE,
    REPORT,
    st.tuples(st.sampled_from(["cancel", "restart"]), names),
    st.tuples(st.just("drop holders"), st.sampled_from("ab")),
    st.tuples(st.just("clock"), st.sampled_from([0, 1, 11_000])),
    st.tuples(st.just("due")),
)
STEPS = st.one_of(
    REPORT,
    LEASE,
    ENQUEUE,
    LEASE,
    ENQUEUE,
    st.tuples(st.just("lease one"), names),
    st.tuples(
        st.just("report"),
        names,
        st.sampled_from(["success", "failure", "cancelled"]),
        st.sampled_from([0, 600]),
    ),
    st.tuples(st.just("heartbeat"), names),
    st.tuples(st.sampled_from(["cancel", "restart", "restart", "expedite", "delete"]), names),
    st.tuples(
        st.just("import"), names, st.lists(st.sampled_from(list(AttemptStatus)[1:]), max_size=2), limits
    ),
    st.tuples(st.just("refresh"), st.sampled_from([None, 0, 1, 2, "heartbeat"])),
    st.tuples(st.just("drop holders"), st.sampled_from("ab")),
    st.tuples(st.just("erase"), names),
    st.tuples(st.just("erase tenant"), st.sampled_from("ab")),
    st.tuples(st.just("carry out erasures")),
    st.tuples(st.just("clock"), st.sampled_from([1, 1_000, 4_000, 11_000, 60_000, -5_000])),
    st.tuples(st.just("due")),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("reopen")),
)


class World:
    """A shard and its model, step by step."""

    def __init__(self, open_it: Any) -> None:
        self.clock = Clock()
        self.model = Model(RULES, NOW)
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

    async def agree(self, decide: Any, command: Any, expect: Any, *args: Any) -> Any:
        """The shard refuses just when the model does.  Returns its reply."""
        reply = await self.ask(decide, command)
        try:
            self.model.command(expect, *args)
        except Refused:
            assert isinstance(reply, Refused), f"the shard obeys, the model refuses: {expect.__name__} {args}"
        else:
            assert not isinstance(reply, Refused), reply
        return reply

    async def step(self, kind: str, *about: Any) -> None:
        model = self.model
        match kind, about:
            case "enqueue", (name, delay_ms, priority, policy, limits):
                start_ms = self.shard.now_ms() + delay_ms if delay_ms else 0
                job = a_job(
                    tenant=name.tenant,
                    job_id=name.job_id,
                    enqueue_time_ms=start_ms,
                    priority=priority,
                    retry_policy=policy,
                    metadata=(("name", name.job_id),),
                    limits=limits,
                )
                await self.agree(enqueue, job, model.enqueue, name, start_ms, priority, policy, limits)
            case "lease", (count,):
                await self.lease(count)
            case "lease one", (name,):
                task = await self.ask(lease_task, LeaseTask(job=name, worker_id="worker"))
                numbers = self.numbers(name)
                try:
                    model.command(model.lease_one, name, getattr(task, "task_id", ""))
                except Refused:
                    assert isinstance(task, Refused)
                else:
                    assert (task.attempt, task.relative_attempt) == numbers
            case "report", (name, outcome, size):
                await self.report(name, outcome, b"x" * size)
            case "heartbeat", (name,):
                job = model.jobs.get(name)
                reply = await self.ask(heartbeat, a_heartbeat(job.task_id if job else "none"))
                runs = job is not None and job.status is JobStatus.RUNNING
                assert runs == (not isinstance(reply, Refused))
                if runs:
                    assert (reply is not None) == job.cancelled
                    model.heartbeat(job)
            case "cancel", (name,):
                await self.agree(cancel, name, model.cancel, name)
            case "restart", (name,):
                await self.agree(restart, name, model.restart, name)
            case "expedite", (name,):
                await self.agree(expedite, name, model.expedite, name)
            case "delete", (name,):
                await self.agree(delete, name, model.delete, name)
            case "import", (name, new, limits):
                await self.import_one(name, new, limits)
            case "refresh", (outcome,):
                await self.refresh(outcome)
            case "drop holders", (tenant,):
                for name, row in (await self.jobs()).items():
                    if row.chain is not None:
                        model.jobs[name].task_id = row.chain.task_id
                model.now_ms = self.shard.now_ms()
                dropped = await drop_tenant_holders(self.shard, tenant, SYSTEM)
                assert dropped == model.command(model.drop_holders, tenant)
            case "erase", (name,):
                await self.agree(erase, name, model.erase, name)
            case "erase tenant", (tenant,):
                await self.agree(erase_tenant, tenant, model.erase_tenant, tenant)
            case "carry out erasures", ():
                while erasures := await self.shard.execute(next_erasures, 10):
                    await carry_out(self.shard, erasures, maker=Here())
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
        job = self.model.jobs.get(name)
        return (len(job.outcomes) + 1, job.relative) if job else (0, 0)

    async def lease(self, count: int) -> None:
        """A worker asks for tasks and refreshes."""
        model = self.model
        work = await self.ask(lease_work, for_worker(max_tasks=count))
        model.wake()
        leased = [JobName(task.tenant, task.job_id) for task in work.tasks]
        assert leased == model.ready()[:count]
        for name, task in zip(leased, work.tasks, strict=True):
            assert (task.attempt, task.relative_attempt) == self.numbers(name)
            model.lease(name, task.task_id)
        refreshes = [(refresh.tenant, refresh.queue) for refresh in work.refreshes]
        assert refreshes == model.scheduled_refreshes()[:count]
        for refresh in work.refreshes:
            assert refresh.maximum == model.floating[refresh.tenant, refresh.queue].maximum
            model.lease_refresh((refresh.tenant, refresh.queue), refresh.task_id)
        model.settle()

    async def refresh(self, outcome: int | str | None) -> None:
        """A worker reports the first refresh that is leased, or sends its heartbeat."""
        leased = [queue for queue, floating in self.model.floating.items() if floating.refresh == "leased"]
        if not leased:
            return
        floating = self.model.floating[leased[0]]
        if outcome == "heartbeat":
            assert await self.ask(heartbeat, a_heartbeat(floating.task_id)) is None
            self.model.heartbeat(floating)
        else:
            told = NotRefreshed("E", "message") if outcome is None else Refreshed(outcome)
            report = ReportRefresh(floating.task_id, told)
            await self.agree(report_refresh, report, self.model.refreshed, leased[0], outcome)

    async def report(self, name: JobName, outcome: str, data: bytes) -> None:
        job = self.model.jobs.get(name)
        task_id = job.task_id if job else "none"
        command, status = {
            "success": (success(task_id, data), AttemptStatus.SUCCEEDED),
            "failure": (failure(task_id, error_data=data), AttemptStatus.FAILED),
            "cancelled": (cancelled(task_id), AttemptStatus.CANCELLED),
        }[outcome]
        await self.agree(report_outcome, command, self.model.report, name, status)

    async def import_one(self, name: JobName, new: list[AttemptStatus], limits: tuple[Limit, ...]) -> None:
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
        job = an_import(*stored, *map(an_attempt, new), name=name, retry_policy=policy, limits=limits)
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
            status = self.model.imported(name, told, policy, limits)
            assert reply[0].status is status
            self.model.settle()

    async def jobs(self) -> dict[JobName, JobRow]:
        """The rows of all jobs that there are."""
        found = {}
        for name in NAMES:
            seen = await self.ask(get_job, GetJob(name=name, include_attempts=False))
            if not isinstance(seen, Refused):
                found[name] = seen.row
        return found

    async def check_step(self) -> None:
        """Chains are where the model has them, and hold what it says."""
        self.model.check_laws()
        rows = await self.jobs()
        assert rows.keys() == self.model.jobs.keys()
        for name, row in rows.items():
            job, chain = self.model.jobs[name], row.chain
            assert row.status is job.status
            assert (chain.place.name.lower() if chain else "") == job.place
            if chain is not None:
                held = [queue for queue, _ in chain.held]
                assert (chain.gate, held) == (job.gate, [queue for _, queue in job.held])

    async def check(self) -> None:
        for name in NAMES:
            seen = await self.ask(get_job, GetJob(name=name, include_attempts=True))
            job = self.model.jobs.get(name)
            assert isinstance(seen, Refused) == (job is None)
            if job is not None:
                assert [attempt.row.status for attempt in seen.attempts] == job.outcomes
                assert (seen.row.cancelled_ms is not None) == job.cancelled
                assert (seen.row.forget_ms, seen.row.error_code) == (job.forget_ms, job.error_code)


async def live_through(steps: list[Any], open_it: Any) -> None:
    world = World(open_it)
    await world.open()
    try:
        for step in steps:
            await world.step(*step)
            await world.check_step()
        await world.check()
        # From the last checkpoint, wherever that was ...
        await world.step("reopen")
        await world.check()
        await world.shard.checkpoint()
        live = await world.shard.database.snapshot()
        # ... and from the first event.
        assert await verify(live, MemoryDatabase()) is None
        assert await check_conservation(live) == []
        live.release()
    finally:
        await world.shard.close()


histories = st.one_of(st.lists(steps, min_size=40, max_size=80) for steps in (STEPS, CROWDED))
quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=250, deadline=None, suppress_health_check=quiet)
@given(histories)
def test_rows_follow_from_the_log_and_replies_from_the_model(steps):
    # A6, A24, A87, A88, A90
    run(live_through(steps, opens(MemoryDatabase())))


@settings(max_examples=10, deadline=None, suppress_health_check=quiet)
@given(histories)
def test_the_same_on_slatedb(steps):
    # A24, A87, A88
    run(live_through(steps, opens_slate(StoreSpec.in_memory())))
