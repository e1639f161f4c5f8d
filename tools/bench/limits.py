"""Row `limits`: what a limit on each job costs, and what a queue with very many waiters costs itself and its neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

from silo.domain.limits import ConcurrencyLimit
from silo.shard.lease import LeasedTask, LeaseTasks, lease_tasks
from silo.shard.outcome import ReportOutcome, Success, report_outcome
from silo.shard.shard import Shard
from tools.bench import load, unary
from tools.bench.bench import Bench
from tools.bench.home import a_shard, serving_here, work_as_the_server_does
from tools.bench.part import Found, Say
from tools.bench.probes import memory_mb, percentile
from tools.bench.report import Figure, Target

CUSTOMERS = 100_000
TASKS = 256
IN_FLIGHT = 2048
PAIRS = 3
"""Life cycles with and without a limit take turns, as the machine's speed drifts."""

FILLERS = 512
HOT = "hot"
SLOTS = 10
FEW = 100


def figures(bench: Bench) -> Iterator[Figure]:
    yield from _a_limit_on_each(bench)
    for waiters in bench.sizes.backlogs:
        yield from _many_waiters(bench, waiters)


def _a_limit_on_each(bench: Bench) -> Iterator[Figure]:
    row = f"a limit on each job, {CUSTOMERS:,} keys"
    in_process = _pairs(
        bench,
        lambda directory, limited: bench.part(
            row, life_cycle, directory=directory, limited=limited, jobs=bench.sizes.jobs
        ),
    )
    over_grpc = _pairs(
        bench,
        lambda directory, limited: bench.part(
            f"{row}, over gRPC",
            unary.life_cycle,
            directory=directory,
            fsync=False,
            jobs=bench.sizes.unary_jobs,
            customers=CUSTOMERS if limited else 0,
        ),
    )
    yield from _compared(row, in_process)
    yield from _compared(f"{row}, over unary gRPC", over_grpc)


def _pairs(bench: Bench, rate: Callable[[str, bool], Found]) -> dict[bool, list[float]]:
    """Jobs per second, in turns without a limit and with one."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * PAIRS):
        limited = bool(turn % 2)
        with bench.directory() as directory:
            rates[limited].append(rate(directory, limited)["per_second"])
    return rates


def _compared(row: str, rates: dict[bool, list[float]]) -> Iterator[Figure]:
    ratio = median(with_it / without for with_it, without in zip(rates[True], rates[False], strict=True))
    yield Figure(row=row, name="life cycle", value=median(rates[True]), unit="jobs/s", fsync=False)
    yield Figure(
        row=row,
        name="life cycle, of that without",
        value=ratio,
        unit="times",
        target=Target(0.85),
        fsync=False,
        note=f"without: {median(rates[False]):,.0f} jobs/s; {PAIRS} pairs",
    )


def _many_waiters(bench: Bench, waiters: int) -> Iterator[Figure]:
    row = f"{waiters:,} waiters for {SLOTS} slots"
    with bench.directory() as few, bench.directory() as many:
        empty = bench.part(f"{row}: a few", hot_queue, directory=few, waiters=FEW + bench.sizes.samples)
        found = bench.part(row, hot_queue, directory=many, waiters=waiters)
        rates: list[float] = []
        for _ in range(PAIRS):
            beside_few = bench.part(f"{row}: few", neighbours, directory=few, jobs=bench.sizes.jobs // 2)
            beside_many = bench.part(f"{row}: many", neighbours, directory=many, jobs=bench.sizes.jobs // 2)
            rates.append(beside_many["per_second"] / beside_few["per_second"])
    yield Figure(
        row=row,
        name="report, then lease what it let in, p50",
        value=percentile(found["ms"], 50),
        unit="ms",
        fsync=False,
        note=f"with few waiters: {percentile(empty['ms'], 50):.2f} ms; two commits",
    )
    yield Figure(
        row=row,
        name="the same, p99",
        value=percentile(found["ms"], 99),
        unit="ms",
        fsync=False,
        note=f"with few waiters: {percentile(empty['ms'], 99):.2f} ms",
    )
    yield Figure(
        row=row,
        name="neighbours' life cycle, of that beside few",
        value=median(rates),
        unit="times",
        target=Target(0.9),
        fsync=False,
        note=f"{PAIRS} pairs",
    )
    yield Figure(row=row, name="memory, filled", value=found["memory_mb"], unit="MB", fsync=False)


# --- parts: fsync is off, as what is compared here is not the disk ---------------------------------------------------------


async def life_cycle(say: Say, *, directory: str, limited: bool, jobs: int) -> Found:
    work_as_the_server_does()
    specs = load.limited_by_customer(CUSTOMERS) if limited else load.unlimited(CUSTOMERS)
    async with serving_here(await a_shard(directory, fsync=False)) as shard:
        done = await _life_cycle(shard, say, jobs, specs)
    return {"per_second": done.per_second}


async def _life_cycle(shard: Shard, say: Say, jobs: int, specs: load.Specs) -> load.Done:
    return await load.life_cycle(
        shard, say, jobs=load.whole_lots(jobs), tasks=TASKS, in_flight=IN_FLIGHT, specs=specs
    )


async def hot_queue(say: Say, *, directory: str, waiters: int) -> Found:
    """Fill one queue; then let workers finish its holders one by one, each of which lets in the next."""
    work_as_the_server_does()
    specs = load.limited_by(ConcurrencyLimit(key=HOT, max_concurrency=SLOTS), task_group=HOT)
    took_ms: list[float] = []
    async with serving_here(await a_shard(directory, fsync=False)) as shard:
        await load.enqueue_all(shard, say, jobs=load.whole_lots(waiters), tasks=FILLERS, specs=specs)
        await shard.checkpoint()
        memory, _ = memory_mb()
        held = await _lease(shard, SLOTS)
        for number in range(min(waiters // 2, 1_000)):
            began = time.perf_counter()
            await shard.execute(report_outcome, ReportOutcome(held[number].task_id, Success(b"ok")))
            [task] = await _lease(shard, SLOTS)
            took_ms.append((time.perf_counter() - began) * 1000)
            held.append(task)
    return {"ms": took_ms, "memory_mb": memory}


async def _lease(shard: Shard, most: int) -> list[LeasedTask]:
    return await shard.execute(lease_tasks, LeaseTasks(worker_id="worker", task_group=HOT, max_tasks=most))


async def neighbours(say: Say, *, directory: str, jobs: int) -> Found:
    """Whole lives of jobs with other keys, in the shard that has the full queue."""
    work_as_the_server_does()
    async with serving_here(await a_shard(directory, fsync=False)) as shard:
        done = await _life_cycle(shard, say, jobs, load.limited_by_customer(CUSTOMERS))
    return {"per_second": done.per_second}
