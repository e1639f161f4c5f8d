"""Row `idle`: what a server writes without work, and what work costs where a store charges by the request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tools.bench import load, wire
from tools.bench.bench import Bench
from tools.bench.home import a_shard, served, serving_here, work_as_the_server_does
from tools.bench.part import Found, Say
from tools.bench.probes import memory_mb, objects_written, processor_s
from tools.bench.report import Figure

SHARDS = 8
WORK_JOBS = 1_000
SETTLE_S = 4.0
"""After this nothing should be left to do: a checkpoint is written after 2 s."""

PACE_JOBS_PER_S = 200


def figures(bench: Bench) -> Iterator[Figure]:
    row, seconds = "idle", bench.sizes.watched_s
    with bench.directory() as directory:
        found = bench.part(row, watch_idle, directory=directory, seconds=seconds)
    hourly = found["objects"] * 3600 / seconds
    yield Figure(
        row=row,
        name="objects written",
        value=hourly,
        unit="an hour",
        fsync=False,
        note=f"{SHARDS} shards, {seconds:.0f} s watched after some work: {found['which']}",
    )
    yield Figure(row=row, name="processor", value=found["processor_percent"], unit="% of a core", fsync=False)
    yield Figure(row=row, name="memory", value=found["memory_mb"], unit="MB", fsync=False)

    with bench.directory() as directory:
        found = bench.part("objects of work", watch_work, directory=directory, seconds=seconds)
    yield Figure(
        row="objects of work",
        name=f"at {PACE_JOBS_PER_S} jobs/s",
        value=found["objects"],
        unit="a 1,000 jobs",
        fsync=False,
        note=f"each job is enqueued, leased and reported by itself: {found['which']}",
    )


# --- parts: fsync is off, as an object store has none ----------------------------------------------------------------------


async def watch_idle(say: Say, *, directory: str, seconds: float) -> Found:
    async with served(directory, fsync=False, shards=SHARDS) as server:
        async with wire.connected(server.address) as client:
            await wire.life_cycle(client, say, jobs=WORK_JOBS, tasks=8)
        await asyncio.sleep(SETTLE_S)
        began_s = processor_s(server.pid)
        async with objects_written(directory) as objects:
            for second in range(round(seconds)):
                say.progress(second, round(seconds))
                await asyncio.sleep(1)
        return {
            "objects": objects.total,
            "which": str(objects),
            "processor_percent": (processor_s(server.pid) - began_s) / seconds * 100,
            "memory_mb": memory_mb(server.pid)[0],
        }


async def watch_work(say: Say, *, directory: str, seconds: float) -> Found:
    work_as_the_server_does()
    shard = await a_shard(directory, fsync=False)
    async with serving_here(shard), objects_written(directory) as objects:
        done_ms = await load.at_pace(shard, say, jobs_per_s=PACE_JOBS_PER_S, seconds=seconds)
        await shard.checkpoint()
    return {"objects": objects.total / len(done_ms) * 1000, "which": str(objects)}
