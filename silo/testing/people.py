"""Those who use the brokers: clients with work to be done, and workers who do it.

They speak silo.v1 and nothing else, and try again as well-behaved ones do: a call that ended without an answer is made again
until there is one.  What they are told goes to the oracle at once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
import grpc
from google.protobuf.message import Message

from silo.domain.jobs import LEASE_MS
from silo.domain.limits import ConcurrencyLimit, FloatingLimit, Limit, RateLimit
from silo.events.packing import to_bytes
from silo.pb import silo_pb2 as pb
from silo.server.convert import ALGORITHMS
from silo.server.interceptors import INTERNAL_ERROR
from silo.testing.network import CallRefused, Network
from silo.testing.oracle import Broken, Oracle
from silo.testing.plan import Ask, DropHolders, Enqueue, Import, Step

CALL_TIMEOUT_S = 15.0
SERVICE = "/silo.v1.Silo/"
HEARTBEAT_S = LEASE_MS / 1000 / 3

REPLIES: dict[str, type[Message]] = {
    method.name: getattr(pb, method.output_type.name)
    for method in pb.DESCRIPTOR.services_by_name["Silo"].methods
}


@attrs.frozen
class Place:
    """A shard as its users know it, and the oracle that watches it."""

    shard: str
    oracle: Oracle


@attrs.define
class Line:
    """How one process reaches the brokers.

    Attributes:
        address: which broker calls go to now.
    """

    name: str
    network: Network
    chance: random.Random
    address: Callable[[], str]

    async def call(self, method: str, request: Any) -> Any:
        """One call.  Raises CallRefused."""
        return await self.network.call(
            self.name, self.address(), SERVICE + method, request, REPLIES[method], timeout_s=CALL_TIMEOUT_S
        )

    async def insist(self, method: str, request: Any) -> tuple[Any, bool]:
        """Call until there is an answer.

        Returns the reply, and whether an earlier try may have been carried out.  Raises CallRefused for a refusal that says
        so; its `args` end with the same.
        """
        uncertain = False
        for tries in range(10_000):
            try:
                return await self.call(method, request), uncertain
            except CallRefused as refusal:
                refuse_bugs(method, refusal)
                if not refusal.is_uncertain:
                    refusal.args = (*refusal.args, uncertain)
                    raise
                uncertain = True
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * min(0.05 * 2**tries, 2.0))
        raise Broken("liveness", f"{self.name} gets no answer to {method}")


def refuse_bugs(method: str, refusal: CallRefused) -> None:
    """Raise Broken if a call met a bug of the server."""
    if refusal.details == INTERNAL_ERROR:
        raise Broken("no bugs", f"{method} was answered by {refusal}") from refusal


# --- clients -------------------------------------------------------------------------------------------------------------


class Client:
    """Carries out the steps of a plan that are a client's.

    Args:
        place_of: where a tenant's jobs are.
        wall_ms: the client's clock, in epoch ms.
    """

    def __init__(self, line: Line, place_of: Callable[[str], Place], wall_ms: Callable[[], int]) -> None:
        self._line = line
        self._place_of = place_of
        self._wall_ms = wall_ms

    async def take(self, step: Step) -> None:
        """Make the calls that a step is about, and tell the oracle what was said."""
        match step:
            case Enqueue():
                await self._enqueue(step)
            case Ask():
                await self._ask(step)
            case Import():
                await self._import(step)
            case DropHolders():
                shard = self._place_of(step.tenant).shard
                request = pb.DropTenantHoldersRequest(shard=shard, tenant=step.tenant)
                await self._line.insist("DropTenantHolders", request)
            case _:
                raise TypeError(f"{step} is no client's")

    async def _enqueue(self, step: Enqueue) -> None:
        tenant, job_id = step.name
        place = self._place_of(tenant)
        request = pb.EnqueueRequest(
            shard=place.shard,
            tenant=tenant,
            id=job_id,
            priority=step.priority,
            task_group=step.task_group,
            start_at_ms=self._wall_ms() + round(step.start_in_s * 1000) if step.start_in_s else 0,
            payload=pb.SerializedBytes(msgpack=to_bytes(bytes(step.payload_bytes))),
            limits=map(wire_limit, step.limits),
            metadata=dict(step.metadata),
        )
        if step.retries:
            request.retry_policy.CopyFrom(
                pb.RetryPolicy(
                    retry_count=step.retries,
                    initial_interval_ms=step.backoff_ms,
                    max_interval_ms=8 * step.backoff_ms,
                    backoff_factor=2.0,
                )
            )
        try:
            await self._line.insist("Enqueue", request)
        except CallRefused as refusal:
            # The try before that got no answer was carried out; or somebody has deleted and enqueued it since.
            if refusal.code is not grpc.StatusCode.ALREADY_EXISTS:
                raise Broken("no refusal", f"{step} was answered by {refusal}") from refusal
        place.oracle.told_enqueued(step.name)

    async def _ask(self, step: Ask) -> None:
        tenant, job_id = step.name
        place = self._place_of(tenant)
        kind: Any = getattr(pb, f"{step.method}Request")
        request = kind(shard=place.shard, tenant=tenant, id=job_id)
        was_there = step.name in place.oracle.jobs
        if step.method == "LeaseTask":
            request.worker_id = self._line.name
        try:
            await self._line.insist(step.method, request)
        except CallRefused:
            # A job that is not there, or whose state rules it out: that is an answer as well.
            return
        place.oracle.told_asked(step.method, step.name, was_there=was_there)

    async def _import(self, step: Import) -> None:
        tenant, job_id = step.name
        place = self._place_of(tenant)
        # The history must be the same in each try, as it is compared with what is there.
        then_ms = self._wall_ms() - 60_000
        job = pb.ImportJobRequest(
            shard=place.shard,
            tenant=tenant,
            id=job_id,
            priority=50,
            task_group="work",
            enqueue_time_ms=then_ms,
            payload=pb.SerializedBytes(msgpack=to_bytes(None)),
            limits=map(wire_limit, step.limits),
            retry_policy=pb.RetryPolicy(
                retry_count=step.failed + 1, initial_interval_ms=100, max_interval_ms=100, backoff_factor=1.0
            ),
            attempts=[
                pb.ImportAttempt(
                    status=pb.ATTEMPT_STATUS_FAILED,
                    started_at_ms=then_ms + number,
                    finished_at_ms=then_ms + number + 1,
                    error_code="BEFORE",
                    error_data=pb.SerializedBytes(msgpack=to_bytes(number)),
                )
                for number in range(step.failed)
            ],
        )
        try:
            reply, _ = await self._line.insist("ImportJobs", pb.ImportJobsRequest(jobs=[job]))
        except CallRefused:
            # The job is running.
            return
        # Refused as well if it has ended, or is further than that: an answer, too.
        if reply.results[0].success:
            place.oracle.told_enqueued(step.name)


def wire_limit(limit: Limit) -> pb.Limit:
    """A limit as a client states it."""
    if isinstance(limit, ConcurrencyLimit):
        return pb.Limit(concurrency=pb.ConcurrencyLimit(key=limit.key, max_concurrency=limit.max_concurrency))
    if isinstance(limit, FloatingLimit):
        return pb.Limit(
            floating_concurrency=pb.FloatingConcurrencyLimit(
                key=limit.key,
                default_max_concurrency=limit.default_max_concurrency,
                refresh_interval_ms=limit.refresh_interval_ms,
                metadata=dict(limit.metadata),
            )
        )
    assert isinstance(limit, RateLimit)
    return pb.Limit(
        rate_limit=pb.GubernatorRateLimit(
            name=limit.name,
            unique_key=limit.unique_key,
            limit=limit.limit,
            duration_ms=limit.duration_ms,
            hits=limit.hits,
            algorithm=ALGORITHMS[limit.algorithm],
            behavior=int(limit.behavior),
            retry_policy=pb.RateLimitRetryPolicy(
                initial_backoff_ms=limit.retry.initial_backoff_ms,
                max_backoff_ms=limit.retry.max_backoff_ms,
                backoff_multiplier=limit.retry.backoff_multiplier,
                max_retries=limit.retry.max_retries,
            ),
        )
    )


# --- workers -------------------------------------------------------------------------------------------------------------


@attrs.define
class Habits:
    """How workers behave.  All workers share one of these, and it may change at any time.

    Attributes:
        count: how many there are.
        task_groups: what each of them asks for, in turns.
        tasks: how many tasks each leases at once.
        run_s: how long an attempt takes, between these two.
        poll_s: how long a worker that got nothing waits.
        fail: chance that an attempt fails.
        vanish: that its worker is silent from the moment in which it has it.
        linger: that the worker stops to send heartbeats, and reports long after its lease.
        maxima: what is found out of a floating limit; None for a failure.
    """

    count: int = 4
    task_groups: Sequence[str] = ("work",)
    tasks: int = 4
    run_s: tuple[float, float] = (0.05, 1.5)
    poll_s: tuple[float, float] = (0.3, 1.0)
    fail: float = 0.1
    vanish: float = 0.0
    linger: float = 0.0
    maxima: Sequence[int | None] = (1, 2, 3)

    def calm(self) -> None:
        """From now on everybody does as they should."""
        self.fail = self.vanish = self.linger = 0.0
        self.run_s = (0.01, 0.2)
        self.maxima = [maximum for maximum in self.maxima if maximum] or [1]


class Worker:
    """Leases tasks, does them, and reports."""

    def __init__(
        self,
        line: Line,
        place: Place,
        habits: Habits,
        task_group: str,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        seen: Counter[str],
    ) -> None:
        self._line = line
        self._place = place
        self._habits = habits
        self._task_group = task_group
        self._start = start
        self._seen = seen

    async def run(self) -> None:
        """Work without end."""
        line, habits = self._line, self._habits
        while True:
            request = pb.LeaseTasksRequest(
                shard=self._place.shard,
                worker_id=line.name,
                max_tasks=habits.tasks,
                task_group=self._task_group,
            )
            try:
                leased = await line.call("LeaseTasks", request)
            except CallRefused as refusal:
                refuse_bugs("LeaseTasks", refusal)
                await asyncio.sleep(line.chance.uniform(0.1, 1.0))
                continue
            for task in leased.tasks:
                self._place.oracle.told_leased(
                    task.id, (task.tenant_id, task.job_id), task.attempt_number, line.name
                )
            works = [self._start(self._do(task)) for task in leased.tasks]
            works += [self._start(self._find_out(task)) for task in leased.refresh_tasks]
            if works:
                await asyncio.wait(works)
            else:
                await asyncio.sleep(line.chance.uniform(*habits.poll_s))

    async def _do(self, task: pb.Task) -> None:
        line, habits, chance = self._line, self._habits, self._line.chance
        if chance.random() < habits.vanish:
            self._seen["worker vanished"] += 1
            return
        lingers = chance.random() < habits.linger
        if lingers:
            self._seen["worker lingered"] += 1
            await asyncio.sleep(LEASE_MS / 1000 * chance.uniform(1.1, 2.5))
            cancelled = False
        else:
            cancelled = await self._run(task, chance.uniform(*habits.run_s))
        request = pb.ReportOutcomeRequest(shard=self._place.shard, task_id=task.id, tenant_id=task.tenant_id)
        if cancelled:
            request.cancelled.SetInParent()
            outcome = "AttemptCancelled"
        elif chance.random() < habits.fail:
            request.failure.CopyFrom(pb.Failure(code="E", data=pb.SerializedBytes(msgpack=b"\xa1e")))
            outcome = "AttemptFailed"
        else:
            request.success.CopyFrom(pb.SerializedBytes(msgpack=b"\xa2ok"))
            outcome = "AttemptSucceeded"
        try:
            await line.insist("ReportOutcome", request)
        except CallRefused as refusal:
            # The lease is gone: by expiry, or by the try before, which got no answer.
            if refusal.code is not grpc.StatusCode.NOT_FOUND:
                raise Broken("no refusal", f"{outcome} of {task.id} was answered by {refusal}") from refusal
            return
        self._place.oracle.told_reported(task.id, outcome)

    async def _run(self, task: pb.Task, takes_s: float) -> bool:
        """Spend the time of an attempt, with heartbeats.  Returns whether it was cancelled meanwhile."""
        line = self._line
        while takes_s > HEARTBEAT_S:
            await asyncio.sleep(HEARTBEAT_S)
            takes_s -= HEARTBEAT_S
            request = pb.HeartbeatRequest(
                shard=self._place.shard, task_id=task.id, worker_id=line.name, tenant_id=task.tenant_id
            )
            try:
                if (await line.call("Heartbeat", request)).cancelled:
                    return True
            except CallRefused:
                # Perhaps the lease is lost; the report will tell.
                continue
        await asyncio.sleep(takes_s)
        return False

    async def _find_out(self, task: pb.RefreshFloatingLimitTask) -> None:
        line, habits, chance = self._line, self._habits, self._line.chance
        if chance.random() < habits.vanish:
            self._seen["worker vanished"] += 1
            return
        await asyncio.sleep(chance.uniform(0.01, 0.5))
        request = pb.ReportRefreshOutcomeRequest(
            shard=self._place.shard, task_id=task.id, tenant_id=task.tenant_id
        )
        maximum = chance.choice(habits.maxima)
        if maximum is None:
            request.failure.CopyFrom(pb.RefreshFailure(code="E", message="nobody knows"))
        else:
            request.success.CopyFrom(pb.RefreshSuccess(new_max_concurrency=maximum))
        try:
            await line.insist("ReportRefreshOutcome", request)
        except CallRefused as refusal:
            if refusal.code is not grpc.StatusCode.NOT_FOUND:
                raise Broken("no refusal", f"refresh {task.id} was answered by {refusal}") from refusal
            return
        self._place.oracle.told_refreshed(task.id)
