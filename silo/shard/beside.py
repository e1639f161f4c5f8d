"""Rows made anew beside a shard that serves: to compare them, and to put right what differs.

The work is done in a thread with an event loop of its own, on rows in a temporary directory, so that callers of the shard
wait for no more than their share of the processor.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs

from silo.errors import SiloError
from silo.events.catalogue import Event
from silo.events.log import history
from silo.projections.jobs import JOBS, JobRow
from silo.projections.view import Table
from silo.shard.checkpoint import read_note
from silo.shard.disk import decoded, row_key
from silo.shard.replay import Changes, Difference, Mended, mend, rebuild, replay, verify, write
from silo.shard.rows import Rows
from silo.shard.shard import Shard
from silo.storage.database import Database, Reader, Row, Snapshot
from silo.storage.stores import StoreSpec, open_database

T = TypeVar("T")

EVENTS_SHOWN_MAX = 20


class Stopped(Exception):
    """Nobody waits for the result any more."""


@attrs.define
class Progress:
    """How far the work is: events folded, of how many.  `stop` ends it soon."""

    seq: int = 0
    total: int = 0
    _stopped: bool = False

    def __call__(self, seq: int) -> None:
        if self._stopped:
            raise Stopped
        self.seq = seq

    def stop(self) -> None:
        self._stopped = True


@attrs.frozen
class Finding:
    """The first difference, with the newest events of the job that it is about, if that is known."""

    difference: Difference
    events: list[Event]


async def verify_beside(shard: Shard, progress: Progress) -> Finding | None:
    """Make the rows of a shard's newest checkpoint anew from its log, and compare them.  Raises what the shard raises."""
    await shard.checkpoint()
    snapshot = await shard.database.snapshot()
    try:
        progress.total = (await read_note(snapshot)).seq
        difference = await _elsewhere(_verified(_Bridge(_Home(), snapshot), progress))
        if difference is None:
            return None
        return Finding(difference, await events_there(snapshot, difference))
    finally:
        snapshot.release()


async def _verified(live: Reader, progress: Progress) -> Difference | None:
    async with scratch() as database:
        return await verify(live, database, progress=progress)


async def rebuild_beside(shard: Shard, tables: Sequence[Table[Any]], progress: Progress) -> Mended:
    """Make all rows of a shard anew from its log, and put right what differs in these tables.

    The shard serves while the rows are made; it stands still while they are compared.  Raises what the shard raises.
    """
    await shard.checkpoint()
    snapshot = await shard.database.snapshot()
    try:
        progress.total = (await read_note(snapshot)).seq
        return await _elsewhere(_rebuilt(shard, _Home(), snapshot, tables, progress))
    finally:
        snapshot.release()


async def _rebuilt(
    shard: Shard, home: _Home, snapshot: Snapshot, tables: Sequence[Table[Any]], progress: Progress
) -> Mended:
    async with scratch() as anew:
        note = await rebuild(_Bridge(home, snapshot), anew, upto=progress.total, progress=progress)
        still = await home.ask(shard.stand_still())
        try:
            live = _Bridge(home, still.snapshot)
            if still.note.seq > note.seq:
                rows = Rows()
                note = await replay(live, rows, anew, after=note, upto=still.note.seq)
                await write(rows, anew, note)

            async def put(changes: Changes) -> None:
                await home.ask(still.put(changes))

            return await mend(anew, live, put, tables)
        finally:
            await home.ask(still.end())


# --- what `silo verify` and `silo rebuild` need as well --------------------------------------------------------------------


@asynccontextmanager
async def scratch() -> AsyncIterator[Database]:
    """An empty database that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="silo-rows-") as directory:
        spec = StoreSpec(backend="fs", path=f"{directory}/%shard%", fsync=False)
        database = await open_database(spec, "scratch")
        try:
            yield database
        finally:
            await database.close()


async def mend_offline(
    database: Database, tables: Sequence[Table[Any]], progress: Callable[[int], None]
) -> Mended:
    """Put right what differs in these tables of a database that nobody else has open."""

    async def put(changes: Changes) -> None:
        batch = database.batch()
        batch.change(changes)
        await database.write(batch)

    snapshot = await database.snapshot()
    try:
        async with scratch() as anew:
            await rebuild(snapshot, anew, upto=(await read_note(snapshot)).seq, progress=progress)
            return await mend(anew, snapshot, put, tables)
    finally:
        snapshot.release()


async def events_there(reader: Reader, difference: Difference) -> list[Event]:
    """The newest events of the job that a difference is about, if it is about one whose row can be read."""
    if difference.table not in ("jobs", "attempts") or len(difference.key) < 2:
        return []
    name = difference.key[:2]
    # What the log gives is to be trusted; what is stored perhaps not, so it is looked at last, and may lead nowhere.
    rows = (difference.expected, difference.found) if difference.table == "jobs" else ()
    for raw in (*rows, await reader.get(row_key(JOBS, name))):
        try:
            job: JobRow | None = decoded(JOBS, name, raw)
            events = await history(reader, job.last_seq, most=EVENTS_SHOWN_MAX) if job is not None else []
        except (SiloError, LookupError):
            continue
        if events:
            return events
    return []


# --- two event loops -------------------------------------------------------------------------------------------------------


class _Home:
    """The shard's event loop, for whoever works in another one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


class _Bridge:
    """A reader of the shard's event loop, for whoever works in another one."""

    def __init__(self, home: _Home, reader: Reader) -> None:
        self._home = home
        self._reader = reader

    async def get(self, key: bytes) -> bytes | None:
        return await self._home.ask(self._reader.get(key))

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        return await self._home.ask(self._reader.scan(first, end, limit=limit, reverse=reverse))

    async def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        pages = self._reader.pages(first, end, rows=rows)
        while (page := await self._home.ask(_next(pages))) is not None:
            yield page


async def _next(pages: AsyncIterator[list[Row]]) -> list[Row] | None:
    return await anext(pages, None)


async def _elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Do something in a thread with an event loop of its own."""
    return await asyncio.to_thread(asyncio.run, work)
