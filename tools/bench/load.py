"""Producers and workers at a shard in this process.

Jobs go in lots of `LOT`: a producer enqueues that many one by one, a worker leases that many at once and reports one by one.
What holds them together is counted in lots too, so that the bench itself costs little beside what it measures.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from silo.domain.jobs import JobSpec
from silo.domain.limits import ConcurrencyLimit, Limit
from silo.domain.tenants import DEFAULT_TENANT
from silo.shard.enqueue import NewJob, enqueue
from silo.shard.lease import LeaseTasks, lease_tasks
from silo.shard.outcome import ReportOutcome, Success, report_outcome
from silo.shard.shard import Shard
from tools.bench.part import Say

LOT = 8
PAYLOAD_BYTES = 256
TASK_GROUP = "bench"
SLOTS_PER_CUSTOMER = 4
START_WITHIN_S = 0.25
"""Producers that began together would stay together, as each takes part in each commit: all would enqueue, then all would
wait for workers, and a checkpoint would find all jobs ready in one run, and all leased in the next."""

SPEC = JobSpec(priority=50, task_group=TASK_GROUP, enqueue_time_ms=0, retry_policy=None, metadata=())

# Every payload is an object of its own, as it is when it comes in a request; else a backlog would seem to need less memory.
_NOISE = random.Random(1).randbytes(1 << 20)

JobIds = Callable[[], str]
Specs = Callable[[int], JobSpec]
"""What to state of the job with this number."""


def plain(_: int) -> JobSpec:
    """Nothing but the task group."""
    return SPEC


def limited_by(*limits: Limit, task_group: str = TASK_GROUP) -> Specs:
    """The same limits for all."""
    spec = attrs.evolve(SPEC, limits=limits, task_group=task_group)
    return lambda _: spec


def unlimited(different: int) -> Specs:
    """No limits either, but a specification of its own for each job, as over the wire: so many, by turns."""
    specs = [attrs.evolve(SPEC) for _ in range(different)]
    return lambda number: specs[number % different]


def limited_by_customer(customers: int) -> Specs:
    """A concurrency limit for each of so many customers, by turns."""
    limits = (
        ConcurrencyLimit(key=f"customer-{number}", max_concurrency=SLOTS_PER_CUSTOMER)
        for number in range(customers)
    )
    specs = [attrs.evolve(SPEC, limits=(limit,)) for limit in limits]
    return lambda number: specs[number % customers]


def by_server() -> str:
    """The server chooses the job's id."""
    return ""


def random_ids() -> JobIds:
    """The client chooses: ids that lie anywhere among the others."""
    chance = random.Random()
    return lambda: f"{chance.getrandbits(128):032x}"


def payload(number: int) -> bytes:
    start = number * 61 % (len(_NOISE) - PAYLOAD_BYTES)
    return _NOISE[start : start + PAYLOAD_BYTES]


