"""A long job that somebody cancels: an async handler is ended, a thread looks for itself.

python examples/cancellation.py
"""

from __future__ import annotations

import asyncio

from silo.client import AsyncClient, JobCancelled, Task, Worker
from silo.client.worker import running

worker = Worker()
begun = asyncio.Semaphore(0)


@worker.task("export")
async def export(_: None) -> None:
    begun.release()
    try:
        await asyncio.sleep(3600)
    finally:
        print("export: cleaning up")  # runs the moment that the job is cancelled


@worker.task("convert")
def convert(pages: int, task: Task) -> None:
    loop.call_soon_threadsafe(begun.release)
    for _ in range(pages):
        if task.wait_cancelled(0.1):  # a page takes a while
            print("convert: stopping between two pages")
        task.check()  # raises Cancelled, which ends the attempt


async def main() -> None:
    global loop
    loop = asyncio.get_running_loop()
    async with AsyncClient() as silo, running(worker):
        jobs = [await silo.enqueue("export"), await silo.enqueue("convert", 1_000)]
        for _ in jobs:
            await begun.acquire()
        for job in jobs:
            await job.cancel()
            try:
                await job.wait()
            except JobCancelled as error:
                print(error)


loop: asyncio.AbstractEventLoop

if __name__ == "__main__":
    asyncio.run(main())
