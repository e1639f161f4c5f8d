"""Row `stream`: a real server, and a worker's stream in a second process; the protocol by itself, and silo.client.

Each is measured from an empty backlog and from the longest of the bench's backlogs.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from silo.client import AsyncClient, NewJob, Raw, Worker
from silo.client.worker import running
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.pb.silo_ext_pb2_grpc import BatchesStub, WorkersStub
from tools.bench import backlog, wire
from tools.bench.bench import Bench
from tools.bench.home import served
from tools.bench.load import TASK_GROUP, Done, all_of, measured, payload
from tools.bench.part import Found, Say
from tools.bench.probes import memory_mb, percentile, processor_s
from tools.bench.report import Figure, Target

ITEMS = 250
PRODUCERS = 4
CREDITS = 2_000
CONCURRENCY = 500
WARM_UP_JOBS = 4 * ITEMS
TIMEOUT_S = 60.0
BETWEEN_JOBS_S = 0.01
ROOT = Path(__file__).resolve().parent.parent.parent
OK = pb.SerializedBytes(msgpack=b"\xa2ok")


def figures(bench: Bench) -> Iterator[Figure]:
    jobs = max(bench.sizes.jobs // ITEMS, 8) * ITEMS
    for waiting in (0, bench.sizes.backlogs[-1]):
        yield from _rates(bench, jobs, waiting)
    with bench.directory() as directory:
        found = bench.part(
            "enqueue to handler", enqueue_to_handler, directory=directory, samples=bench.sizes.samples
        )
    row, note = (
        "enqueue to handler start, fsync on",
        "silo.client, one job at a time; an idle `silo worker` in a process of its own",
    )
    for name, share, target in (("p50", 50, 3), ("p99", 99, 8)):
        yield Figure(
            row=row,
            name=name,
            value=percentile(found["ms"], share),
            unit="ms",
            target=Target(target, at_most=True),
            fsync=True,
            note=note,
        )


def _rates(bench: Bench, jobs: int, waiting: int) -> Iterator[Figure]:
    row = f"worker stream, {waiting:,} waiting, fsync on"
    with bench.directory() as directory:
        if waiting:
            bench.part(f"{row}: fill", backlog.fill, directory=directory, jobs=waiting, random_ids=False)
        found = bench.part(row, live, directory=directory, jobs=jobs)
        by_client = bench.part(f"{row}: silo.client", live_by_client, directory=directory, jobs=jobs)
        alone = bench.part(f"{row}: apart", one_after_the_other, directory=directory, jobs=jobs)
    note = f"{ITEMS} jobs a call, {PRODUCERS} producers, one stream with {CREDITS} credits"
    for name, value, target, said in (
        ("life cycle", found["per_second"], 6_000, note),
        (
            "life cycle by silo.client",
            by_client["per_second"],
            None,
            f"a handler that does nothing, {CONCURRENCY} at once",
        ),
        ("enqueue alone", alone["enqueue"], 25_000, note),
        ("drain alone", alone["drain"], 10_000, note),
    ):
        yield Figure(
            row=row,
            name=name,
            value=value,
            unit="jobs/s",
            target=Target(target) if target is not None else None,
            fsync=True,
            note=said,
        )
    yield Figure(row=row, name="server", value=found["server_us"], unit="us/job", fsync=True)
    yield Figure(row=row, name="client", value=found["client_us"], unit="us/job", fsync=True)
    yield Figure(row=row, name="server's memory", value=found["memory_mb"], unit="MB", fsync=True)


# --- parts ---------------------------------------------------------------------------------------------------------------


async def live(say: Say, *, directory: str, jobs: int) -> Found:
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
        async with measured(say, jobs) as enqueued:
            await client.produce(jobs, enqueued)
        async with measured(say, jobs) as drained, client.working(drained):
            await client.until(drained, jobs)
        return {"enqueue": enqueued.per_second, "drain": drained.per_second}


async def live_by_client(say: Say, *, directory: str, jobs: int) -> Found:
    """The same with the library that users have: a worker in Python whose handler does nothing."""
    async with served(directory, fsync=True) as server, AsyncClient(server.address, codec=Raw()) as client:
        ended = 0
        enough = asyncio.Event()
        worker = Worker(client, concurrency=CONCURRENCY)

        @worker.task(TASK_GROUP)
        async def nothing(_: Any) -> bytes:
            nonlocal ended
            ended += 1
            if ended >= jobs:
                enough.set()
            return b"ok"

        async def produce(first: int) -> None:
            for lot in range(first, jobs, ITEMS * PRODUCERS):
                made = [NewJob(task_group=TASK_GROUP, payload=payload(lot + each)) for each in range(ITEMS)]
                await client.enqueue_many(made)
                done.jobs = ended

        async with running(worker), measured(say, jobs) as done:
            await all_of([produce(number * ITEMS) for number in range(PRODUCERS)])
            async with asyncio.timeout(TIMEOUT_S):
                await enough.wait()
            done.jobs = jobs
        return {"per_second": done.per_second}


async def enqueue_to_handler(say: Say, *, directory: str, samples: int) -> Found:
    """One job after the other, each from before its enqueue to the first line of its handler, in a `silo worker`."""
    began_ns: dict[str, int] = {}
    async with (
        served(directory, fsync=True) as server,
        AsyncClient(server.address) as client,
        silo_worker(directory, server.address),
    ):
        await (await client.enqueue(TASK_GROUP)).wait(TIMEOUT_S)
        for number in range(samples):
            now_ns = time.monotonic_ns()
            job = await client.enqueue(TASK_GROUP)
            began_ns[job.id] = now_ns
            say.progress(number, samples)
            await asyncio.sleep(BETWEEN_JOBS_S)
        started_ns = {job_id: await client.job(job_id).wait(TIMEOUT_S) for job_id in began_ns}
    took_ms = [(started_ns[job_id] - began) / 1e6 for job_id, began in began_ns.items()]
    # The first ones find connections that are being made.
    return {"ms": took_ms[samples // 20 :]}


WORKER = f"""
import time
from silo.client import Worker