def whole_lots(jobs: int) -> int:
    """So many jobs as whole lots make, at least one lot."""
    return max(jobs // LOT, 1) * LOT


@attrs.define
class Done:
    """How much a load has done, and how long it took.

    Attributes:
        main_us: time of the processor that the event loop's thread spent on one job.
    """

    jobs: int = 0
    seconds: float = 0.0
    main_us: float = 0.0

    @property
    def per_second(self) -> float:
        return self.jobs / self.seconds


@asynccontextmanager
async def measured(say: Say, total: int) -> AsyncIterator[Done]:
    """Time the block, which counts the jobs that are done; and tell how far it is."""
    done = Done()

    async def tell() -> None:
        while True:
            say.progress(done.jobs, total)
            await asyncio.sleep(0.25)

    telling = asyncio.create_task(tell(), name="progress")
    began, thread_began = time.perf_counter(), time.thread_time()
    try:
        yield done
    finally:
        telling.cancel()
    done.seconds = time.perf_counter() - began
    done.main_us = (time.thread_time() - thread_began) / done.jobs * 1e6


async def life_cycle(
    shard: Shard, say: Say, *, jobs: int, tasks: int, in_flight: int, specs: Specs = plain
) -> Done:
    """Enqueue, lease and report jobs at the same time: so many producers, and as many workers.

    Args:
        in_flight: how many jobs are between enqueue and report at most.
    """
    room = asyncio.Semaphore(max(in_flight // LOT, 1))
    work = asyncio.Semaphore(0)
    to_enqueue = to_lease = jobs // LOT

    async def produce(number: int) -> None:
        nonlocal to_enqueue
        await asyncio.sleep(START_WITHIN_S * number / tasks)
        while to_enqueue:
            to_enqueue -= 1
            first = to_enqueue * LOT
            await room.acquire()
            await enqueue_lot(shard, by_server, first, specs)
            work.release()

    async def consume(worker: str) -> None:
        nonlocal to_lease
        while to_lease:
            to_lease -= 1
            await work.acquire()
            await finish(shard, worker, LOT, done)
            room.release()

    async with measured(say, jobs) as done:
        await all_of(
            [produce(number) for number in range(tasks)] + [consume(f"worker-{n}") for n in range(tasks)]
        )
    return done


async def enqueue_all(
    shard: Shard, say: Say, *, jobs: int, tasks: int, job_ids: JobIds = by_server, specs: Specs = plain
) -> Done:
    """Enqueue jobs, one by one, from so many producers."""
    left = jobs // LOT

    async def produce() -> None:
        nonlocal left
        while left:
            left -= 1
            await enqueue_lot(shard, job_ids, left * LOT, specs)
            done.jobs += LOT

    async with measured(say, jobs) as done:
        await all_of([produce() for _ in range(tasks)])
    return done


async def drain(shard: Shard, say: Say, *, jobs: int, tasks: int) -> Done:
    """Lease and report so many of the jobs that wait, by so many workers."""
    left = jobs // LOT

    async def consume(worker: str) -> None:
        nonlocal left
        while left:
            left -= 1
            await finish(shard, worker, LOT, done)

    async with measured(say, jobs) as done:
        await all_of([consume(f"worker-{n}") for n in range(tasks)])
    return done


async def at_pace(shard: Shard, say: Say, *, jobs_per_s: int, seconds: float) -> list[float]:
    """Enqueue jobs at a steady pace, and lease and report each when it is there.  Returns the ms of each enqueue."""
    jobs = round(jobs_per_s * seconds)
    took_ms: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await enqueue_one(shard, by_server, number)
        took_ms.append((time.perf_counter() - began) * 1000)
        await finish(shard, "worker", 1, done)

    async with measured(say, jobs) as done, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(jobs):
            late_s = time.perf_counter() - began - number / jobs_per_s
            # It stays a steady pace on the whole, also if the event loop was away for a while.
            await asyncio.sleep(max(-late_s, 0))
            group.create_task(one(number), name="job")
    return took_ms


async def enqueue_lot(shard: Shard, job_ids: JobIds, number: int, specs: Specs = plain) -> None:
    for offset in range(LOT):
        await enqueue_one(shard, job_ids, number + offset, specs)


async def enqueue_one(shard: Shard, job_ids: JobIds, number: int, specs: Specs = plain) -> None:
    job = NewJob(tenant=DEFAULT_TENANT, job_id=job_ids(), spec=specs(number), payload=payload(number))
    await shard.execute(enqueue, job, size=PAYLOAD_BYTES)


async def finish(shard: Shard, worker: str, jobs: int, done: Done) -> None:
    """Lease so many jobs, which must be ready, and report each."""
    command = LeaseTasks(worker_id=worker, task_group=TASK_GROUP, max_tasks=jobs)
    tasks = await shard.execute(lease_tasks, command)
    if len(tasks) < jobs:
        raise RuntimeError(f"{jobs} jobs are ready, but {len(tasks)} were leased")
    for task in tasks:
        await shard.execute(report_outcome, ReportOutcome(task.task_id, Success(b"ok")))
        done.jobs += 1


async def all_of(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end; when one fails, stop the others and raise its error."""
    tasks = [asyncio.create_task(work, name=getattr(work, "__name__", "work")) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
