"""Row `unary`: a real server, and a client in a second process that makes plain silo.v1 calls."""

from __future__ import annotations

from collections.abc import Iterator

from tools.bench import wire
from tools.bench.bench import Bench
from tools.bench.home import served
from tools.bench.part import Found, Say
from tools.bench.probes import memory_mb, processor_s
from tools.bench.report import Figure, Target

TASKS = 32
WARM_UP_JOBS = 320


def figures(bench: Bench) -> Iterator[Figure]:
    row = "unary gRPC, fsync on"
    with bench.directory() as directory:
        found = bench.part(row, life_cycle, directory=directory, fsync=True, jobs=bench.sizes.unary_jobs)
    yield Figure(
        row=row,
        name="life cycle",
        value=found["per_second"],
        unit="jobs/s",
        target=Target(1_200),
        fsync=True,
        note=f"{TASKS} producers and workers, LeaseTasks of up to {wire.TASKS_PER_CALL}",
    )
    yield Figure(row=row, name="server", value=found["server_us"], unit="us/job", fsync=True)
    yield Figure(row=row, name="client", value=found["client_us"], unit="us/job", fsync=True)
    yield Figure(row=row, name="server's memory", value=found["memory_mb"], unit="MB", fsync=True)


# --- parts ---------------------------------------------------------------------------------------------------------------


async def life_cycle(say: Say, *, directory: str, fsync: bool, jobs: int, customers: int = 0) -> Found:
    async with (
        served(directory, fsync=fsync) as server,
        wire.connected(server.address, customers=customers) as client,
    ):
        await wire.life_cycle(client, say, jobs=WARM_UP_JOBS, tasks=TASKS)
        began_s = processor_s(server.pid)
        done = await wire.life_cycle(client, say, jobs=jobs, tasks=TASKS)
        return {
            "per_second": done.per_second,
            "server_us": (processor_s(server.pid) - began_s) / jobs * 1e6,
            "client_us": done.main_us,
            "memory_mb": memory_mb(server.pid)[0],
        }
