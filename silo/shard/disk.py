"""Rows on disk: where they lie, and how what a view misses is read.

01 <seq>                the log (events/log.py)
02 <name>               the shard's own notes, such as the checkpoint
<tag of the table> <key>    rows
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from silo.errors import Corrupt
from silo.projections.view import Key, MissingFront, MissingRows, Table
from silo.shard.rows import CATALOGUE_KEYS_MAX, Rows
from silo.shard.window import ROWS_MAX
from silo.storage import keys
from silo.storage.database import Reader

NOTES_PREFIX = b"\x02"
CHECKPOINT_KEY = NOTES_PREFIX + b"checkpoint"

SCAN_FROM = 8
"""So many rows are looked for by scanning: where keys lie together, that costs a tenth of point reads."""

SCANNED_AT_ONCE = 256

GETS_AT_ONCE = 32
"""Point reads spend most of their time waiting for a thread of the store, so some are under way together."""

ROWS_PER_PAGE = 500


def row_key(table: Table[Any], key: Key) -> bytes:
    """Where a row lies."""
    return table.prefix + keys.encode(key)


def key_of(raw: bytes) -> Key:
    """The inverse of `row_key`."""
    return keys.decode(raw[1:])  # type: ignore[return-value]


class Loader:
    """Brings what commands miss into memory, each thing once, however many commands wait for it."""

    def __init__(self, reader: Reader, rows: Rows) -> None:
        self._reader = reader
        self._rows = rows
        self._under_way: dict[tuple[Table[Any], Key], asyncio.Future[None]] = {}

    async def load(self, missing: MissingRows | MissingFront) -> None:
        """Load what is missing, or wait until whoever loads some of it is done; the caller will see what it still misses.

        Whoever loads goes on without giving the loop a turn, so nobody can push its rows out of memory before it has used
        them: each load lets at least one command get ahead.

        Raises what the store raised.
        """
        if isinstance(missing, MissingFront):
            places = [(missing.table, missing.queue)]
        else:
            places = [(missing.table, key) for key in missing.keys]
        under_way = dict.fromkeys(self._under_way[place] for place in places if place in self._under_way)
        for load_of_another in under_way:
            # Shielded, as a waiter that goes away must not take along what others wait for.
            await asyncio.shield(load_of_another)
        if under_way:
            return
        if isinstance(missing, MissingRows):
            missing = self._with_ahead(missing)
            places = [(missing.table, key) for key in missing.keys]
        await self._load(missing, places)

    def _with_ahead(self, missing: MissingRows) -> MissingRows:
        also = self._rows.missing(missing.table, missing.ahead)
        keys = [*missing.keys, *(key for key in also if (missing.table, key) not in self._under_way)]
        return MissingRows(missing.table, tuple(dict.fromkeys(keys)))

    async def _load(self, missing: MissingRows | MissingFront, places: list[tuple[Table[Any], Key]]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.update((place, done) for place in places)
        try:
            await load(self._reader, self._rows, missing)
        finally:
            for place in places:
                del self._under_way[place]
            done.set_result(None)


async def load(reader: Reader, rows: Rows, missing: MissingRows | MissingFront) -> None:
    """Bring what a command missed into memory."""
    while True:
        epoch = rows.epoch
        if isinstance(missing, MissingRows):
            groups = await _read_catalogues(reader, rows, missing)
            wanted = [key for key in missing.keys if _may_exist(missing.table, key, groups)]
            found = await read_rows(reader, missing.table, wanted)
            if rows.epoch == epoch:
                for group, keys_on_disk in groups.items():
                    rows.catalogue(missing.table, group, keys_on_disk)
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


async def _read_catalogues(
    reader: Reader, rows: Rows, missing: MissingRows
) -> dict[Key, frozenset[Key] | None]:
    """Which keys are on disk, for each group of the missing ones of which that is not known yet; None: too many."""
    table = missing.table
    if table.catalogue is None:
        return {}
    groups = dict.fromkeys(key[: table.catalogue] for key in missing.keys)
    return {
        group: await _read_catalogue(reader, table, group)
        for group in groups
        if not rows.has_catalogue(table, group)
    }


async def _read_catalogue(reader: Reader, table: Table[Any], group: Key) -> frozenset[Key] | None:
    first = row_key(table, group)
    found = await reader.scan(first, keys.prefix_end(first), limit=CATALOGUE_KEYS_MAX)
    return frozenset(key_of(raw) for raw, _ in found) if len(found) < CATALOGUE_KEYS_MAX else None


def _may_exist(table: Table[Any], key: Key, groups: dict[Key, frozenset[Key] | None]) -> bool:
    on_disk = groups.get(key[: table.catalogue]) if table.catalogue is not None else None
    return on_disk is None or key in on_disk


async def read_rows(reader: Reader, table: Table[Any], wanted: Sequence[Key]) -> list[tuple[Key, Any]]:
    """The rows under these keys; None where there is none."""
    # Keys that differ in their last part only may lie together: a tenant's jobs, or payloads.
    groups: dict[Key, list[tuple[bytes, Key]]] = {}
    for key in wanted:
        groups.setdefault(key[:-1], []).append((row_key(table, key), key))
    found: list[tuple[Key, Any]] = []
    alone: list[tuple[bytes, Key]] = []
    for group in groups.values():
        group.sort()
        values = await _read_together(reader, [raw for raw, _ in group]) if len(group) >= SCAN_FROM else {}
        found += [(key, decoded(table, key, values[raw])) for raw, key in group if raw in values]
        alone += [(raw, key) for raw, key in group if raw not in values]
    if len(alone) == 1:
        ((raw, key),) = alone
        return [*found, (key, decoded(table, key, await reader.get(raw)))]
    for lot in (alone[at : at + GETS_AT_ONCE] for at in range(0, len(alone), GETS_AT_ONCE)):
        raws = await asyncio.gather(*(reader.get(raw) for raw, _ in lot))
        found += [(key, decoded(table, key, value)) for (_, key), value in zip(lot, raws, strict=True)]
    return found


async def _read_together(reader: Reader, wanted: list[bytes]) -> dict[bytes, bytes | None]:
    """What scanning tells about these keys, which are in order; it gives up where they turn out not to lie together."""
    known: dict[bytes, bytes | None] = {}
    # The first few tell whether it is worth it.
    at, size = 0, SCAN_FROM
    while at < len(wanted):
        asked = wanted[at : at + size]
        limit = 2 * len(asked)
        run = dict(await reader.scan(asked[0], asked[-1] + b"\x00", limit=limit))
        reached = max(run) if len(run) == limit else asked[-1]
        passed = [raw for raw in asked if raw <= reached]
        known.update((raw, run.get(raw)) for raw in passed)
        if len(run.keys() & set(passed)) * 4 < len(run):
            break
        at, size = at + len(passed), SCANNED_AT_ONCE
    return known


def decoded(table: Table[Any], key: Key, value: bytes | None) -> Any:
    """The row that lies under a key as these bytes.  Raises Corrupt if they are none."""
    try:
        return table.decode(value) if value is not None else None
    except (ValueError, TypeError) as error:
        raise Corrupt(f"the row {table.name} {key} cannot be read: {error}") from error


async def _read_front(
    reader: Reader, missing: MissingFront, since: Key
) -> tuple[list[tuple[Key, Any]], Key | None]:
    """The next piece of a queue from `since` on, and the horizon up to which it is complete."""
    table = missing.table
    queue = row_key(table, missing.queue)
    first = row_key(table, since) if since else queue
    limit = max(ROWS_MAX // 2, missing.rows)
    raw = await reader.scan(first, keys.prefix_end(queue), limit=limit)
    piece = [(key, decoded(table, key, value)) for key, value in ((key_of(key), value) for key, value in raw)]
    if len(raw) < limit:
        return piece, None
    # Complete up to and without the last row, which begins the next piece.
    return piece[:-1], piece[-1][0]


async def read_table(
    reader: Reader, table: Table[Any], front: Key = (), *, rows: int = ROWS_PER_PAGE
) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """The rows of a table whose keys begin with `front`, as they lie on disk, in order, a page at a time."""
    first = row_key(table, front)
    async for page in reader.pages(first, keys.prefix_end(first), rows=rows):
        yield page
