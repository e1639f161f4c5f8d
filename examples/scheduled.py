"""A job that runs every so often, once each time however many processes schedule it.

    silo worker scheduled:worker       in the folder examples/, as often as you like
    python examples/scheduled.py       begins the schedule; harmless if it has begun

The trick is the id.  Each run is named for its time, and a tenant has an id only once: of all who enqueue the same run, one
succeeds.  A run enqueues the next one first of all, so the schedule goes on also if the run itself fails.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from silo.client import AsyncClient, Client, JobExists, NewJob, Retry, Worker

EVERY = timedelta(seconds=2)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GROUP = "clean-up"

client = AsyncClient()
worker = Worker(client)


def run_at(moment: datetime) -> NewJob:
    """The run of the schedule that is due at this moment, or next."""
    due = EPOCH + -((EPOCH - moment) // EVERY) * EVERY
    return NewJob(
        task_group=GROUP,
        payload={"due": due.isoformat()},
        id=f"{GROUP} {due.isoformat()}",
        start_at=due,
        retry=Retry(times=5),
    )


@worker.task(GROUP)
async def clean_up(payload: dict[str, str]) -> str:
    due = datetime.fromisoformat(payload["due"])
    await client.enqueue_many([run_at(max(due, datetime.now(UTC) - EVERY) + EVERY)])
    print(f"cleaning up, as of {due:%H:%M:%S}", flush=True)
    return payload["due"]


if __name__ == "__main__":
    first = run_at(datetime.now(UTC))
    with Client() as silo:
        [job] = silo.enqueue_many([first])
    print("scheduled already" if isinstance(job, JobExists) else f"scheduled: {first.id}")
