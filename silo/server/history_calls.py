"""silo.ext.v1.History: reads the log of a shard, checks what was made of it, and erases what must not stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from silo.archive.database import ArchivedDatabase
from silo.broker.archiving import keep_archive
from silo.errors import Invalid, WrongState
from silo.events import codec
from silo.events.catalogue import EVENTS, CursorMoved, Event
from silo.events.erasing import erase as erase_data
from silo.events.log import matches
from silo.events.shown import other_fields
from silo.pb import silo_ext_pb2 as ext
from silo.projections.cursors import CURSORS
from silo.projections.fold import TABLES_OF
from silo.projections.view import Table
from silo.server.callers import client
from silo.server.interceptors import Context
from silo.server.shards import Shards
from silo.shard.beside import Progress, rebuild_beside, verify_beside
from silo.shard.cursors import MoveCursor, delete_cursor, find_cursor, move_cursor
from silo.shard.disk import key_of, read_table
from silo.shard.erase import erase, erase_tenant
from silo.shard.jobs import JobName
from silo.shard.reading import get_history

EVENTS_A_MESSAGE = 500
TELL_AFTER_EVENTS = 10_000
REPORT_EVERY_S = 0.5
SERVICE = ext.DESCRIPTOR.services_by_name["History"]
T = TypeVar("T")
TYPES = {kind.__name__: kind for kind in EVENTS}


class History:
    """The service."""

    def __init__(self, shards: Shards, retention_ms: int | None, turn: asyncio.Lock) -> None:
        self.shards = shards
        self._retention_ms = retention_ms
        self._turn = turn

    async def ReadEvents(
        self, request: ext.ReadEventsRequest, context: Context
    ) -> AsyncIterator[ext.EventBatch]:
        log, wanted = self.shards.resolve(request.shard).shard.log, _types(request.filter)
        last = log.durable_seq
        if request.HasField("to_seq"):
            last = min(last, request.to_seq)
        start = max(request.from_seq, 1)
        told = record if request.as_records else message
        async for batch in _batches(log.read(start, end=last + 1), start, request.filter, wanted, told):
            yield batch
        yield ext.EventBatch(seq=max(last, start - 1))

    async def Subscribe(
        self, request: ext.SubscribeRequest, context: Context
    ) -> AsyncIterator[ext.EventBatch]:
        shard, wanted = self.shards.resolve(request.shard).shard, _types(request.filter)
        cursor = await shard.execute(find_cursor, request.cursor) if request.cursor else None
        log = shard.log
        if request.HasField("from_seq"):
            start = request.from_seq
        else:
            start = (cursor.seq if cursor is not None else log.durable_seq) + 1
        # So that the caller knows where it stands before anything comes.
        start = max(start, 1)
        yield ext.EventBatch(seq=start - 1)
        async for batch in _batches(log.follow(start), start, request.filter, wanted, message):
            yield batch

    async def MoveCursor(self, request: ext.MoveCursorRequest, context: Context) -> ext.MoveCursorResponse:
        shard = self.shards.resolve(request.shard).shard
        move = MoveCursor(request.name, request.seq)
        await shard.execute(move_cursor, move, caller=client("MoveCursor", context))
        return ext.MoveCursorResponse()

    async def ListCursors(self, request: ext.ListCursorsRequest, context: Context) -> ext.ListCursorsResponse:
        shard = self.shards.resolve(request.shard).shard
        await shard.checkpoint()
        last = shard.log.durable_seq
        cursors = [
            ext.Cursor(name=str(name), seq=row.seq, moved_ms=row.moved_ms, behind=last - row.seq)
            async for page in read_table(shard.database, CURSORS)
            for (name,), row in ((key_of(key), CURSORS.decode(raw)) for key, raw in page)
        ]
        return ext.ListCursorsResponse(cursors=cursors)

    async def DeleteCursor(
        self, request: ext.DeleteCursorRequest, context: Context
    ) -> ext.DeleteCursorResponse:
        shard = self.shards.resolve(request.shard).shard
        await shard.execute(delete_cursor, request.name, caller=client("DeleteCursor", context))
        return ext.DeleteCursorResponse()

    async def Erase(self, request: ext.EraseRequest, context: Context) -> ext.EraseResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        if bool(request.id) == request.all_jobs:
            raise Invalid("say which job by its id, or set all_jobs for all of the tenant's, and not both")
        caller = client("Erase", context)
        if request.all_jobs:
            return ext.EraseResponse(seq=await shard.execute(erase_tenant, tenant, caller=caller))
        return ext.EraseResponse(seq=await shard.execute(erase, JobName(tenant, request.id), caller=caller))

    async def VerifyProjections(
        self, request: ext.VerifyProjectionsRequest, context: Context
    ) -> AsyncIterator[ext.VerifyReport]:
        shard = self.shards.open_here(request.shard)
        progress = Progress()
        async with _Work(partial(verify_beside, shard, progress), progress, self._turn) as work:
            async for so_far in work.so_far():
                yield ext.VerifyReport(**so_far)
            found = work.result()
            yield ext.VerifyReport(
                seq=progress.total,
                seq_total=progress.total,
                done=True,
                difference=str(found.difference) if found is not None else "",
                events=map(message, found.events) if found is not None else (),
            )

    async def RebuildProjections(
        self, request: ext.RebuildProjectionsRequest, context: Context
    ) -> AsyncIterator[ext.RebuildReport]:
        shard = self.shards.open_here(request.shard)
        tables = _tables(request.projections)
        progress = Progress()
        async with _Work(partial(rebuild_beside, shard, tables, progress), progress, self._turn) as work:
            async for so_far in work.so_far():
                yield ext.RebuildReport(**so_far)
            mended = work.result()
            yield ext.RebuildReport(
                seq=progress.total,
                seq_total=progress.total,
                done=True,
                rows_changed=mended.rows,
                difference=str(mended.first) if mended.first is not None else "",
            )

    async def ArchiveShard(
        self, request: ext.ArchiveShardRequest, context: Context
    ) -> AsyncIterator[ext.ArchiveReport]:
        shard = self.shards.open_here(request.shard)
        if not isinstance(shard.database, ArchivedDatabase):
            raise WrongState("a shard that is kept in memory has no archive")
        progress = Progress()
        keep = partial(
            keep_archive, shard, self._retention_ms, progress=progress, image=not request.only_events
        )
        async with _Work(keep, progress, self._turn) as work:
            async for so_far in work.so_far():
                yield ext.ArchiveReport(**so_far)
            sealed = work.result()
            yield ext.ArchiveReport(
                seq=progress.total,
                seq_total=progress.total,
                done=True,
                archived_seq=sealed.last_seq,
                image_seq=sealed.image_seq,
                log_begin_seq=sealed.live_seq,
            )

    async def GetJobHistory(
        self, request: ext.GetJobHistoryRequest, context: Context
    ) -> ext.GetJobHistoryResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        newest = await shard.execute(get_history, JobName(tenant, request.id))
        events = await shard.log.history(newest, most=request.most or None)
        return ext.GetJobHistoryResponse(events=map(message, events))


def _tables(projections: Sequence[str]) -> list[Table[Any]]:
    """The tables of these projections; none named: of all.  Raises Invalid for one that there is not."""
    for name in projections:
        if name not in TABLES_OF:
            raise Invalid(f"there is no projection called {name}; there are {', '.join(TABLES_OF)}")
    return [table for name in projections or TABLES_OF for table in TABLES_OF[name]]


class _Work(Generic[T]):
    """Work that begins when its turn comes, as rows made anew are as many as there are, and ends with the block."""

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, T]], progress: Progress, turn: asyncio.Lock
    ) -> None:
        self._progress = progress
        self._has_begun = False
        self._task = asyncio.create_task(self._run(work, turn), name="rows made anew")

    async def _run(self, work: Callable[[], Coroutine[Any, Any, T]], turn: asyncio.Lock) -> T:
        async with turn:
            self._has_begun = True
            return await work()

    async def so_far(self) -> AsyncIterator[dict[str, Any]]:
        """How far it is, as a report has it, every now and then until it is done."""
        while not (await asyncio.wait([self._task], timeout=REPORT_EVERY_S))[0]:
            progress = self._progress
            yield {"seq": progress.seq, "seq_total": progress.total, "waiting": not self._has_begun}

    def result(self) -> T:
        """What came of it.  Raises what it raised."""
        return self._task.result()

    async def __aenter__(self) -> _Work[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._progress.stop()
        if not self._has_begun:
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            # Looked at, so that nobody warns of it; the caller has had it, or is gone.
            self._task.exception()


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
    told: Callable[[Event], ext.Event],
) -> AsyncIterator[ext.EventBatch]:
    """What is wanted of the records from `start` on, in messages; with turns of the event loop between them.

    A reader that moves a cursor would hear of it and move it again, so that is told only if it is asked for.  A message
    without events comes only now and then, so that whoever looks for little can go on from there.
    """
    tenant = wanted.tenant if wanted.HasField("tenant") else None
    job_id = wanted.job_id if wanted.HasField("job_id") else None
    told_seq = start - 1
    async for events in records:
        for at in range(0, len(events), EVENTS_A_MESSAGE):
            piece = events[at : at + EVENTS_A_MESSAGE]
            found = [
                told(event)
                for event in piece
                if (type(event) in types if types else not isinstance(event, CursorMoved))
                and matches(event, tenant=tenant, job_id=job_id)
            ]
            seq = piece[-1].seq
            if found or seq - told_seq >= TELL_AFTER_EVENTS:
                told_seq = seq
                yield ext.EventBatch(events=found, seq=seq)
            await asyncio.sleep(0)


def record(event: Event) -> ext.Event:
    """An event for whoever replays it.  The event was read from the log, and is nobody else's."""
    erase_data(event)
    return ext.Event(seq=event.seq, record=codec.encode((event,)))


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
