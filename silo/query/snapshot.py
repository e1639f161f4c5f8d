"""The rows of a shard at one moment: what is on disk, under what is only in memory.

A statement is run in threads of DataFusion, and the database belongs to the event loop; so a thread asks the loop for a
page, and takes it apart itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import attrs

from silo.archive.archive import Archive
from silo.archive.database import ArchivedSnapshot
from silo.events.catalogue import Event
from silo.events.log import LOG_END, LOG_PREFIX, first_seq_of, record_key
from silo.events.log import read as read_log
from silo.projections.view import Key, Table
from silo.shard.disk import decoded, key_of, read_rows, row_key
from silo.shard.shard import Shard
from silo.storage import keys
from silo.storage.database import Snapshot

T = TypeVar("T")

ROWS_A_PAGE = 500
RECORDS_A_PAGE = 16
TRIES_MAX = 100


class Stopped(Exception):
    """Nobody wants the rest of a statement's rows."""


@attrs.define
class ShardSnapshot:
    """A shard at one moment.  `release` it.

    Attributes:
        now_ms: that moment.
        seq: the newest event that it knows of.
        changed: for each table, the rows that are not on disk; None for a deleted one.
    """

    shard_id: str
    now_ms: int
    seq: int
    changed: Mapping[Table[Any], Mapping[Key, Any]]
    disk: Snapshot
    loop: asyncio.AbstractEventLoop
    is_stopped: bool = False

    @property
    def archive(self) -> Archive | None:
        """Where events of old are in columns, if there is an archive."""
        return self.disk.archive if isinstance(self.disk, ArchivedSnapshot) else None

    @property
    def archived_seq(self) -> int:
        """It has all events up to this one."""
        return min(self.disk.archived_seq, self.seq) if isinstance(self.disk, ArchivedSnapshot) else 0

    def release(self) -> None:
        """Whoever still reads is stopped at his next page."""
        self.is_stopped = True
        self.disk.release()

    # --- for threads -----------------------------------------------------------------------------------------------------

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the event loop do something, from another thread.  Raises Stopped."""
        if self.is_stopped:
            work.close()
            raise Stopped
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def rows(
        self, table: Table[Any], prefix: Key = (), *, only: AbstractSet[Key] | None = None
    ) -> Iterator[list[tuple[Key, Any]]]:
        """The rows of a table whose keys begin like this (and are among these), in pages and in no order."""
        changed = self.changed.get(table, {})
        for raw in self._raw_pages(table, prefix):
            page = [(key_of(key), value) for key, value in raw]
            yield [
                (key, decoded(table, key, value))
                for key, value in page
                if key not in changed and (only is None or key in only)
            ]
        yield [
            (key, row)
            for key, row in changed.items()
            if row is not None and key[: len(prefix)] == prefix and (only is None or key in only)
        ]

    def keys(self, index: Table[Any], prefix: Key = ()) -> Iterator[list[Key]]:
        """The entries of an index that is only on disk, in order: what is in memory may say otherwise of their rows."""
        for raw in self._raw_pages(index, prefix):
            yield [key_of(key) for key, _ in raw]

    def keys_backward(self, index: Table[Any], prefix: Key) -> Iterator[list[Key]]:
        """The same, the last one first."""
        first = row_key(index, prefix)
        end = keys.prefix_end(first)
        while raw := self.wait(self.disk.scan(first, end, limit=ROWS_A_PAGE, reverse=True)):
            yield [key_of(key) for key, _ in raw]
            end = raw[-1][0]

    def found(self, table: Table[Any], wanted: Sequence[Key]) -> dict[Key, Any]:
        """The rows under these keys, of those that there are."""
        changed = self.changed.get(table, {})
        rows = {key: changed[key] for key in wanted if key in changed}
        rest = [key for key in wanted if key not in rows]
        if rest:
            rows.update(self.wait(read_rows(self.disk, table, rest)))
        return {key: row for key, row in rows.items() if row is not None}

    def _raw_pages(self, table: Table[Any], prefix: Key) -> Iterator[list[tuple[bytes, bytes]]]:
        first = row_key(table, prefix)
        yield from self.pull(self.disk.pages(first, keys.prefix_end(first), rows=ROWS_A_PAGE))

    def events(self, start: int, end: int) -> Iterator[list[Event]]:
        """The events from `start` up to before `end`, as far as they are known."""
        yield from self.pull(read_log(self.disk, max(start, 1), end=min(end, self.seq + 1)))

    def records(self, start: int) -> Iterator[list[tuple[int, bytes]]]:
        """The records of the log, from the one that holds this event on, by the numbers of their first events."""
        if start <= self.seq:
            held = self.wait(self.disk.scan(LOG_PREFIX, record_key(start + 1), limit=1, reverse=True))
            for page in self.pull(self.disk.pages(held[0][0], LOG_END, rows=RECORDS_A_PAGE)):
                yield [(first_seq_of(key), record) for key, record in page]

    def go_on(self) -> None:
        """Raise Stopped if nobody wants the rest."""
        if self.is_stopped:
            raise Stopped

    def pull(self, pages: AsyncIterator[T]) -> Iterator[T]:
        """What an asynchronous iterator of the loop gives."""
        while True:
            page = self.wait(_next(pages))
            if page is None:
                return
            yield page


async def _next(pages: AsyncIterator[T]) -> T | None:
    return await anext(pages, None)


async def take(shard: Shard, tables: Sequence[Table[Any]]) -> ShardSnapshot:
    """The rows of these tables as they are now; returns when everything in them is durable.

    Raises what `Shard.execute` raises.
    """
    for _ in range(TRIES_MAX):
        log, rows, database = shard.log, shard.rows, shard.database
        epoch, frozen, seq = rows.epoch, rows.frozen, log.next_seq - 1
        changed = {table: dict(rows.changed(table)) for table in tables}
        now_ms = shard.now_ms()
        disk = await database.snapshot()
        # A checkpoint in between may have written what changed later, and would be mixed with what is noted here.
        if rows is shard.rows and rows.epoch == epoch and rows.frozen is frozen:
            break
        disk.release()
    try:
        await log.durable()
    except BaseException:
        disk.release()
        raise
    return ShardSnapshot(shard.shard_id, now_ms, seq, changed, disk, asyncio.get_running_loop())
