"""Row `sql`: statements on a shard with the longest of the bench's backlogs, by a client of a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator

from silo.client import AsyncClient
from tools.bench import backlog
from tools.bench.bench import Bench
from tools.bench.home import served
from tools.bench.part import Found, Say
from tools.bench.probes import memory_mb, percentile
from tools.bench.report import Figure, Target

WARM_UP = 3
REPEATS = 20
TIMEOUT_S = 300.0

QUICK = {
    "point query by id": "SELECT * FROM jobs WHERE id = $1",
    "status page of 50": "SELECT id, task_group FROM jobs WHERE status_kind = 'Waiting' LIMIT 50",
    "counts by tenant": "SELECT tenant, status_kind, cnt FROM tenant_counts",
}
WHOLE = {
    "GROUP BY over all jobs": "SELECT task_group, count(*), max(priority) FROM jobs GROUP BY task_group",
    "GROUP BY over all events": "SELECT type, count(*), max(time_ms) FROM events GROUP BY type",
}


def figures(bench: Bench) -> Iterator[Figure]:
    jobs = bench.sizes.backlogs[-1]
    row = f"SQL, {jobs:,} jobs"
    with bench.directory() as directory:
        bench.part(f"{row}: fill", backlog.fill, directory=directory, jobs=jobs, random_ids=True)
        found = bench.part(row, asked, directory=directory)
    for name in QUICK:
        yield Figure(
            row=row,
            name=f"{name}, p50",
            value=percentile(found[name], 50),
            unit="ms",
            target=Target(20, at_most=True),
            note=f"p95 {percentile(found[name], 95):.1f} ms; over gRPC, {REPEATS} times",
        )
    for name in WHOLE:
        yield Figure(
            row=row, name=name, value=found[name][0] / 1000, unit="s", note=f"{found['rows'][name]} rows"
        )
    yield Figure(row=row, name="server's memory", value=found["memory_mb"], unit="MB")


async def asked(say: Say, *, directory: str) -> Found:
    """The ms of each statement; those that read everything are asked once, under a long limit of time."""
    took: dict[str, list[float]] = {}
    rows: dict[str, int] = {}
    async with (
        served(directory, fsync=False, server={"statement_timeout_ms": round(TIMEOUT_S * 1000)}) as server,
        AsyncClient(server.address, timeout_s=TIMEOUT_S) as client,
    ):
        [some] = (await client.query("SELECT id FROM jobs LIMIT 1")).rows
        for name, sql in {**QUICK, **WHOLE}.items():
            times = WARM_UP + REPEATS if name in QUICK else 1
            parameters = (some["id"],) if "$1" in sql else ()
            took[name] = []
            for number in range(times):
                began = time.perf_counter()
                found = await client.query(sql, *parameters)
                if number >= WARM_UP or times == 1:
                    took[name].append((time.perf_counter() - began) * 1000)
            rows[name] = len(found.rows)
            say.progress(len(took), len(QUICK) + len(WHOLE))
        return {**took, "rows": rows, "memory_mb": memory_mb(server.pid)[0]}
