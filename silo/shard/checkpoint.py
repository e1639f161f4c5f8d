"""Checkpoints: changed rows go to disk, all at once, with the sequence number that they stand for.

The log is the truth, and rows are what follows from it; so rows may be written late and together.  A row that changed ten
times is written once, and one that came and went never.

    1. freeze    between two commands: what changed so far stays as it is, later changes gather apart
    2. wait      until the log up to that moment is durable: rows must never be ahead of the log
    3. build     one write batch, in slices, with turns of the event loop between them
    4. write     atomically, with the note (sequence number, time of its event)
    5. thaw      the rows are on disk

A crash before step 4 is complete leaves the old rows and the old note, and replay starts from there; after it, the new ones.
There is no third case, as the batch is atomic.  Opening is: read the note, fold the log from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import attrs

from silo.archive.database import require_archive
from silo.errors import Corrupt
from silo.events.packing import from_bytes, to_bytes
from silo.projections.fold import ROWS_FORMAT, TABLES
from silo.projections.view import Key, Table
from silo.shard.disk import CHECKPOINT_KEY, read_table, row_key
from silo.shard.rows import Generation
from silo.storage import keys
from silo.storage.database import Batch, Database, Reader

logger = logging.getLogger(__name__)

SLICE_S = 0.002
"""How long building a batch keeps the event loop from everything else, if there is no hurry."""

SLICE_S_MAX = 0.010
"""The same when the next checkpoint is due already: a loop so busy takes longer turns than this anyway, and slices that are
short beside its turns would let changes gather faster than they are written."""

PAUSE_S = 0.002
"""How long the event loop has to itself between two slices, if there is no hurry."""

NO_HURRY = 0.25

BEING_REMOVED = "none: being removed"
"""Stands for the format of rows that are not all there."""

LOOK_AT_CLOCK_EVERY = 64


@attrs.frozen
class Note:
    """What the rows on disk stand for: the log up to and with `seq`, the event of which was at `time_ms`."""

    seq: int
    time_ms: int


async def read_note(reader: Reader) -> Note:
    """What the rows on disk stand for; a database without a checkpoint stands for no event at all."""
    note, _ = await _read_note(reader)
    return note


async def _read_note(reader: Reader) -> tuple[Note, str]:
    """The note, and the format of the rows."""
    raw = await reader.get(CHECKPOINT_KEY)
    if raw is None:
        return Note(0, 0), ROWS_FORMAT
    try:
        seq, time_ms, rows_format = from_bytes(raw)
    except (ValueError, TypeError) as error:
        raise Corrupt(f"the checkpoint's note cannot be read: {error}") from error
    return Note(seq, time_ms), rows_format


def _note_bytes(note: Note, rows_format: str) -> bytes:
    return to_bytes([note.seq, note.time_ms, rows_format])


async def find_rows(db: Database) -> Note:
    """What the rows on disk stand for, to replay the log from there.

    Rows that another version of this program wrote in another format are removed: they follow from the log, which every
    version can read, and will be made anew.  A crash in the middle of that leaves a note that says so.
    """
    note, rows_format = await _read_note(db)
    if rows_format == ROWS_FORMAT:
        return note
    logger.warning(
        "the rows are in format %s, not %s: they are made anew from the log", rows_format, ROWS_FORMAT
    )
    # Without what was cut off the log they would be gone for good.
    await require_archive(db)
    await remove_rows(db)
    return Note(0, 0)


async def remove_rows(db: Database) -> None:
    """Remove all rows: whoever opens the database next makes them anew from the log."""
    await _write_note(db, _note_bytes(Note(0, 0), BEING_REMOVED))
    for table in TABLES:
        async for page in read_table(db, table):
            batch = db.batch()
            batch.change([(key, None) for key, _ in page])
            await db.write(batch)
    await _write_note(db, _note_bytes(Note(0, 0), ROWS_FORMAT))


async def load_rows(db: Database, rows: Sequence[tuple[bytes, bytes]]) -> None:
    """Write some of the rows of an image.  Until `write_note` says what they all stand for, whoever opens the database
    removes them."""
    batch = db.batch()
    batch.put(CHECKPOINT_KEY, _note_bytes(Note(0, 0), BEING_REMOVED))
    batch.change(rows)
    await db.write(batch)


async def write_note(db: Database, note: Note) -> None:
    """Say what the rows stand for."""
    await _write_note(db, _note_bytes(note, ROWS_FORMAT))


async def _write_note(db: Database, note: bytes) -> None:
    batch = db.batch()
    batch.put(CHECKPOINT_KEY, note)
    await db.write(batch)


async def write_rows(
    db: Database,
    generation: Generation,
    note: Note,
    clock: Callable[[], float],
    hurry: Callable[[], float] = lambda: 1.0,
) -> None:
    """Steps 3 and 4: write a frozen generation and its note, atomically; returns when they are durable.

    Args:
        clock: seconds, for the length of a slice.
        hurry: from 0, take your time, to 1, the next checkpoint is due.
    """
    batch = db.batch()
    slice_ends = clock() + _slice_s(hurry())
    for table, rows in generation.rows.items():
        for lot in _lots(rows.items()):
            _put_rows(batch, table, lot)
            if table.entries is not None:
                _move_entries(batch, table, lot, generation.before[table])
            if clock() > slice_ends:
                # A commit needs several turns of the loop: without a pause, each would wait for a slice.
                await asyncio.sleep(PAUSE_S if hurry() < NO_HURRY else 0)
                slice_ends = clock() + _slice_s(hurry())
    batch.put(CHECKPOINT_KEY, _note_bytes(note, ROWS_FORMAT))
    await db.write(batch)


def _slice_s(hurry: float) -> float:
    return SLICE_S + min(hurry, 1.0) * (SLICE_S_MAX - SLICE_S)


def _lots(rows: Iterable[tuple[Key, Any]]) -> Iterator[list[tuple[Key, Any]]]:
    rest = iter(rows)
    while lot := list(islice(rest, LOOK_AT_CLOCK_EVERY)):
        yield lot


def _put_rows(batch: Batch, table: Table[Any], rows: list[tuple[Key, Any]]) -> None:
    prefix, encode_key, encode_row = table.prefix, keys.encode, table.encode
    batch.change([(prefix + encode_key(key), None if row is None else encode_row(row)) for key, row in rows])


def _move_entries(
    batch: Batch, table: Table[Any], rows: list[tuple[Key, Any]], before: dict[Key, Any]
) -> None:
    """Put changed rows where they belong in the other orders of their table."""
    entries, changes = table.entries, list[tuple[bytes, bytes | None]]()
    assert entries is not None
    for key, new in rows:
        old = before.get(key)
        if old is None:
            if new is not None:
                changes += [(row_key(*entry), b"") for entry in entries(key, new)]
            continue
        gone = entries(key, old)
        come = entries(key, new) if new is not None else ()
        if gone != come:
            changes += [(row_key(*entry), None) for entry in gone if entry not in come]
            changes += [(row_key(*entry), b"") for entry in come if entry not in gone]
    batch.change(changes)
