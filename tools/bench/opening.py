"""Row `open`: how soon is a shard there again after the process that held it was killed?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from silo.shard.lease import LeaseTasks, lease_tasks
from tools.bench import backlog, load, wire
from tools.bench.bench import Bench
from tools.bench.home import a_shard, served, work_as_the_server_does
from tools.bench.part import Found, Say, crash
from tools.bench.probes import memory_mb
from tools.bench.report import Figure, Target


def figures(bench: Bench) -> Iterator[Figure]:
    for jobs in bench.sizes.backlogs:
        row = f"open with {jobs:,} jobs"
        target = Target(2_000, at_most=True) if jobs == backlog.MILLION else None
        with bench.directory() as directory:
            bench.part(f"{row}: fill", backlog.fill, directory=directory, jobs=jobs, random_ids=False)
            here = bench.part(row, open_here, directory=directory)
            there = bench.part(f"{row}: server", open_served, directory=directory)
        yield Figure(
            row=row,
            name="shard serves",
            value=here["open_ms"],
            unit="ms",
            target=target,
            fsync=False,
            note=f"in process, without the start of the process; {here['replayed']:,} rows were not in a checkpoint yet",
        )
        yield Figure(row=row, name="then the first lease", value=here["lease_ms"], unit="ms", fsync=False)
        yield Figure(row=row, name="memory then", value=here["memory_mb"], unit="MB", fsync=False)
        yield Figure(
            row=row,
            name="first lease by gRPC",
            value=there["lease_ms"],
            unit="ms",
            fsync=False,
            note="from the start of the server's process",
        )


# --- parts ---------------------------------------------------------------------------------------------------------------


async def open_here(say: Say, *, directory: str) -> Found:
    work_as_the_server_does()
    shard = await a_shard(directory, fsync=False)
    began = time.perf_counter()
    await shard.open()
    opened = time.perf_counter()
    replayed = len(shard.rows.changes)
    tasks = await shard.execute(
        lease_tasks, LeaseTasks(worker_id="worker", task_group=load.TASK_GROUP, max_tasks=1)
    )
    leased = time.perf_counter()
    assert len(tasks) == 1
    say.found(
        {
            "open_ms": (opened - began) * 1000,
            "lease_ms": (leased - opened) * 1000,
            "replayed": replayed,
            "memory_mb": memory_mb()[0],
        }
    )
    crash()
    return {}


async def open_served(_: Say, *, directory: str) -> Found:
    began = time.perf_counter()
    async with served(directory, fsync=False) as server, wire.connected(server.address) as client:
        assert await client.lease("worker", 1)
        return {"lease_ms": (time.perf_counter() - began) * 1000}
