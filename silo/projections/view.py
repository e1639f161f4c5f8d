"""Rows as decisions and folds see them.

State is larger than memory.  A view answers from memory or raises `NotLoaded`; the shard then drops what the command has
done so far, loads what was missing, and runs it again.  So nothing here and nothing above it awaits.

Rows are replaced, never changed in place: a draft shares them with the shard, and a row that was changed would survive a
draft that is dropped.  (They are not frozen classes only because those cost four times as much to make.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import attrs

from silo.errors import Corrupt
from silo.events.catalogue import Event
from silo.events.packing import from_bytes, packer, to_bytes, unpacker

Row = TypeVar("Row")
Key = tuple[str | int, ...]


class Table(Generic[Row]):
    """A set of rows under ordered tuple keys.

    Args:
        name: what SQL, tools and errors call it.
        tag: one byte that begins every key of the table on disk; never reused.
        row: the type of its rows: an attrs class, or `bytes` for rows that are passed through.
        front: for a table that is read in order, how many leading parts of a key choose the queue (0: it is one
            queue).  The front of each queue is kept in memory, the rest on disk.  None: it is not read so.
        entries: where a row stands in other orders, as keys of index tables.  No fold writes those: a checkpoint does, from
            the rows before and after.
        index: the table is such an order: it is only listed, by queries, and its rows are not worth keeping in memory.
        catalogue: for a table that is often asked for rows that do not exist, how many leading parts of a key choose the
            group of which all keys on disk are kept in memory, if there are not too many.  None: the disk is asked.
    """

    def __init__(
        self,
        name: str,
        *,
        tag: int,
        row: type[Row],
        front: int | None = None,
        entries: Callable[[Key, Row], Sequence[Entry]] | None = None,
        index: bool = False,
        catalogue: int | None = None,
    ) -> None:
        self.name = name
        self.tag = tag
        self.prefix = bytes((tag,))
        self.row = row
        self.front = front
        self.entries = entries
        self.catalogue = catalogue
        self.is_bytes = row is bytes
        self.read_by_key = front is None and not index
        self._pack = None if self.is_bytes else packer(row)
        self._unpack = None if self.is_bytes else unpacker(row)

    def encode(self, row: Row) -> bytes:
        """The bytes that a row has on disk."""
        if self._pack is None:
            assert isinstance(row, bytes)
            return row
        return to_bytes(self._pack(row))

    def decode(self, raw: bytes) -> Row:
        """The row that has these bytes; raises ValueError or TypeError if there is none."""
        if self._unpack is None:
            return raw  # type: ignore[return-value]
        return self._unpack(from_bytes(raw))

    def queue(self, key: Key) -> Key:
        """The queue of an ordered table that a key belongs to."""
        return key[: self.front]

    def __repr__(self) -> str:
        return f"Table({self.name})"


Entry = tuple[Table[bytes], Key]
"""A place in an index table.  Its row is empty."""


@attrs.frozen
class MissingRows:
    """Rows to be read by key.  Whoever reads them may read those of `ahead` as well, as far as they are not in memory."""

    table: Table[Any]
    keys: tuple[Key, ...]
    ahead: Iterable[Key] = ()


@attrs.frozen
class MissingFront:
    """The next rows of a queue, in order; `rows` is how many the reader asked for."""

    table: Table[Any]
    queue: Key
    rows: int


class NotLoaded(Exception):
    """What was asked for is on disk, or known to be nowhere only by looking there."""

    def __init__(self, missing: MissingRows | MissingFront) -> None:
        super().__init__(missing)
        self.missing = missing


class View(Protocol):
    """The rows of one shard at one moment."""

    def get(self, table: Table[Row], key: Key) -> Row | None:
        """The row, or None if there is none.  Raises NotLoaded."""

    def require(self, table: Table[Any], keys: Iterable[Key], *, ahead: Iterable[Key] = ()) -> None:
        """Say that these rows will be read, so that all that are missing are loaded at once.  Raises NotLoaded.

        If one is missing, those of `ahead` are loaded with it: rows that the next commands will ask for.  It is only when
        the disk is read, and so after this command was dropped, that `ahead` is looked at.
        """

    def first(self, table: Table[Row], queue: Key, rows: int) -> Sequence[tuple[Key, Row]]:
        """Up to `rows` rows of a queue, from its front.  Raises NotLoaded."""

    def at_hand(self, table: Table[Row], queue: Key, rows: int) -> Sequence[tuple[Key, Row]]:
        """The same, but only as far as it is in memory: for guessing what will be asked for next."""

    def begin(self, table: Table[Any], queue: Key) -> None:
        """Say that a queue is empty, so that nobody need look for it on disk."""

    def insert(self, table: Table[Row], key: Key, row: Row) -> None:
        """Add a row under a key that has none now.  If it goes before a checkpoint, it never reaches the disk."""

    def put(self, table: Table[Row], key: Key, row: Row) -> None:
        """Replace the row under a key, or add it.  Not for tables with a front, whose entries come and go unchanged."""

    def delete(self, table: Table[Any], key: Key) -> None:
        """Remove the row under a key that has one."""


def existing(view: View, table: Table[Row], key: Key, event: Event) -> Row:
    """The row that an event takes for granted.  Raises Corrupt if there is none: log and rows contradict each other."""
    row = view.get(table, key)
    if row is None:
        raise Corrupt(
            f"event {event.seq} ({type(event).__name__}) needs {table.name} {key}, which does not exist"
        )
    return row
