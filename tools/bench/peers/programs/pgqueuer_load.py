"""PgQueuer under load: python pgqueuer_load.py DSN JOBS SAMPLES; the last line of its output is JSON."""

import asyncio
import importlib.metadata
import json
import sys
import time

import asyncpg
from pgqueuer import PgQueuer, Queries
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver

LOT, PRODUCERS, CONCURRENCY = 250, 4, 500


async def main(dsn: str, jobs: int, samples: int) -> None:
    connection = await asyncpg.connect(dsn)
    await Queries(AsyncpgDriver(connection)).install()
    pool = await asyncpg.create_pool(dsn, min_size=PRODUCERS, max_size=PRODUCERS + 4)
    queries = Queries(AsyncpgPoolDriver(pool))

    left = jobs

    async def produce() -> None:
        nonlocal left
        while left > 0:
            left -= LOT
            await queries.enqueue(["bench"] * LOT, [bytes(256)] * LOT, [0] * LOT)

    began = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    enqueued_s = time.perf_counter() - began

    ended = 0
    drained = asyncio.Event()
    started = asyncio.Event()
    took_ms: list[float] = []
    began_at = 0.0
    queue = PgQueuer(AsyncpgPoolDriver(pool))

    @queue.entrypoint("bench")
    async def nothing(job) -> None:
        nonlocal ended
        ended += 1
        if ended >= jobs:
            drained.set()

    @queue.entrypoint("latency")
    async def start(job) -> None:
        took_ms.append((time.perf_counter() - began_at) * 1000)
        started.set()

    began = time.perf_counter()
    running = asyncio.create_task(queue.run(batch_size=LOT, max_concurrent_tasks=2 * CONCURRENCY))
    await asyncio.wait([running, asyncio.create_task(drained.wait())], return_when=asyncio.FIRST_COMPLETED)
    drained_s = time.perf_counter() - began
    await asyncio.sleep(1)

    for _ in range(samples):
        began_at = time.perf_counter()
        await queries.enqueue("latency", b"x")
        await asyncio.wait_for(started.wait(), 60)
        started.clear()
        await asyncio.sleep(0.01)
    queue.shutdown.set()
    found = {
        "version": importlib.metadata.version("pgqueuer"),
        "enqueue": jobs / enqueued_s,
        "drain": jobs / drained_s,
        "ms": took_ms[samples // 20 :],
        "how": f"{LOT} jobs a call, {PRODUCERS} producers; one worker, batches of {LOT}",
    }
    print(json.dumps(found), flush=True)
    running.cancel()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
