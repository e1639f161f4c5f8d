"""Folding a log into rows: when a shard opens, when rows are made anew, and when they are checked.

There is one loop for all three, so that what is verified is what serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import attrs

from silo.archive.database import require_archive
from silo.events.catalogue import Event
from silo.events.log import read
from silo.projections.fold import TABLES, apply
from silo.projections.view import NotLoaded, Table
from silo.shard.base import Base, base_of
from silo.shard.checkpoint import Note, read_note, remove_rows, write_rows
from silo.shard.disk import key_of, load, read_table, row_key
from silo.shard.draft import INT64_MAX
from silo.shard.rows import Rows
from silo.storage.database import Database, Reader

ROWS_BETWEEN_CHECKPOINTS = 50_000
ROWS_MENDED_AT_ONCE = 1_000

Raw = tuple[bytes, bytes]


async def replay(
    log: Reader,
    rows: Rows,
    store: Database,
    *,
    after: Note,
    upto: int | None = None,
    rows_max: int = ROWS_BETWEEN_CHECKPOINTS,
    progress: Callable[[int], None] | None = None,
) -> Note:
    """Fold the events of `log` that come after a checkpoint into `rows`, which lie over `store`.

    Whenever `rows_max` rows have changed they are written to `store`; what is left at the end stays in `rows`.

    Args:
        upto: the last sequence number to fold; None: to the end.
        progress: told the sequence number that has been folded.

    Returns:
        Where the fold ended.
    """
    last = after
    async for events in read(log, after.seq + 1, end=upto + 1 if upto is not None else None):
        for event in events:
            await _fold(event, rows, store)
        last = Note(events[-1].seq, events[-1].time_ms)
        if len(rows.changes) >= rows_max:
            await write(rows, store, last)
        if progress is not None:
            progress(last.seq)
    return last


async def write(rows: Rows, store: Database, note: Note) -> None:
    """Write the changed rows with the note of what they stand for."""
    await write_rows(store, rows.freeze(), note, asyncio.get_running_loop().time)
    rows.thaw()


async def _fold(event: Event, rows: Rows, store: Database) -> None:
    while True:
        try:
            apply(event, rows)
        except NotLoaded as absent:
            rows.undo()
            await load(store, rows, absent.missing)
        else:
            rows.keep()
            return


async def rebuild(
    log: Reader,
    target: Database,
    *,
    base: Base | None = None,
    upto: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Note:
    """Make all rows anew from the log, in an empty database.  Returns what they stand for.

    Args:
        base: begin with this instead of the first event.
    """
    rows = Rows()
    after = await base.load(target) if base is not None else Note(0, 0)
    note = await replay(log, rows, target, after=after, upto=upto, progress=progress)
    await write(rows, target, note)
    return note


async def remake(db: Database, *, progress: Callable[[int], None] | None = None) -> Note:
    """Make all rows of a database anew from its log, in place.  Nobody else may have it open.

    A crash in between leaves a database that whoever opens it makes the rest of.  Returns what the rows stand for.
    """
    # Without it the rows would be gone for good.
    await require_archive(db)
    await remove_rows(db)
    return await rebuild(db, db, base=await base_of(db, INT64_MAX), progress=progress)


@attrs.frozen
class Difference:
    """The first place where two sets of rows are not the same, byte for byte; None stands for no such row."""

    table: str
    key: tuple[str | int, ...]
    expected: bytes | None
    found: bytes | None

    def __str__(self) -> str:
        expected, found = self._told(self.expected), self._told(self.found)
        if isinstance(expected, dict) and isinstance(found, dict):
            # The fields that differ, which are few of many.
            fields = [name for name in expected if expected[name] != found[name]]
            expected = {name: expected[name] for name in fields}
            found = {name: found[name] for name in fields}
        return f"{self.table} {self.key}: the log gives {_in_words(expected)}, found {_in_words(found)}"

    def _told(self, row: bytes | None) -> Any:
        """A row by its fields, or what else can be said of it."""
        if row is None:
            return "no row"
        try:
            value = _table(self.table).decode(row)
        except (ValueError, TypeError):
            return f"bytes that are no row: {row.hex()}"
        return attrs.asdict(value, recurse=False) if attrs.has(type(value)) else value


def _table(name: str) -> Table[Any]:
    return next(table for table in TABLES if table.name == name)


def _in_words(told: Any) -> str:
    if isinstance(told, dict):
        return ", ".join(f"{name} = {value!r}" for name, value in told.items())
    return str(told)


async def compare(expected: Reader, found: Reader) -> Difference | None:
    """The first difference between the rows of two databases, table by table in the order of their keys."""
    async for difference in differences(expected, found):
        return difference
    return None


async def differences(
    expected: Reader, found: Reader, tables: Iterable[Table[Any]] = TABLES
) -> AsyncIterator[Difference]:
    """Every difference between these tables of two databases, table by table in the order of their keys."""
    for table in tables:
        left, right = _rows(expected, table), _rows(found, table)
        a, b = await anext(left, None), await anext(right, None)
        while a is not None or b is not None:
            if a == b:
                a, b = await anext(left, None), await anext(right, None)
            elif b is None or (a is not None and a[0] < b[0]):
                assert a is not None
                yield Difference(table.name, key_of(a[0]), a[1], None)
                a = await anext(left, None)
            elif a is None or b[0] < a[0]:
                yield Difference(table.name, key_of(b[0]), None, b[1])
                b = await anext(right, None)
            else:
                yield Difference(table.name, key_of(a[0]), a[1], b[1])
                a, b = await anext(left, None), await anext(right, None)


async def _rows(reader: Reader, table: Table[Any]) -> AsyncIterator[Raw]:
    async for page in read_table(reader, table):
        for row in page:
            yield row


Changes = Sequence[tuple[bytes, bytes | None]]
Put = Callable[[Changes], Awaitable[None]]
"""Writes rows, and removes those that are None, together."""


@attrs.define
class Mended:
    """What was put right: how many rows, and the first of them."""

    rows: int = 0
    first: Difference | None = None


async def mend(expected: Reader, found: Reader, put: Put, tables: Iterable[Table[Any]] = TABLES) -> Mended:
    """Put right what differs in these tables of `found`, by `put`, in several steps: each row is as it was or right."""
    mended, changes = Mended(), list[tuple[bytes, bytes | None]]()
    async for difference in differences(expected, found, tables):
        mended.first = mended.first or difference
        mended.rows += 1
        changes.append((row_key(_table(difference.table), difference.key), difference.expected))
        if len(changes) >= ROWS_MENDED_AT_ONCE:
            await put(changes)
            changes = []
    if changes:
        await put(changes)
    return mended


async def verify(
    live: Reader,
    scratch: Database,
    *,
    base: Base | None = None,
    progress: Callable[[int], None] | None = None,
) -> Difference | None:
    """Make the rows of a database anew beside it, up to its checkpoint, and compare.

    Args:
        live: the database at one moment, so a snapshot if it is in use.
        scratch: an empty database for the new rows.
        base: begin with this instead of the first event; see base.py.

    Returns:
        The first difference, or None.
    """
    note = await read_note(live)
    if note.seq:
        await rebuild(live, scratch, base=base, upto=note.seq, progress=progress)
    return await compare(scratch, live)