worker = Worker()

@worker.task("{TASK_GROUP}")
async def start(_):
    return time.monotonic_ns()  # this machine's clock, the same in all processes
"""


@asynccontextmanager
async def silo_worker(directory: str, address: str) -> AsyncIterator[None]:
    """A `silo worker`, its program in this directory."""
    await asyncio.to_thread(Path(directory, "bench_worker.py").write_text, WORKER)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "silo.cli.main", "worker", "bench_worker:worker", "--broker", address),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


# --- the protocol by itself ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Client]:
    async with wire.connected(address) as plain, grpc.aio.insecure_channel(address) as channel:
        yield Client(channel, plain.shard)


class Client:
    """Calls one shard of one server."""

    def __init__(self, channel: grpc.aio.Channel, shard: str) -> None:
        self._batches = BatchesStub(channel)
        self._workers = WorkersStub(channel)
        self._shard = shard
        self._ended = asyncio.Event()

    async def produce(self, jobs: int, enqueued: Done | None = None) -> None:
        """Enqueue so many jobs, in lots, by several producers."""
        left = jobs

        async def one() -> None:
            nonlocal left
            while left > 0:
                left -= ITEMS
                requests = [
                    pb.EnqueueRequest(
                        priority=50,
                        task_group=TASK_GROUP,
                        payload=pb.SerializedBytes(msgpack=payload(left + number)),
                    )
                    for number in range(ITEMS)
                ]
                request = ext.EnqueueBatchRequest(shard=self._shard, jobs=requests)
                reply = await self._batches.EnqueueBatch(request, timeout=TIMEOUT_S)
                assert all(result.id for result in reply.results)
                if enqueued is not None:
                    enqueued.jobs += ITEMS

        await all_of([one() for _ in range(PRODUCERS)])

    @asynccontextmanager
    async def working(self, done: Done) -> AsyncIterator[None]:
        """A stream whose worker reports every task at once; `done` counts the reports that are answered."""
        call = self._workers.Work()
        await call.write(
            ext.FromWorker(worker_id="worker", task_group=TASK_GROUP, shard=self._shard, credits=CREDITS)
        )
        work = asyncio.create_task(self._work(call, done))
        try:
            yield
        finally:
            work.cancel()
            call.cancel()

    async def _work(self, call: Any, done: Done) -> None:
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.reports:
                assert not any(reply.HasField("refusal") for reply in message.reports)
                done.jobs += len(message.reports)
                self._ended.set()
            if message.tasks:
                reports = [
                    pb.ReportOutcomeRequest(shard=task.shard, task_id=task.id, success=OK)
                    for task in message.tasks
                ]
                await call.write(ext.FromWorker(reports=reports, credits=len(reports)))

    async def until(self, done: Done, jobs: int) -> None:
        """Wait until so many are done."""
        while done.jobs < jobs:
            self._ended.clear()
            async with asyncio.timeout(TIMEOUT_S):
                await self._ended.wait()

    async def live(self, say: Say, *, jobs: int) -> Done:
        """Enqueue, lease and report at the same time."""
        async with measured(say, jobs) as done, self.working(done):
            await self.produce(jobs)
            await self.until(done, jobs)
        return done
