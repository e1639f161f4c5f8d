"""Row `batch`: a real server, and a client in a second process that makes calls with many items each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc.aio

from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.pb.silo_ext_pb2_grpc import BatchesStub
from silo.pb.silo_pb2_grpc import SiloStub
from tools.bench import wire
from tools.bench.bench import Bench
from tools.bench.home import served
from tools.bench.load import TASK_GROUP, Done, all_of, measured, payload
from tools.bench.part import Found, Say
from tools.bench.probes import memory_mb, processor_s
from tools.bench.report import Figure, Target

ITEMS = 250
CALLS = 8
"""Producers, and workers."""

WARM_UP_JOBS = 4 * ITEMS
TIMEOUT_S = 60.0


def figures(bench: Bench) -> Iterator[Figure]:
    row = "batches over gRPC, fsync on"
    jobs = max(bench.sizes.jobs // ITEMS, 8) * ITEMS
    with bench.directory() as directory:
        found = bench.part(row, life_cycle, directory=directory, jobs=jobs)
    with bench.directory() as directory:
        alone = bench.part(f"{row}, enqueue, then drain", one_after_the_other, directory=directory, jobs=jobs)
    note = f"{ITEMS} items a call, {CALLS} calls at once"
    for name, value, target in (
        ("life cycle", found["per_second"], 6_000),
        ("enqueue alone", alone["enqueue"], 25_000),
        ("drain alone", alone["drain"], 10_000),
    ):
        yield Figure(
            row=row, name=name, value=value, unit="jobs/s", target=Target(target), fsync=True, note=note
        )
    yield Figure(row=row, name="server", value=found["server_us"], unit="us/job", fsync=True)
    yield Figure(row=row, name="client", value=found["client_us"], unit="us/job", fsync=True)
    yield Figure(row=row, name="server's memory", value=found["memory_mb"], unit="MB", fsync=True)


# --- parts ---------------------------------------------------------------------------------------------------------------


async def life_cycle(say: Say, *, directory: str, jobs: int) -> Found:
    async with served(directory, fsync=True) as server, connected(server.address) as client:
        await client.live(say, jobs=WARM_UP_JOBS)
        began_s = processor_s(server.pid)
        done = await client.live(say, jobs=jobs)
        return {
            "per_second": done.per_second,
            "server_us": (processor_s(server.pid) - began_s) / jobs * 1e6,
            "client_us": done.main_us,
            "memory_mb": memory_mb(server.pid)[0],
        }


async def one_after_the_other(say: Say, *, directory: str, jobs: int) -> Found:
    async with served(directory, fsync=True) as server, connected(server.address) as client:
        await client.live(say, jobs=WARM_UP_JOBS)
        enqueued = await client.enqueue_all(say, jobs=jobs)
        drained = await client.drain(say, jobs=jobs)
        return {"enqueue": enqueued.per_second, "drain": drained.per_second}


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Client]:
    async with wire.connected(address) as plain, grpc.aio.insecure_channel(address) as channel:
        yield Client(channel, plain.shard)


class Client:
    """Calls one shard of one server."""

    def __init__(self, channel: grpc.aio.Channel, shard: str) -> None:
        self._batches = BatchesStub(channel)
        self._silo = SiloStub(channel)
        self._shard = shard

    async def _enqueue(self, first: int) -> None:
        jobs = [
            pb.EnqueueRequest(
                priority=50,
                task_group=TASK_GROUP,
                payload=pb.SerializedBytes(msgpack=payload(first + number)),
            )
            for number in range(ITEMS)
        ]
        request = ext.EnqueueBatchRequest(shard=self._shard, jobs=jobs)
        reply = await self._batches.EnqueueBatch(request, timeout=TIMEOUT_S)
        assert all(result.id for result in reply.results)

    async def _finish(self, worker: str) -> int:
        """Lease and report what is there, up to a batch.  Returns how many that were."""
        asked = pb.LeaseTasksRequest(
            shard=self._shard, worker_id=worker, max_tasks=ITEMS, task_group=TASK_GROUP
        )
        tasks = (await self._silo.LeaseTasks(asked, timeout=TIMEOUT_S)).tasks
        if tasks:
            success = pb.SerializedBytes(msgpack=b"\xa2ok")
            reports = [pb.ReportOutcomeRequest(task_id=task.id, success=success) for task in tasks]
            request = ext.ReportOutcomesRequest(shard=self._shard, reports=reports)
            reply = await self._batches.ReportOutcomes(request, timeout=TIMEOUT_S)
            assert not any(result.HasField("refusal") for result in reply.results)
        return len(tasks)

    async def enqueue_all(self, say: Say, *, jobs: int) -> Done:
        left = jobs

        async def produce() -> None:
            nonlocal left
            while left > 0:
                left -= ITEMS
                await self._enqueue(left)
                done.jobs += ITEMS

        async with measured(say, jobs) as done:
            await all_of([produce() for _ in range(CALLS)])
        return done

    async def drain(self, say: Say, *, jobs: int) -> Done:
        async def consume(worker: str) -> None:
            while done.jobs < jobs and (found := await self._finish(worker)):
                done.jobs += found

        async with measured(say, jobs) as done:
            await all_of([consume(f"worker-{number}") for number in range(CALLS)])
        return done

    async def live(self, say: Say, *, jobs: int) -> Done:
        """Enqueue, lease and report at the same time."""
        left, batches = jobs, asyncio.Semaphore(0)

        async def produce() -> None:
            nonlocal left
            while left > 0:
                left -= ITEMS
                await self._enqueue(left)
                batches.release()

        async def consume(worker: str) -> None:
            while done.jobs < jobs:
                async with asyncio.timeout(TIMEOUT_S):
                    await batches.acquire()
                found = await self._finish(worker)
                done.jobs += found
                if done.jobs >= jobs:
                    for _ in range(CALLS):
                        batches.release()

        async with measured(say, jobs) as done:
            await all_of(
                [produce() for _ in range(CALLS)] + [consume(f"worker-{number}") for number in range(CALLS)]
            )
        return done
