"""Procrastinate under load: python procrastinate_load.py DSN JOBS SAMPLES; the last line of its output is JSON."""

import asyncio
import importlib.metadata
import json
import sys
import time

from procrastinate import App, PsycopgConnector

LOT, PRODUCERS, CONCURRENCY = 250, 4, 100


async def main(dsn: str, jobs: int, samples: int) -> None:
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=4, max_size=20))
    ended = 0
    drained = asyncio.Event()
    started = asyncio.Event()
    took_ms: list[float] = []
    began_at = 0.0

    @app.task(queue="bench")
    async def nothing(payload: str) -> None:
        nonlocal ended
        ended += 1
        if ended >= jobs:
            drained.set()

    @app.task(queue="latency")
    async def start() -> None:
        took_ms.append((time.perf_counter() - began_at) * 1000)
        started.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        left = jobs

        async def produce() -> None:
            nonlocal left
            while left > 0:
                left -= LOT
                await nothing.batch_defer_async(*[{"payload": "x" * 256} for _ in range(LOT)])

        began = time.perf_counter()
        await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
        enqueued_s = time.perf_counter() - began

        began = time.perf_counter()
        running = asyncio.create_task(
            app.run_worker_async(
                concurrency=CONCURRENCY,
                listen_notify=True,
                install_signal_handlers=False,
                delete_jobs="successful",
            )
        )
        await asyncio.wait(
            [running, asyncio.create_task(drained.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        drained_s = time.perf_counter() - began
        await asyncio.sleep(1)

        for _ in range(samples):
            began_at = time.perf_counter()
            await start.defer_async()
            await asyncio.wait_for(started.wait(), 60)
            started.clear()
            await asyncio.sleep(0.01)
        found = {
            "version": importlib.metadata.version("procrastinate"),
            "enqueue": jobs / enqueued_s,
            "drain": jobs / drained_s,
            "ms": took_ms[samples // 20 :],
            "how": f"{LOT} jobs a call, {PRODUCERS} producers; one worker, {CONCURRENCY} at once",
        }
        print(json.dumps(found), flush=True)
        running.cancel()
        await asyncio.wait([running])


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
