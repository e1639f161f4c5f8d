"""A log that an older version wrote: its events come in their old shapes, and the work in it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from silo.domain.jobs import JobSpec
from silo.events.catalogue import ChainStarted, JobEnqueued, ShardCreated
from silo.events.packing import packer, to_bytes
from silo.testing.people import Habits
from silo.testing.plan import Crash
from silo.testing.scenario import Scenario, accidents, jobs, meddling

JOBS = 12
START_MS = 1_690_000_000_000


def old_records() -> Sequence[bytes]:
    """As version 0.1.0 wrote them: no limits in what a client stated, and no gates for a chain to begin at."""
    created = ShardCreated(shard_id="00000000-0000-4000-8000-000000000001")
    records = [
        to_bytes([(START_MS, "system", "", [(created.TAG, created.VERSION, *packer(ShardCreated)(created))])])
    ]
    for number in range(JOBS):
        name = {"tenant": "ab"[number % 2], "job_id": f"j{number}"}
        spec = JobSpec(priority=50, task_group="work", enqueue_time_ms=0, retry_policy=None, metadata=())
        tenant, job_id, stated, payload = packer(JobEnqueued)(JobEnqueued(**name, spec=spec, payload=b"\xc0"))
        chain = ChainStarted(
            **name,
            task_id=f"old-task-{number}",
            attempt=1,
            relative_attempt=1,
            start_ms=START_MS,
            virtual_start_ms=START_MS,
            gate=0,
        )
        enqueued_seq = 2 + 2 * number
        events = [
            (JobEnqueued.TAG, 1, 0, tenant, job_id, stated[:-1], payload),
            (ChainStarted.TAG, 1, enqueued_seq, *packer(ChainStarted)(chain)[:-1]),
        ]
        records.append(to_bytes([(START_MS + number, "client", "Enqueue", events)]))
    return records


SCENARIO = Scenario(
    name="old_events",
    about="every version's events are understood, and mean what they meant",
    steps=[
        jobs(8, over_s=5, prefix="new-"),
        meddling(10, over_s=8, jobs=JOBS),
        accidents(lambda at_s, _: Crash(at_s=at_s, down_s=0.5), times=2, over_s=8),
    ],
    workers=lambda: Habits(count=3),
    before=old_records,
)
