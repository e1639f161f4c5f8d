"""Row `latency`: what one call takes when nothing else happens, and while checkpoints are written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from tools.bench import load, wire
from tools.bench.bench import Bench
from tools.bench.home import a_shard, served, serving_here, work_as_the_server_does
from tools.bench.part import Found, Say
from tools.bench.probes import percentile
from tools.bench.report import Figure

POLL_S = 0.001
PACE_JOBS_PER_S = 1_000
BETWEEN_JOBS_S = 0.01


def figures(bench: Bench) -> Iterator[Figure]:
    samples = bench.sizes.samples
    for fsync in (True, False):
        row = f"latency, fsync {'on' if fsync else 'off'}"
        with bench.directory() as directory:
            found = bench.part(f"{row}: commit", commit, directory=directory, fsync=fsync, samples=samples)
        yield from _percentiles(row, "commit", found["ms"], fsync, "one enqueue after the other, in process")
        with bench.directory() as directory:
            found = bench.part(
                f"{row}: paced", paced, directory=directory, fsync=fsync, seconds=bench.sizes.watched_s
            )
        yield from _percentiles(
            row,
            f"enqueue at {PACE_JOBS_PER_S:,} jobs/s",
            found["ms"],
            fsync,
            f"in process, {found['checkpoints']} checkpoints meanwhile; longest {max(found['ms']):.0f} ms",
        )
        with bench.directory() as directory:
            found = bench.part(
                f"{row}: gRPC", enqueue_to_lease, directory=directory, fsync=fsync, samples=samples // 4
            )
        yield from _percentiles(
            row,
            "enqueue to lease",
            found["ms"],
            fsync,
            f"unary gRPC, one worker that asks again {POLL_S * 1000:.0f} ms after each answer",
        )


def _percentiles(row: str, name: str, ms: list[float], fsync: bool, note: str) -> Iterator[Figure]:
    yield Figure(row=row, name=f"{name}, p50", value=percentile(ms, 50), unit="ms", fsync=fsync, note=note)
    yield Figure(row=row, name=f"{name}, p99", value=percentile(ms, 99), unit="ms", fsync=fsync)


# --- parts ---------------------------------------------------------------------------------------------------------------


async def commit(say: Say, *, directory: str, fsync: bool, samples: int) -> Found:
    work_as_the_server_does()
    took_ms: list[float] = []
    async with serving_here(await a_shard(directory, fsync=fsync)) as shard:
        for number in range(samples):
            began = time.perf_counter()
            await load.enqueue_one(shard, load.by_server, number)
            took_ms.append((time.perf_counter() - began) * 1000)
            if number % 100 == 0:
                say.progress(number, samples)
    return {"ms": took_ms}


async def paced(say: Say, *, directory: str, fsync: bool, seconds: float) -> Found:
    """Whole lives at a pace that leaves the machine room, so that what is slow is slow by itself."""
    work_as_the_server_does()
    async with serving_here(await a_shard(directory, fsync=fsync)) as shard:
        took_ms = await load.at_pace(shard, say, jobs_per_s=PACE_JOBS_PER_S, seconds=seconds)
        return {"ms": took_ms, "checkpoints": shard.checkpoints.count}


async def enqueue_to_lease(say: Say, *, directory: str, fsync: bool, samples: int) -> Found:
    enqueued_at: dict[str, float] = {}
    leased_at: dict[str, float] = {}

    async def work(client: wire.Client) -> None:
        while len(leased_at) < samples:
            for task in await client.lease("worker", 1):
                leased_at[task.job_id] = time.perf_counter()
                await client.report(task)
            await asyncio.sleep(POLL_S)

    async def produce(client: wire.Client) -> None:
        for number in range(samples):
            began = time.perf_counter()
            enqueued_at[await client.enqueue(number)] = began
            say.progress(number, samples)
            await asyncio.sleep(BETWEEN_JOBS_S)

    async with served(directory, fsync=fsync) as server, wire.connected(server.address) as client:
        await load.all_of([work(client), produce(client)])
    return {"ms": [(leased_at[job] - began) * 1000 for job, began in enqueued_at.items()]}
