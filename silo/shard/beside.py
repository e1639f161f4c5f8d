"""Rows made anew beside a shard that serves: to compare them, and to put right what differs.

The work is done in a thread with an event loop of its own, on rows in a temporary directory, so that callers of the shard
wait for no more than their share of the processor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from silo.errors import SiloError
from silo.events.catalogue import Event
from silo.events.log import history
from silo.projections.jobs import JOBS, JobRow
from silo.projections.view import Table
from silo.shard.base import Base, base_of
from silo.shard.checkpoint import read_note
from silo.shard.disk import decoded, row_key
from silo.shard.elsewhere import Bridge, Home, elsewhere
from silo.shard.replay import Changes, Difference, Mended, mend, rebuild, replay, verify, write
from silo.shard.rows import Rows
from silo.shard.shard import Shard
from silo.storage.database import Database, Reader, Snapshot
from silo.storage.scratch import scratch_directory
from silo.storage.stores import StoreSpec, open_database

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
    async with still(shard) as snapshot:
        progress.total = (await read_note(snapshot)).seq
        base = await base_of(snapshot, progress.total)
        difference = await elsewhere(verified(Bridge(Home(), snapshot), base, progress))
        if difference is None:
            return None
        return Finding(difference, await events_there(snapshot, difference))


@asynccontextmanager
async def still(shard: Shard) -> AsyncIterator[Snapshot]:
    """The rows of a shard's newest checkpoint, and the log with what was cut off it, while nobody erases in there."""
    async with shard.archive_lock:
        await shard.checkpoint()
        snapshot = await shard.database.snapshot()
        try:
            yield snapshot
        finally:
            snapshot.release()


async def verified(live: Reader, base: Base | None, progress: Progress) -> Difference | None:
    """Make the rows of a database anew in a temporary one, and compare."""
    async with scratch() as database:
        return await verify(live, database, base=base, progress=progress)


async def rebuild_beside(shard: Shard, tables: Sequence[Table[Any]], progress: Progress) -> Mended:
    """Make all rows of a shard anew from its log, and put right what differs in these tables.

    The shard serves while the rows are made; it stands still while they are compared.  Raises what the shard raises.
    """
    async with still(shard) as snapshot:
        progress.total = (await read_note(snapshot)).seq
        base = await base_of(snapshot, progress.total)
        return await elsewhere(_rebuilt(shard, Home(), snapshot, base, tables, progress))


async def _rebuilt(
    shard: Shard,
    home: Home,
    snapshot: Snapshot,
    base: Base | None,
    tables: Sequence[Table[Any]],
    progress: Progress,
) -> Mended:
    async with scratch() as anew:
        log = Bridge(home, snapshot)
        note = await rebuild(log, anew, base=base, upto=progress.total, progress=progress)
        still = await home.ask(shard.stand_still())
        try:
            live = Bridge(home, still.snapshot)
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
    with scratch_directory() as directory:
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
            upto = (await read_note(snapshot)).seq
            base = await base_of(snapshot, upto)
            await rebuild(snapshot, anew, base=base, upto=upto, progress=progress)
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
