"""Row `sql`: statements on a shard with the longest of the bench's backlogs, by a client of a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc

from silo.client import AsyncClient
from silo.pb import silo_ext_pb2 as ext
from silo.pb.silo_ext_pb2_grpc import HistoryStub
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
        for how in ("", ", archived"):
            yield Figure(
                row=row,
                name=name + how,
                value=found[name + how][0] / 1000,
                unit="s",
                note=f"{found['rows'][name]} rows" + ("; read from columns" if how else ""),
            )
    yield Figure(row=row, name="archive, with an image", value=found["archive_s"], unit="s")
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
            say.progress(len(took), len(QUICK) + 2 * len(WHOLE))
        began = time.perf_counter()
        await archive(server.address, (await client.shards())[0].id)
        archive_s = time.perf_counter() - began
        for name, sql in WHOLE.items():
            began = time.perf_counter()
            await client.query(sql)
            took[f"{name}, archived"] = [(time.perf_counter() - began) * 1000]
            say.progress(len(took), len(QUICK) + 2 * len(WHOLE))
        return {**took, "rows": rows, "archive_s": archive_s, "memory_mb": memory_mb(server.pid)[0]}


async def archive(address: str, shard: str) -> None:
    """Have everything archived."""
    async with grpc.aio.insecure_channel(address) as channel:
        reports = HistoryStub(channel).ArchiveShard(ext.ArchiveShardRequest(shard=shard))
        assert [report async for report in reports][-1].done
