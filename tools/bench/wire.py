"""Producers and workers of a server, by the plain unary calls of silo.v1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from silo.domain.tenants import DEFAULT_TENANT, tenant_hash
from silo.pb import silo_pb2 as pb
from silo.pb.silo_pb2_grpc import SiloStub
from tools.bench.load import SLOTS_PER_CUSTOMER, TASK_GROUP, Done, all_of, measured, payload
from tools.bench.part import Say

TASKS_PER_CALL = 32
CALL_TIMEOUT_S = 60.0


class Client:
    """Calls one server about one shard of it.

    Args:
        customers: each job has a concurrency limit for one of so many, by turns; 0: none has a limit.
    """

    def __init__(self, channel: grpc.aio.Channel, customers: int) -> None:
        self._stub = SiloStub(channel)
        self._customers = customers
        self.shard = ""

    async def find_shard(self) -> None:
        """Wait until the server answers, and learn which shard is that of callers without a tenant."""
        info = await self._stub.GetClusterInfo(
            pb.GetClusterInfoRequest(), wait_for_ready=True, timeout=CALL_TIMEOUT_S
        )
        place = tenant_hash(DEFAULT_TENANT)
        self.shard = next(
            owner.shard_id
            for owner in info.shard_owners
            if owner.range_start <= place and (not owner.range_end or place < owner.range_end)
        )

    async def enqueue(self, number: int) -> str:
        job = pb.EnqueueRequest(
            shard=self.shard,
            priority=50,
            task_group=TASK_GROUP,
            payload=pb.SerializedBytes(msgpack=payload(number)),
        )
        if self._customers:
            job.limits.add().concurrency.CopyFrom(
                pb.ConcurrencyLimit(
                    key=f"customer-{number % self._customers}", max_concurrency=SLOTS_PER_CUSTOMER
                )
            )
        return str((await self._stub.Enqueue(job, timeout=CALL_TIMEOUT_S)).id)

    async def lease(self, worker: str, tasks: int) -> list[pb.Task]:
        asked = pb.LeaseTasksRequest(
            shard=self.shard, worker_id=worker, max_tasks=tasks, task_group=TASK_GROUP
        )
        return list((await self._stub.LeaseTasks(asked, timeout=CALL_TIMEOUT_S)).tasks)

    async def report(self, task: pb.Task) -> None:
        success = pb.SerializedBytes(msgpack=b"\xa2ok")
        report = pb.ReportOutcomeRequest(shard=self.shard, task_id=task.id, success=success)
        await self._stub.ReportOutcome(report, timeout=CALL_TIMEOUT_S)


@asynccontextmanager
async def connected(address: str, *, customers: int = 0) -> AsyncIterator[Client]:
    """A client of the server at this address, once that answers."""
    async with grpc.aio.insecure_channel(address) as channel:
        client = Client(channel, customers)
        await client.find_shard()
        yield client


async def life_cycle(client: Client, say: Say, *, jobs: int, tasks: int) -> Done:
    """Enqueue, lease and report jobs at the same time, by so many producers and as many workers."""
    to_enqueue = jobs
    enqueued = leased = 0
    more = asyncio.Event()

    async def produce() -> None:
        nonlocal to_enqueue, enqueued
        while to_enqueue:
            to_enqueue -= 1
            await client.enqueue(to_enqueue)
            enqueued += 1
            more.set()

    async def consume(worker: str) -> None:
        nonlocal leased
        while leased < jobs:
            # One call for what is there, by one worker: many that ask for the same few jobs would get nothing.
            if leased >= enqueued:
                more.clear()
                await more.wait()
                continue
            wanted = min(enqueued - leased, TASKS_PER_CALL)
            leased += wanted
            found = await client.lease(worker, wanted)
            leased -= wanted - len(found)
            for task in found:
                await client.report(task)
                done.jobs += 1
        more.set()

    async with measured(say, jobs) as done:
        await all_of(
            [produce() for _ in range(tasks)] + [consume(f"worker-{number}") for number in range(tasks)]
        )
    return done


async def drain(client: Client, say: Say, *, jobs: int, tasks: int) -> Done:
    """Lease and report so many of the jobs that wait, by so many workers."""
    left = jobs

    async def consume(worker: str) -> None:
        nonlocal left
        while left > 0:
            wanted = min(left, TASKS_PER_CALL)
            left -= wanted
            found = await client.lease(worker, wanted)
            left += wanted - len(found)
            for task in found:
                await client.report(task)
                done.jobs += 1

    async with measured(say, jobs) as done:
        await all_of([consume(f"worker-{number}") for number in range(tasks)])
    return done
