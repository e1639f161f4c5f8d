"""Row `backlog`: does a long queue make its front slower, and how much memory does it take?

For each length: a process fills the queue and is killed, another opens it and drains some in process, then a server opens it
and a client drains some more.  The same is done with a queue that holds nothing but the jobs that are drained, once just
before the process that drains and once just before the client, so that a ratio compares what was measured within seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from tools.bench import load, wire
from tools.bench.bench import Bench
from tools.bench.home import a_shard, served, serving_here, work_as_the_server_does
from tools.bench.part import Found, Say, crash
from tools.bench.probes import Reads, memory_mb
from tools.bench.report import Figure, Target

FILLERS = 512
TASKS = 32
MILLION = 1_000_000


def figures(bench: Bench) -> Iterator[Figure]:
    for jobs in bench.sizes.backlogs:
        for random_ids in (False, True):
            yield from _one_backlog(bench, jobs, random_ids=random_ids)


def _one_backlog(bench: Bench, jobs: int, *, random_ids: bool) -> Iterator[Figure]:
    row = f"{jobs:,} waiting, {'random ids' if random_ids else 'ids by server'}"
    drained = min(bench.sizes.drained, jobs // 4)
    a_million = jobs == MILLION
    with bench.directory() as directory:
        filled = bench.part(f"{row}: fill", fill, directory=directory, jobs=jobs, random_ids=random_ids)
        yield Figure(row=row, name="filled at", value=filled["per_second"], unit="jobs/s", fsync=False)
        yield Figure(
            row=row,
            name="memory, filled",
            value=filled["memory_mb"],
            unit="MB",
            target=Target(400, at_most=True) if a_million else None,
            fsync=False,
            note=f"at most {filled['memory_max_mb']:,.0f}",
        )

        empty = _only(bench, drain_here, drained, random_ids=random_ids)
        found = bench.part(f"{row}: drain", drain_here, directory=directory, jobs=drained)
        yield from _drained(row, "in process", empty, found, a_million=a_million)
        yield Figure(
            row=row,
            name="reads of the store",
            value=found["reads"],
            unit="a job",
            fsync=False,
            note=f"{found['rows_scanned']:.1f} rows a job scanned; empty: {empty['reads']:.2f} reads",
        )

        empty = _only(bench, drain_served, drained, random_ids=random_ids)
        found = bench.part(f"{row}: drain over gRPC", drain_served, directory=directory, jobs=drained)
        yield from _drained(row, "unary gRPC", empty, found, a_million=a_million)
        yield Figure(
            row=row,
            name="server's memory",
            value=found["memory_mb"],
            unit="MB",
            target=Target(400, at_most=True) if a_million else None,
            fsync=False,
            note=f"at most {found['memory_max_mb']:,.0f}",
        )


def _only(bench: Bench, drain: Callable[..., Awaitable[Found]], jobs: int, *, random_ids: bool) -> Found:
    """Drain a queue that holds nothing else, prepared in the same way."""
    with bench.directory() as directory:
        bench.part("only those: fill", fill, directory=directory, jobs=jobs, random_ids=random_ids)
        return bench.part("only those: drain", drain, directory=directory, jobs=jobs)


def _drained(row: str, how: str, empty: Found, found: Found, *, a_million: bool) -> Iterator[Figure]:
    yield Figure(
        row=row,
        name=f"drain {how}",
        value=found["per_second"],
        unit="jobs/s",
        fsync=False,
        note=f"{found['main_us']:.0f} us a job of the main thread here; empty: {empty['main_us']:.0f}",
    )
    yield Figure(
        row=row,
        name=f"drain {how}, of empty",
        value=found["per_second"] / empty["per_second"],
        unit="times",
        target=Target(0.9) if a_million else None,
        fsync=False,
        note=f"empty: {empty['per_second']:,.0f} jobs/s",
    )


# --- parts: fsync is off, as what is compared here is not the disk ---------------------------------------------------------


async def fill(say: Say, *, directory: str, jobs: int, random_ids: bool) -> Found:
    """Fill a queue, and crash."""
    work_as_the_server_does()
    job_ids = load.random_ids() if random_ids else load.by_server
    async with serving_here(await a_shard(directory, fsync=False)) as shard:
        done = await load.enqueue_all(shard, say, jobs=jobs, tasks=FILLERS, job_ids=job_ids)
        memory, most = memory_mb()
        say.found({"per_second": done.per_second, "memory_mb": memory, "memory_max_mb": most})
        crash()
    return {}


async def drain_here(say: Say, *, directory: str, jobs: int) -> Found:
    work_as_the_server_does()
    reads = Reads()
    async with serving_here(await a_shard(directory, fsync=False, watch=reads.count)) as shard:
        done = await load.drain(shard, say, jobs=load.whole_lots(jobs), tasks=TASKS)
    return {
        "per_second": done.per_second,
        "main_us": done.main_us,
        "reads": (reads.gets + reads.scans) / done.jobs,
        "rows_scanned": reads.rows_scanned / done.jobs,
    }


async def drain_served(say: Say, *, directory: str, jobs: int) -> Found:
    async with served(directory, fsync=False) as server, wire.connected(server.address) as client:
        done = await wire.drain(client, say, jobs=load.whole_lots(jobs), tasks=TASKS)
        memory, most = memory_mb(server.pid)
    return {
        "per_second": done.per_second,
        "main_us": done.main_us,
        "memory_mb": memory,
        "memory_max_mb": most,
    }
