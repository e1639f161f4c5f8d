"""A worker of the demo, a process of its own.

python -m silo.cli.demo_worker ADDRESS WORKER_ID

It ends when its standard input does, so that it never outlives the demo.  What it has done it tells on standard output,
a line of JSON now and then.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import attrs

from silo.cli.demo_plan import SHIP_S, TASK_GROUP, Kind, work
from silo.client import AsyncClient, Task, Worker

TASKS_MAX = 24
"""So many tasks at once."""

TELL_EVERY_S = 0.2
INTERRUPTED_AFTER_S = 60.0
"""How long the one job runs that waits to be cancelled."""


class DemoFailure(Exception):
    """The plan wants this attempt to fail."""


@attrs.define
class Tally:
    """What a worker has done so far."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retries: int = 0


async def main(address: str, worker_id: str) -> None:
    worker = Worker(AsyncClient(address), worker_id=worker_id, concurrency=TASKS_MAX, drain_s=1)
    tally = Tally()

    @worker.task(TASK_GROUP)
    async def do(payload: dict[str, Any], task: Task) -> dict[str, str]:
        if payload["kind"] == Kind.INTERRUPTED.value:
            # Whoever cancels the job ends this here.
            await asyncio.sleep(INTERRUPTED_AFTER_S)
        if payload["kind"] == Kind.LIMITED.value:
            await asyncio.sleep(SHIP_S)
        if task.relative_attempt <= payload["fails"]:
            if task.is_last_attempt:
                tally.failed += 1
            else:
                tally.retries += 1
            raise DemoFailure("the demo wants this attempt to fail")
        return work(payload)

    async def tell() -> None:
        told = ""
        metrics = worker.metrics[TASK_GROUP]
        while True:
            tally.succeeded, tally.cancelled = metrics.succeeded, metrics.cancelled
            line = json.dumps(attrs.asdict(tally))
            if line != told:
                print(line, flush=True)
                told = line
            await asyncio.sleep(TELL_EVERY_S)

    async def stop_with_input() -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        worker.stop()

    beside = [asyncio.create_task(tell()), asyncio.create_task(stop_with_input())]
    try:
        await worker.run()
    finally:
        for task in beside:
            task.cancel()


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    asyncio.run(main(*sys.argv[1:]))
