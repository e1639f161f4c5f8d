"""Rows on disk: where they lie, and how what a view misses is read.

01 <seq>                the log (events/log.py)
02 <name>               the shard's own notes, such as the checkpoint
<tag of the table> <key>    rows
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from silo.projections.view import Key, MissingFront, MissingRows, Table
from silo.shard.rows import Rows
from silo.shard.window import ROWS_MAX
from silo.storage import keys
from silo.storage.database import Reader

NOTES_PREFIX = b"\x02"
CHECKPOINT_KEY = NOTES_PREFIX + b"checkpoint"

SCAN_FROM = 8
"""So many rows of one table are looked for by scanning: where keys lie together, that costs a tenth of point reads."""

ROWS_PER_PAGE = 500


def row_key(table: Table[Any], key: Key) -> bytes:
    """Where a row lies."""
    return bytes((table.tag,)) + keys.encode(key)


def key_of(raw: bytes) -> Key:
    """The inverse of `row_key`."""
    return keys.decode(raw[1:])  # type: ignore[return-value]


async def load(reader: Reader, rows: Rows, missing: MissingRows | MissingFront) -> None:
    """Bring what a command missed into memory."""
    while True:
        epoch = rows.epoch
        if isinstance(missing, MissingRows):
            found = await _read_rows(reader, missing.table, missing.keys)
            if rows.epoch == epoch:
                rows.install(missing.table, found)
                return
        else:
            since = rows.horizon(missing.table, missing.queue)
            if since is None:
                return
            piece, horizon = await _read_front(reader, missing, since)
            if rows.epoch == epoch:
                rows.extend(missing.table, missing.queue, piece, since=since, horizon=horizon)
                return
        # A checkpoint ended during the read, which may have missed what it wrote.


async def _read_rows(reader: Reader, table: Table[Any], wanted: Sequence[Key]) -> list[tuple[Key, Any]]:
    """The rows under these keys; None where there is none."""
    by_raw = {row_key(table, key): key for key in wanted}
    left = sorted(by_raw)
    found: dict[bytes, bytes | None] = {}
    while len(left) >= SCAN_FROM:
        limit = 2 * len(left)
        run = await reader.scan(left[0], left[-1] + b"\x00", limit=limit)
        hits = {raw: value for raw, value in run if raw in by_raw}
        reached = run[-1][0] if len(run) == limit else left[-1]
        passed = [raw for raw in left if raw <= reached]
        found.update((raw, hits.get(raw)) for raw in passed)
        left = left[len(passed) :]
        if len(hits) * 4 < len(run):
            break
    for raw in left:
        found[raw] = await reader.get(raw)
    return [(by_raw[raw], table.decode(value) if value is not None else None) for raw, value in found.items()]


async def _read_front(
    reader: Reader, missing: MissingFront, since: Key
) -> tuple[list[tuple[Key, Any]], Key | None]:
    """The next piece of a queue from `since` on, and the horizon up to which it is complete."""
    table = missing.table
    queue = row_key(table, missing.queue)
    first = row_key(table, since) if since else queue
    limit = max(ROWS_MAX // 2, missing.rows)
    raw = await reader.scan(first, keys.prefix_end(queue), limit=limit)
    piece = [(key_of(key), table.decode(value)) for key, value in raw]
    if len(raw) < limit:
        return piece, None
    # Complete up to and without the last row, which begins the next piece.
    return piece[:-1], piece[-1][0]


async def read_table(reader: Reader, table: Table[Any]) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """All rows of a table as they lie on disk, in order, a page at a time."""
    tag = bytes((table.tag,))
    async for page in reader.pages(tag, keys.prefix_end(tag), rows=ROWS_PER_PAGE):
        yield page
