"""All that Silo asks of storage: ordered bytes, written atomically and durably.

A database has one writer.  When another process opens the same database, the first one is *fenced*: its next
write raises `Fenced`.  A stale owner notices only then (or within about a second), so a read proves nothing
about ownership.  What a shard answers must rest on a write that returned.

Errors (silo.errors): `StoreFailed` when the store failed or did not answer in time, `Fenced`, and `Corrupt`
when stored bytes cannot be read.  A database that has failed a write is *broken*: it refuses every later call
with the same error. Its owner calls `abandon` and opens it anew; nothing that was acknowledged is lost by
that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import attrs

Row = tuple[bytes, bytes]
"""A key and its value."""


class Batch(Protocol):
    """Changes that take effect together.  The last change of a key is the one that counts.  Can be written
    once."""

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def change(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Many puts, and deletes where the value is None: quicker than one by one."""
        ...

    def __len__(self) -> int:
        """The number of changes."""
        ...


class Reader(Protocol):
    """Reads see every write that has returned; one on its way is seen or not, as a whole.  Ranges are [first, end) in the
    order of the bytes."""

    async def get(self, key: bytes) -> bytes | None: ...

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        """The first `limit` rows of the range, or its last ones in descending order."""
        ...

    def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        """The whole range as it is at the first page, at most `rows` at a time; reads ahead, and gives the
        event loop a turn between pages."""
        ...


class Snapshot(Reader, Protocol):
    """The database as it was at one moment.  Until it is released, what it shows is kept."""

    def release(self) -> None:
        """May be called twice.  Reading afterwards is an error of the program."""
        ...


@attrs.frozen(kw_only=True)
class SortedRun:
    """One level of the tree: files that do not overlap."""

    id: int
    sst_count: int
    estimated_size: int
    """Bytes."""


@attrs.frozen(kw_only=True)
class StorageInfo:
    """What the tree looks like on the store: fresh files (L0) and the sorted runs that they are merged
    into."""

    l0_sst_count: int
    total_l0_size: int
    """Bytes."""
    sorted_runs: tuple[SortedRun, ...]


class Database(Reader, Protocol):
    """One shard's database.  Used from one event loop.  Keys that start with 00 are storage's own."""

    def batch(self) -> Batch: ...

    async def write(self, batch: Batch) -> None:
        """Make the batch durable, as a whole or not at all.

        Several may be in flight; they become durable in the order of the calls.  A caller that is cancelled,
        or that sees an error, does not know the outcome: the batch may be there.
        """
        ...

    def check(self) -> None:
        """Raise what has broken the database, if something has.  Asks nobody: a fenced owner that is idle learns of it from
        the store within about a second, and this tells."""
        ...

    async def snapshot(self) -> Snapshot: ...

    async def flush(self) -> None:
        """Write what is in memory to the tree, so that opening needs no log."""
        ...

    async def compact(self) -> None:
        """Ask for all files of the tree to be merged into one run; returns before that is done."""
        ...

    async def storage_info(self) -> StorageInfo: ...

    async def close(self) -> None:
        """Wait for the writes in flight and let go, quickly: the next owner replays the log."""
        ...

    async def abandon(self) -> None:
        """Let go without writing anything, after a failure or when fenced.  Never raises, takes a few seconds
        at most."""
        ...
