"""Row `replay`: how fast is a log folded, when a shard opens and when its rows are made anew or checked?"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import attrs

from silo.shard.replay import rebuild, verify
from silo.shard.shard import ShardOptions
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec, open_database
from tools.bench import load
from tools.bench.bench import Bench
from tools.bench.home import a_shard, serving_here, work_as_the_server_does
from tools.bench.part import Found, Say, crash
from tools.bench.report import Figure, Target

TASKS = 64
IN_FLIGHT = 2_000


def figures(bench: Bench) -> Iterator[Figure]:
    with bench.directory() as directory:
        bench.part("replay: write the log", write_log, directory=directory, jobs=bench.sizes.logged)
        found = bench.part("replay", replay_log, directory=directory)
    row, events = "replay", f"{found['events']:,} events"
    yield Figure(
        row=row,
        name="open without a checkpoint",
        value=found["replay"],
        unit="events/s",
        target=Target(50_000),
        fsync=False,
        note=f"{events}, rows written on the way",
    )
    yield Figure(row=row, name="rebuild", value=found["rebuild"], unit="events/s", fsync=False, note=events)
    yield Figure(
        row=row,
        name="verify",
        value=found["verify"],
        unit="events/s",
        fsync=False,
        note=f"{events}; rows made anew in memory and compared",
    )


# --- parts ---------------------------------------------------------------------------------------------------------------


def never(options: ShardOptions) -> ShardOptions:
    """No checkpoint, however much changes."""
    return attrs.evolve(
        options,
        checkpoint_interval_ms=86_400_000,
        checkpoint_rows=sys.maxsize,
        checkpoint_bytes=sys.maxsize,
        checkpoint_events=sys.maxsize,
    )


async def write_log(say: Say, *, directory: str, jobs: int) -> Found:
    """Write a log of whole lives, without any checkpoint, and crash."""
    work_as_the_server_does()
    async with serving_here(await a_shard(directory, fsync=False, change=never)) as shard:
        await load.life_cycle(shard, say, jobs=load.whole_lots(jobs), tasks=TASKS, in_flight=IN_FLIGHT)
        say.found({})
        crash()
    return {}


async def replay_log(say: Say, *, directory: str) -> Found:
    work_as_the_server_does()
    shard = await a_shard(directory, fsync=False)
    began = time.perf_counter()
    await shard.open()
    opened = time.perf_counter()
    events = shard.log.durable_seq
    await shard.checkpoint()

    snapshot = await shard.database.snapshot()
    spec = StoreSpec(backend="fs", path=f"{directory}/rebuilt/%shard%", fsync=False)
    rebuilt = await open_database(spec, "rebuilt")
    rebuild_began = time.perf_counter()
    await rebuild(snapshot, rebuilt, progress=lambda seq: say.progress(seq, events))
    rebuild_ended = time.perf_counter()
    await rebuilt.close()

    verify_began = time.perf_counter()
    difference = await verify(snapshot, MemoryDatabase(), progress=lambda seq: say.progress(seq, events))
    verify_ended = time.perf_counter()
    assert difference is None, f"the rows are not what the log gives: {difference}"
    await shard.close()
    return {
        "events": events,
        "replay": events / (opened - began),
        "rebuild": events / (rebuild_ended - rebuild_began),
        "verify": events / (verify_ended - verify_began),
    }
