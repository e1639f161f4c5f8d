"""Clients and workers that keep a server busy and write down what it acknowledges.

They stop at the first call that is not answered, as that server is gone; whether such a call was carried out, nobody knows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import xxhash
from grpc import StatusCode
from grpc.aio import AioRpcError

from silo.pb import silo_pb2 as pb
from tests.crash.broker import WAIT_S, Broker, Client
from tests.crash.ledger import TERMINAL, Job, Ledger, Outcome, Task

TENANTS = [f"tenant-{letter}" for letter in "abcdefgh"]
"""In all three shards."""

GROUP = "load"
CLIENTS = 6
WORKERS = 4
CALLS_AT_ONCE = 100
NEXT_LOOK_S = 0.1


class Load:
    """Load on one server, drawn from `chance`; `ledger` is the record that outlives the server."""

    def __init__(self, client: Client, ledger: Ledger, chance: random.Random) -> None:
        self.client = client
        self.ledger = ledger
        self.chance = chance
        self.acknowledged = 0
        self.gone = asyncio.Event()
        self._reached: dict[int, asyncio.Event] = {}

    async def replies(self, more: int) -> None:
        """Wait until so many more calls have been acknowledged."""
        await self._reached.setdefault(self.acknowledged + more, asyncio.Event()).wait()

    async def run(self) -> None:
        """Until the server is gone."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._until_gone(self._one_client_s_call))
            for _ in range(WORKERS):
                group.create_task(self._until_gone(self._one_worker_s_round))

    async def _until_gone(self, work: Callable[[], Awaitable[None]]) -> None:
        while not self.gone.is_set():
            try:
                await work()
            except AioRpcError as error:
                if error.code() is not StatusCode.UNAVAILABLE:
                    raise
                self.gone.set()

    async def call(self, rpc: str, **fields: Any) -> Any:
        reply = await self.client.call(rpc, **fields)
        self._heard()
        return reply

    async def refusal(self, rpc: str, **fields: Any) -> str | None:
        """None if the call was obeyed, or why it was not."""
        try:
            await self.client.call(rpc, **fields)
        except AioRpcError as error:
            if error.code() is StatusCode.UNAVAILABLE:
                raise
            self._heard()
            return error.details()
        self._heard()
        return None

    def _heard(self) -> None:
        self.acknowledged += 1
        self.ledger.acknowledged += 1
        if self.acknowledged in self._reached:
            self._reached[self.acknowledged].set()

    # --- what they do ----------------------------------------------------------------------------------------------------

    async def _one_client_s_call(self) -> None:
        if self.chance.random() < 0.8 or not self.ledger.jobs:
            await self.enqueue()
        else:
            await self.cancel(self.chance.choice(list(self.ledger.jobs.values())))

    async def enqueue(self, tenant: str = "") -> Job:
        tenant = tenant or self.chance.choice(TENANTS)
        size = self.chance.choice([10, 200, 5_000])
        job = self.ledger.new_job(
            Job(
                tenant,
                f"job-{len(self.ledger.jobs)}",
                shard_of(self.client, tenant),
                self.chance.randbytes(size),
            )
        )
        policy = pb.RetryPolicy(retry_count=self.chance.choice([0, 2]), backoff_factor=1)
        await self.call(
            "Enqueue",
            shard=job.shard,
            tenant=tenant,
            id=job.id,
            task_group=GROUP,
            payload=pb.SerializedBytes(msgpack=job.payload),
            retry_policy=policy,
            priority=self.chance.randrange(100),
        )
        job.enqueued = True
        return job

    async def cancel(self, job: Job) -> None:
        asked_before, job.cancel_asked = job.cancel_asked, True
        refusal = await self.refusal("CancelJob", shard=job.shard, tenant=job.tenant, id=job.id)
        if refusal is None:
            job.cancelled = True
            return
        job.cancel_asked = asked_before
        if refusal == "job not found":
            assert not job.enqueued, f"{job} was acknowledged and is lost"
        elif refusal == "job is already cancelled":
            assert asked_before, f"{job} is cancelled, and nobody asked for it"
        else:
            assert refusal == "job is already in terminal state"

    async def _one_worker_s_round(self) -> None:
        for task in await self.lease(self.chance.randint(1, 8)):
            # Some are kept, to be reported to the next server.
            if self.chance.random() < 0.9:
                await self.report(task, self._an_outcome())

    async def lease(self, max_tasks: int) -> list[Task]:
        reply = await self.call("LeaseTasks", worker_id="w", task_group=GROUP, max_tasks=max_tasks)
        return [self.ledger.leased(task) for task in reply.tasks]

    def _an_outcome(self) -> Outcome:
        kind = self.chance.choices(["success", "failure", "cancelled"], [6, 3, 1])[0]
        return kind, b"" if kind == "cancelled" else self.chance.randbytes(20)

    async def report(self, task: Task, outcome: Outcome) -> None:
        """Report a task; one that was reported to a server that then died is reported once more, and the same."""
        asked_before = task.outcome is not None
        outcome = task.outcome = task.outcome or outcome
        kind, data = outcome
        wrapped = pb.SerializedBytes(msgpack=data)
        fields = {
            "success": {"success": wrapped},
            "failure": {"failure": pb.Failure(code="E", data=wrapped)},
            "cancelled": {"cancelled": pb.Cancelled()},
        }
        where = {"shard": task.shard, "tenant_id": task.tenant, "task_id": task.id}
        refusal = await self.refusal("ReportOutcome", **where, **fields[kind])
        if refusal is not None:
            assert refusal == "lease not found"
            assert asked_before, f"the lease of {task} is lost"
        task.acknowledged = True
        self.ledger.jobs[task.tenant, task.job_id].ended |= kind != "failure"

    # --- afterwards ------------------------------------------------------------------------------------------------------

    async def check(self) -> int:
        """Compare everything with the ledger.  Returns how many jobs there are."""
        answers = await self._look_at(list(self.ledger.jobs.values()))
        for job, answer in answers:
            self.ledger.check(job, answer)
        return sum(answer is not None for _, answer in answers)

    async def _look_at(self, jobs: list[Job]) -> list[tuple[Job, Any]]:
        """Jobs and what the server says of each."""
        answers: list[Any] = []
        for first in range(0, len(jobs), CALLS_AT_ONCE):
            piece = jobs[first : first + CALLS_AT_ONCE]
            answers += await asyncio.gather(*(self._get_job(job) for job in piece))
        return list(zip(jobs, answers, strict=True))

    async def _get_job(self, job: Job) -> Any:
        try:
            return await self.client.call(
                "GetJob", shard=job.shard, tenant=job.tenant, id=job.id, include_attempts=True
            )
        except AioRpcError as error:
            if error.details() != "job not found":
                raise
            return None

    async def report_open_tasks(self) -> None:
        """What was leased from the server before must still be good: a restart gives every lease its full time."""
        for task in self.ledger.open_tasks():
            await self.report(task, self._an_outcome())

    async def drain(self) -> None:
        """Do all the work that there is, that of lost leases included, until every job has ended."""
        left = list(self.ledger.jobs.values())
        for _ in range(round(WAIT_S / NEXT_LOOK_S)):
            while tasks := await self.lease(100):
                await asyncio.gather(*(self.report(task, ("success", task.id.encode())) for task in tasks))
            answers = await self._look_at(left)
            left = [job for job, answer in answers if answer is not None and answer.status not in TERMINAL]
            if not left:
                return
            await asyncio.sleep(NEXT_LOOK_S)
        raise AssertionError(f"{len(left)} jobs do not end: {left[0]}")


@asynccontextmanager
async def load_on(broker: Broker, ledger: Ledger, chance: random.Random) -> AsyncIterator[Load]:
    async with grpc.aio.insecure_channel(broker.address) as channel:
        client = Client(channel)
        await client.find_shards()
        yield Load(client, ledger, chance)


def shard_of(client: Client, tenant: str) -> str:
    place = xxhash.xxh64_hexdigest(tenant.encode())
    [owner] = [
        owner
        for owner in client.owners
        if owner.range_start <= place and (not owner.range_end or place < owner.range_end)
    ]
    return str(owner.shard_id)
