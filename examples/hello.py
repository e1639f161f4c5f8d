"""Hand over a job, do its work, print its result: a client and a worker in one program.

make serve                          in another terminal
python examples/hello.py            SILO_ADDRESS=HOST:PORT if the broker is elsewhere
"""

from __future__ import annotations

import asyncio
import sys

from silo.client import AsyncClient, ClientError, Worker
from silo.client.worker import running

worker = Worker()


@worker.task("hello")
async def greet(payload: dict[str, str]) -> str:
    return f"Hello, {payload['name']}!"


async def main() -> None:
    async with AsyncClient() as silo, running(worker):
        job = await silo.enqueue("hello", {"name": "world"})
        print(await job.wait())


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ClientError as error:
        sys.exit(f"{error}")
