"""silo.ext.v1.History: reads the log of a shard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from silo.errors import Invalid
from silo.events.catalogue import EVENTS, Event
from silo.events.log import matches
from silo.events.shown import other_fields
from silo.pb import silo_ext_pb2 as ext
from silo.server.interceptors import Context
from silo.server.shards import Shards
from silo.shard.jobs import JobName
from silo.shard.reading import get_history

EVENTS_A_MESSAGE = 500
TELL_AFTER_EVENTS = 10_000
SERVICE = ext.DESCRIPTOR.services_by_name["History"]
TYPES = {kind.__name__: kind for kind in EVENTS}


class History:
    """The service."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    async def ReadEvents(
        self, request: ext.ReadEventsRequest, context: Context
    ) -> AsyncIterator[ext.EventBatch]:
        log, wanted = self.shards.resolve(request.shard).shard.log, _types(request.filter)
        last = log.durable_seq
        if request.HasField("to_seq"):
            last = min(last, request.to_seq)
        start = max(request.from_seq, 1)
        async for batch in _batches(log.read(start, end=last + 1), start, request.filter, wanted):
            yield batch
        yield ext.EventBatch(seq=max(last, start - 1))

    async def Subscribe(
        self, request: ext.SubscribeRequest, context: Context
    ) -> AsyncIterator[ext.EventBatch]:
        log, wanted = self.shards.resolve(request.shard).shard.log, _types(request.filter)
        start = request.from_seq if request.HasField("from_seq") else log.durable_seq + 1
        # So that the caller knows where it stands before anything comes.
        start = max(start, 1)
        yield ext.EventBatch(seq=start - 1)
        async for batch in _batches(log.follow(start), start, request.filter, wanted):
            yield batch

    async def GetJobHistory(
        self, request: ext.GetJobHistoryRequest, context: Context
    ) -> ext.GetJobHistoryResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        newest = await shard.execute(get_history, JobName(tenant, request.id))
        events = await shard.log.history(newest, most=request.most or None)
        return ext.GetJobHistoryResponse(events=map(message, events))


def _types(wanted: ext.EventFilter) -> frozenset[type[Event]]:
    """The types that are asked for; none: all.  Raises Invalid for one that there is not."""
    for name in wanted.types:
        if name not in TYPES:
            raise Invalid(f"there is no type of event called {name}; docs/events.md has them all")
    return frozenset(TYPES[name] for name in wanted.types)


async def _batches(
    records: AsyncIterator[Sequence[Event]],
    start: int,
    wanted: ext.EventFilter,
    types: frozenset[type[Event]],
) -> AsyncIterator[ext.EventBatch]:
    """What is wanted of the records from `start` on, in messages; with turns of the event loop between them.

    A message without events comes only now and then, so that whoever looks for little can go on from there.
    """
    tenant = wanted.tenant if wanted.HasField("tenant") else None
    job_id = wanted.job_id if wanted.HasField("job_id") else None
    told_seq = start - 1
    async for events in records:
        for at in range(0, len(events), EVENTS_A_MESSAGE):
            piece = events[at : at + EVENTS_A_MESSAGE]
            found = [
                message(event)
                for event in piece
                if (not types or type(event) in types) and matches(event, tenant=tenant, job_id=job_id)
            ]
            seq = piece[-1].seq
            if found or seq - told_seq >= TELL_AFTER_EVENTS:
                told_seq = seq
                yield ext.EventBatch(events=found, seq=seq)
            await asyncio.sleep(0)


def message(event: Event) -> ext.Event:
    """An event as the wire has it."""
    told = ext.Event(
        seq=event.seq,
        time_ms=event.time_ms,
        type=type(event).__name__,
        actor=event.actor,
        method=event.method,
        data=other_fields(event),
    )
    for name in ("tenant", "job_id", "task_id", "attempt", "queue", "worker_id"):
        value = getattr(event, name, None)
        if value is not None:
            setattr(told, name, value)
    return told
