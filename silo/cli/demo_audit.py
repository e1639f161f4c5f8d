"""After the demo: what do the shards' own logs and rows say?

Nothing here rests on what client and workers believe.  Every shard is opened as the broker does, its log is read from the
first event to the last, and each job that was acknowledged must be there once, and must have ended as planned.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import attrs

from silo.cli.demo_plan import CRANES, ENDS, HARBOUR, TENANTS, Kind, PlannedJob, work
from silo.client import MessagePack
from silo.cluster.ranges import HashRange
from silo.cluster.shard_map import ShardMap
from silo.cluster.single_node import beside
from silo.domain.ids import Ids
from silo.domain.jobs import JobStatus
from silo.domain.tenants import tenant_hash
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    JobCancelled,
    JobEnqueued,
    JobEvent,
    JobFailed,
    LeaseExpired,
    SlotGranted,
    SlotWaited,
    TaskLeased,
)
from silo.projections.counters import CountRow
from silo.server.from_settings import shard_options, store_spec
from silo.settings import Settings
from silo.shard.jobs import JobName
from silo.shard.reading import get_counts, get_history
from silo.shard.shard import Shard
from silo.storage.stores import open_database

PROBLEMS_MAX = 5

JobKey = tuple[str, str]
"""Tenant and job id."""


@attrs.define
class Life:
    """What the log says of one job."""

    enqueued: int = 0
    enqueued_ms: int = 0
    first_lease_ms: int | None = None
    failures: int = 0
    expired: int = 0
    ends: list[JobStatus] = attrs.Factory(list)
    ended_ms: int = 0
    result: bytes = b""
    waited_ms: int | None = None
    granted_ms: int | None = None


@attrs.frozen
class Outage:
    """When the broker was away."""

    killed_ms: int
    back_ms: int


@attrs.define
class Audit:
    """What all shards have.

    Attributes:
        owners: the shard of each tenant.
        counts: how many jobs of each tenant are in each status, as the shards' rows count them.
        at_the_crane: who holds a slot of the harbour's limit, as far as the log is read.
        most_at_the_crane: how many did at the same time.
        story: one job's events, oldest first.
        problems: what is not as promised, a sentence each; empty if all is well.
    """

    lives: dict[JobKey, Life] = attrs.Factory(dict)
    events: int = 0
    owners: dict[str, str] = attrs.Factory(dict)
    counts: dict[str, CountRow] = attrs.Factory(dict)
    at_the_crane: set[str] = attrs.Factory(set)
    most_at_the_crane: int = 0
    story: list[Event] = attrs.Factory(list)
    problems: list[str] = attrs.Factory(list)

    def life(self, job: PlannedJob) -> Life:
        return self.lives.get((job.tenant, job.id)) or Life()

    def count(self, tenant: str, status: JobStatus) -> int:
        return self.counts[tenant].by_status[status]

    def waits_for_crane_ms(self) -> list[int]:
        """How long jobs of the harbour stood in line for their first slot, shortest first; those that did."""
        return sorted(
            life.granted_ms - life.waited_ms
            for life in self.lives.values()
            if life.waited_ms is not None and life.granted_ms is not None
        )

    def seconds_until(self, part: float) -> float:
        """How long after the first enqueue this part of all jobs had ended."""
        first_ms = min(life.enqueued_ms for life in self.lives.values())
        ends_ms = sorted(life.ended_ms for life in self.lives.values())
        return max(ends_ms[int((len(ends_ms) - 1) * part)] - first_ms, 1) / 1000

    def in_the_busiest_second(self) -> int:
        """How many jobs ended in the second in which most did."""
        return max(Counter(life.ended_ms // 1000 for life in self.lives.values()).values())

    def waits_ms(self, jobs: Sequence[PlannedJob], outage: Outage, *, caught: bool) -> list[int]:
        """How long jobs waited for their first start, shortest first; those that the outage caught, or the others."""
        waits = []
        for job in jobs:
            life = self.life(job)
            if job.start_in_ms or life.first_lease_ms is None:
                continue
            if caught == (life.enqueued_ms < outage.back_ms and life.first_lease_ms > outage.killed_ms):
                waits.append(life.first_lease_ms - life.enqueued_ms)
        return sorted(waits)


async def audit(settings: Settings, jobs: Sequence[PlannedJob], outage: Outage) -> Audit:
    """Look through all shards, which nobody may have open.  `jobs` are those that were acknowledged."""
    found = Audit()
    async with _opened(settings) as shards:
        for part, shard in shards:
            await _read_log(shard, found)
            for tenant in TENANTS:
                if part.contains(tenant_hash(tenant)):
                    found.owners[tenant] = shard.shard_id
                    found.counts[tenant] = await shard.execute(get_counts, tenant)
        found.problems = list(problems(found, jobs))
        job = _worth_telling(found, jobs, outage)
        if job is not None:
            shard = next(shard for _, shard in shards if shard.shard_id == found.owners[job.tenant])
            newest = await shard.execute(get_history, JobName(job.tenant, job.id))
            found.story = await shard.log.history(newest)
    return found


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[list[tuple[HashRange, Shard]]]:
    """All shards, each with its part of the hash line."""
    stores, ids = store_spec(settings.database), Ids(os.urandom)
    stored = await beside(settings.database).read()
    opened: list[tuple[HashRange, Shard]] = []
    try:
        for mapped in ShardMap.from_json(stored or b"").shards:
            open_it = functools.partial(open_database, stores, mapped.id)
            shard = Shard(mapped.id, open_it, options=shard_options(settings), ids=ids)
            await shard.open()
            opened.append((mapped.range, shard))
        yield opened
    finally:
        for _, shard in opened:
            await shard.close()


async def _read_log(shard: Shard, found: Audit) -> None:
    async for events in shard.log.read(1):
        found.events += len(events)
        for event in events:
            if isinstance(event, JobEvent):
                _note(event, found.lives.setdefault((event.tenant, event.job_id), Life()))
                if event.tenant == HARBOUR:
                    _note_crane(event, found)


def _note_crane(event: JobEvent, found: Audit) -> None:
    match event:
        case SlotGranted():
            found.at_the_crane.add(event.task_id)
        case AttemptSucceeded() | AttemptFailed() | AttemptCancelled():
            found.at_the_crane.discard(event.task_id)
        case _:
            pass
    found.most_at_the_crane = max(found.most_at_the_crane, len(found.at_the_crane))


def _note(event: JobEvent, life: Life) -> None:
    match event:
        case JobEnqueued():
            life.enqueued += 1
            life.enqueued_ms = event.time_ms
        case TaskLeased() if life.first_lease_ms is None:
            life.first_lease_ms = event.time_ms
        case SlotWaited() if life.waited_ms is None:
            life.waited_ms = event.time_ms
        case SlotGranted() if life.granted_ms is None:
            life.granted_ms = event.time_ms
        case LeaseExpired():
            life.expired += 1
        case AttemptFailed():
            life.failures += 1
        case AttemptSucceeded():
            life.result = event.result
            _end(event, JobStatus.SUCCEEDED, life)
        case JobFailed():
            _end(event, JobStatus.FAILED, life)
        case JobCancelled():
            _end(event, JobStatus.CANCELLED, life)
        case _:
            pass


def _end(event: JobEvent, status: JobStatus, life: Life) -> None:
    life.ends.append(status)
    life.ended_ms = event.time_ms


def problems(found: Audit, jobs: Sequence[PlannedJob]) -> Iterator[str]:
    """What is not as promised, a sentence each, if `jobs` are those that were acknowledged."""
    wrong = [why for job in jobs if (why := _why_wrong(job, found.life(job)))]
    yield from wrong[:PROBLEMS_MAX]
    if len(wrong) > PROBLEMS_MAX:
        yield f"and so on, {len(wrong):,} jobs in all"

    strangers = len(found.lives) - len(jobs)
    if strangers > 0:
        yield f"the logs have {strangers:,} jobs that nobody enqueued"

    if found.most_at_the_crane > CRANES:
        yield f"{found.most_at_the_crane} jobs of the {HARBOUR} were at its {CRANES} cranes at the same time"
    if found.at_the_crane:
        yield f"{len(found.at_the_crane)} slots of the {HARBOUR} were never given back"

    # Two witnesses that know nothing of each other: the counters that the broker kept, and the events read just now.
    ends = Counter((tenant, status) for (tenant, _), life in found.lives.items() for status in life.ends)
    for tenant in TENANTS:
        for status in JobStatus:
            if found.count(tenant, status) != ends[tenant, status]:
                yield (
                    f"the rows count {found.count(tenant, status):,} jobs of {tenant} as {status.kind.lower()}, "
                    f"the log gives {ends[tenant, status]:,}"
                )


def _why_wrong(job: PlannedJob, life: Life) -> str | None:
    name = f"{job.tenant}/{job.id}"
    if life.enqueued != 1:
        return f"{name} was acknowledged, and the log has it {life.enqueued} times"
    if life.ends != [ENDS[job.kind]]:
        ends = " and ".join(status.kind.lower() for status in life.ends) or "not at all"
        return f"{name} was to end as {ENDS[job.kind].kind.lower()}, and ended {ends}"
    if ENDS[job.kind] is JobStatus.SUCCEEDED and life.result != result_of(job):
        return f"{name} has a result that is not that of its payload"
    return None


def result_of(job: PlannedJob) -> bytes:
    """The result that a worker reports for a job, as it is on the wire."""
    return MessagePack().encode(work(job.payload))


def _worth_telling(found: Audit, jobs: Sequence[PlannedJob], outage: Outage) -> PlannedJob | None:
    """A job that was tried again, if possible one whose life began before the kill and ended after it."""

    def interest(job: PlannedJob) -> tuple[bool, int]:
        life = found.life(job)
        return life.enqueued_ms < outage.killed_ms and life.ended_ms > outage.back_ms, life.failures

    flaky = [job for job in jobs if job.kind is Kind.FLAKY]
    return max(flaky, key=interest, default=None)
