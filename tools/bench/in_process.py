"""Row `in-process`: one shard on local disk, all in one process, durable, checkpoints included."""

from __future__ import annotations

import cProfile
import io
import pstats
from collections.abc import Iterator

import attrs

from tools.bench import load
from tools.bench.bench import Bench
from tools.bench.home import a_shard, serving_here, work_as_the_server_does
from tools.bench.part import Found, Say, on_asyncios_own_loop
from tools.bench.probes import stalls_noted
from tools.bench.report import Figure, Target

TASKS = 512
IN_FLIGHT = 4096
"""So that each of the producers can be at work on a lot."""


def figures(bench: Bench) -> Iterator[Figure]:
    for fsync in (True, False):
        yield from _life_cycle(bench, fsync=fsync)
    yield from _one_after_the_other(bench)
    yield from _stalls(bench)


def _life_cycle(bench: Bench, *, fsync: bool) -> Iterator[Figure]:
    row = f"in process, fsync {'on' if fsync else 'off'}"
    with bench.directory() as directory:
        found = bench.part(row, life_cycle, directory=directory, fsync=fsync, jobs=bench.sizes.jobs)
    yield Figure(
        row=row,
        name="life cycle",
        value=found["per_second"],
        unit="jobs/s",
        target=Target(10_000),
        fsync=fsync,
        note=f"{found['commits']} commits, {found['checkpoints']} checkpoints, {found['log_bytes']:.0f} B of log a job",
    )
    yield Figure(row=row, name="main thread", value=found["main_us"], unit="us/job", fsync=fsync)


def _one_after_the_other(bench: Bench) -> Iterator[Figure]:
    row = "in process, fsync on"
    with bench.directory() as directory:
        found = bench.part(
            f"{row}, enqueue, then drain",
            enqueue_then_drain,
            directory=directory,
            fsync=True,
            jobs=bench.sizes.jobs,
        )
    yield Figure(row=row, name="enqueue alone", value=found["enqueue"], unit="jobs/s", fsync=True)
    yield Figure(
        row=row, name="drain alone", value=found["drain"], unit="jobs/s", fsync=True, note="lease and report"
    )


def _stalls(bench: Bench) -> Iterator[Figure]:
    row = "in process, fsync on"
    with bench.directory() as directory:
        found = bench.part(f"{row}, stalls", stalls, directory=directory, fsync=True, jobs=bench.sizes.jobs)
    yield Figure(
        row=row,
        name="longest stall",
        value=found["step_ms"],
        unit="ms",
        fsync=True,
        note=f"one step of '{found['step']}'; {found['over_20_ms']} over 20 ms; "
        f"garbage collector at most {found['collector_ms']:.1f} ms",
    )


def profile(bench: Bench) -> Iterator[Figure]:
    """The life cycle under cProfile; the report gets its ten dearest functions."""
    with bench.directory() as directory:
        found = bench.part("profile", profiled, directory=directory, fsync=True, jobs=bench.sizes.jobs)
    bench.report.profile.append(found["profile"])
    yield Figure(
        row="in process, profiled",
        name="life cycle",
        value=found["per_second"],
        unit="jobs/s",
        fsync=True,
        note="cProfile makes it about three times slower",
    )


# --- parts ---------------------------------------------------------------------------------------------------------------


async def life_cycle(say: Say, *, directory: str, fsync: bool, jobs: int) -> Found:
    work_as_the_server_does()
    async with serving_here(await a_shard(directory, fsync=fsync)) as shard:
        done = await load.life_cycle(shard, say, jobs=load.whole_lots(jobs), tasks=TASKS, in_flight=IN_FLIGHT)
        return {
            "per_second": done.per_second,
            "main_us": done.main_us,
            "commits": shard.log.commits,
            "checkpoints": shard.checkpoints.count,
            "log_bytes": shard.log.committed_bytes / done.jobs,
        }


async def enqueue_then_drain(say: Say, *, directory: str, fsync: bool, jobs: int) -> Found:
    work_as_the_server_does()
    jobs = load.whole_lots(jobs)
    async with serving_here(await a_shard(directory, fsync=fsync)) as shard:
        enqueued = await load.enqueue_all(shard, say, jobs=jobs, tasks=TASKS)
        drained = await load.drain(shard, say, jobs=jobs, tasks=TASKS)
    return {"enqueue": enqueued.per_second, "drain": drained.per_second}


@on_asyncios_own_loop
async def stalls(say: Say, *, directory: str, fsync: bool, jobs: int) -> Found:
    work_as_the_server_does()
    async with serving_here(await a_shard(directory, fsync=fsync)) as shard:
        with stalls_noted() as noted:
            await load.life_cycle(shard, say, jobs=load.whole_lots(jobs), tasks=TASKS, in_flight=IN_FLIGHT)
            await shard.checkpoint()
    return attrs.asdict(noted)


async def profiled(say: Say, *, directory: str, fsync: bool, jobs: int) -> Found:
    profiler = cProfile.Profile()
    profiler.enable()
    found = await life_cycle(say, directory=directory, fsync=fsync, jobs=jobs)
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(10)
    return found | {"profile": text.getvalue()}
