"""Limits per customer: one who sends a hundred jobs does not keep the others waiting, nor their API from breathing.

    python examples/limits.py

Each customer has two jobs at once at most, and may start ten a second.  Jobs that wait for a slot are in nobody's way.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from silo.client import AsyncClient, ClientError, Concurrency, NewJob, RateLimit, Worker
from silo.client.worker import running

CUSTOMERS = ("acme", "globex", "initech")
JOBS = 8

worker = Worker(concurrency=50)
now: Counter[str] = Counter()
most: Counter[str] = Counter()


@worker.task("mails")
async def send(payload: dict[str, str]) -> None:
    customer = payload["customer"]
    now[customer] += 1
    most[customer] = max(most[customer], now[customer])
    await asyncio.sleep(0.02)
    now[customer] -= 1


def job_of(customer: str) -> NewJob:
    return NewJob(
        task_group="mails",
        payload={"customer": customer},
        limits=[Concurrency(f"mails of {customer}", 2), RateLimit("mails", customer, 10, per_s=1)],
    )


async def main() -> None:
    async with AsyncClient() as silo, running(worker):
        jobs = await silo.enqueue_many(job_of(customer) for customer in CUSTOMERS for _ in range(JOBS))
        for job in jobs:
            if isinstance(job, ClientError):
                raise job
            await job.wait()
    for customer in CUSTOMERS:
        print(f"{customer}: {JOBS} jobs, at most {most[customer]} at once")


if __name__ == "__main__":
    asyncio.run(main())
