"""The rows of a shard in memory: what changed since the last checkpoint, over what was read from disk.

    changes    rows that commands changed; the next checkpoint writes them
    frozen     rows that a checkpoint is writing at this moment
    clean      rows as they are on disk, kept because they were read or written lately; bounded, oldest out first
    windows    the fronts of the queues

A row is looked for in this order.  What is nowhere here is on disk or nowhere: the view raises `NotLoaded`.

Two kinds of step change this object, and neither awaits: a command's draft (`put` and its kin, with `undo` if the command
turns out to need a row that is not here) and `install`, which takes in what was loaded.  A load that raced with the end of
a checkpoint may have seen the disk from before it, so a loader compares `epoch` and reads again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar, cast

import attrs

from silo.projections.view import Key, MissingFront, MissingRows, NotLoaded, Table
from silo.shard.window import Window

Row = TypeVar("Row")

CLEAN_ROWS_MAX = 60_000
CLEAN_BYTES_MAX = 16 << 20
WINDOWS_MAX = 20_000
ROW_BYTES = 200
"""What a changed row is reckoned to take besides its payload bytes, for the bound on a checkpoint."""


class _Absent:
    """Stands where a dictionary has no entry; None means that there is known to be no row."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()


@attrs.define
class Generation:
    """Rows changed between two checkpoints.

    Attributes:
        rows: for each table, key to row; None for a deleted row.
        fresh: for each table, the keys that no checkpoint has written; deleting such a row leaves nothing to write.
        size: bytes, roughly.
    """

    rows: dict[Table[Any], dict[Key, Any]] = attrs.field(factory=dict)
    fresh: dict[Table[Any], set[Key]] = attrs.field(factory=dict)
    size: int = 0

    def of(self, table: Table[Any]) -> dict[Key, Any]:
        rows = self.rows.get(table)
        if rows is None:
            rows = self.rows[table] = {}
            self.fresh[table] = set()
        return rows

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


@attrs.frozen
class _Change:
    """What one change replaced, so that it can be undone."""

    table: Table[Any]
    key: Key
    row: Any
    fresh: bool
    in_window: Any


class Rows:
    """One shard's rows; implements `View`."""

    def __init__(self) -> None:
        self.changes = Generation()
        self.frozen: Generation | None = None
        self.epoch = 0
        self._clean: dict[tuple[Table[Any], Key], Any] = {}
        self._clean_bytes = 0
        self._windows: dict[tuple[Table[Any], Key], Window] = {}
        self._undo: list[_Change] = []

    # --- reading ---------------------------------------------------------------------------------------------------------

    def get(self, table: Table[Row], key: Key) -> Row | None:
        row = self._peek(table, key)
        if row is ABSENT:
            raise NotLoaded(MissingRows(table, (key,)))
        return cast("Row | None", row)

    def require(self, table: Table[Any], keys: Iterable[Key]) -> None:
        missing = tuple(key for key in keys if self._peek(table, key) is ABSENT)
        if missing:
            raise NotLoaded(MissingRows(table, missing))

    def first(self, table: Table[Row], queue: Key, rows: int) -> Sequence[tuple[Key, Row]]:
        window = self._windows.get((table, queue))
        front = window.first(rows) if window is not None else None
        if front is None:
            raise NotLoaded(MissingFront(table, queue, rows))
        return front

    def _peek(self, table: Table[Any], key: Key) -> Any:
        rows = self.changes.rows.get(table)
        if rows is not None:
            row = rows.get(key, ABSENT)
            if row is not ABSENT:
                return row
        if self.frozen is not None:
            rows = self.frozen.rows.get(table)
            if rows is not None:
                row = rows.get(key, ABSENT)
                if row is not ABSENT:
                    return row
        return self._clean.get((table, key), ABSENT)

    # --- changing --------------------------------------------------------------------------------------------------------

    def insert(self, table: Table[Row], key: Key, row: Row) -> None:
        rows = self.changes.of(table)
        fresh = self.changes.fresh[table]
        old = rows.get(key, ABSENT)
        self._remember(table, key, old, key in fresh)
        if old is ABSENT:
            fresh.add(key)
        rows[key] = row
        self._note(table, key, row)

    def put(self, table: Table[Row], key: Key, row: Row) -> None:
        rows = self.changes.of(table)
        self._remember(table, key, rows.get(key, ABSENT), key in self.changes.fresh[table])
        rows[key] = row
        self._note(table, key, row)

    def delete(self, table: Table[Any], key: Key) -> None:
        rows = self.changes.of(table)
        fresh = self.changes.fresh[table]
        was_fresh = key in fresh
        in_window: Any = ABSENT
        if table.front is not None:
            window = self._windows.get((table, table.queue(key)))
            if window is not None:
                in_window = window.take(key, ABSENT)
        self._undo.append(_Change(table, key, rows.get(key, ABSENT), was_fresh, in_window))
        if was_fresh:
            fresh.discard(key)
            del rows[key]
        else:
            rows[key] = None

    def _remember(self, table: Table[Any], key: Key, old: Any, fresh: bool) -> None:
        self._undo.append(_Change(table, key, old, fresh, ABSENT))

    def _note(self, table: Table[Any], key: Key, row: Any) -> None:
        if table.front is not None:
            window = self._windows.get((table, table.queue(key)))
            if window is not None:
                window.add(key, row)
        self.changes.size += ROW_BYTES + len(row) if table.row is bytes else ROW_BYTES

    # --- drafts ----------------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """The draft is kept: what changed since the last `keep` or `undo` stays."""
        self._undo.clear()

    def undo(self) -> None:
        """The draft is dropped: take back, newest first, what changed since the last `keep` or `undo`."""
        while self._undo:
            self._take_back(self._undo.pop())

    def _take_back(self, change: _Change) -> None:
        table, key = change.table, change.key
        rows, fresh = self.changes.of(table), self.changes.fresh[table]
        if change.row is ABSENT:
            rows.pop(key, None)
        else:
            rows[key] = change.row
        if change.fresh:
            fresh.add(key)
        else:
            fresh.discard(key)
        if table.front is not None:
            window = self._windows.get((table, table.queue(key)))
            if window is not None:
                window.take(key)
                before = change.in_window if change.in_window is not ABSENT else change.row
                if before is not ABSENT and before is not None:
                    window.add(key, before)

    # --- loading ---------------------------------------------------------------------------------------------------------

    def install(self, table: Table[Any], loaded: Iterable[tuple[Key, Any]]) -> None:
        """Take in rows as they are on disk (None: there is none).  What changed in the meantime knows better."""
        for key, row in loaded:
            self._keep_clean(table, key, row)

    def horizon(self, table: Table[Any], queue: Key) -> Key | None:
        """From where the next piece of a queue has to be loaded; the empty tuple: from its beginning."""
        window = self._windows.get((table, queue))
        return window.horizon if window is not None else ()

    def extend(
        self,
        table: Table[Any],
        queue: Key,
        loaded: list[tuple[Key, Any]],
        *,
        since: Key | None,
        horizon: Key | None,
    ) -> None:
        """Take in the next piece of a queue as it is on disk, from the horizon `since` up to a new one (None: its end).

        The changes that no checkpoint has written yet are laid over it: they are not on disk, or no longer.  If the window
        gave rows back while the piece was read, the piece no longer fits and is left: the reader will ask again.
        """
        if self.horizon(table, queue) != since:
            return
        window = self._windows.get((table, queue))
        if window is None:
            self._make_room_for_windows()
            window = self._windows[(table, queue)] = Window()
        piece = dict(loaded)
        for generation in (self.frozen, self.changes):
            if generation is None:
                continue
            for key, row in generation.rows.get(table, {}).items():
                if table.queue(key) != queue or window.covers(key) or not (horizon is None or key < horizon):
                    continue
                if row is None:
                    piece.pop(key, None)
                else:
                    piece[key] = row
        window.extend(piece.items(), horizon)

    def _make_room_for_windows(self) -> None:
        # A window can be dropped at any time: it is loaded again when somebody asks.
        while len(self._windows) >= WINDOWS_MAX:
            del self._windows[next(iter(self._windows))]

    def _keep_clean(self, table: Table[Any], key: Key, row: Any) -> None:
        if not table.read_by_key:
            return
        clean = self._clean
        if table.row is bytes:
            self._clean_bytes += len(row or b"") - len(clean.get((table, key)) or b"")
        clean[(table, key)] = row
        while len(clean) > CLEAN_ROWS_MAX or self._clean_bytes > CLEAN_BYTES_MAX:
            oldest = next(iter(clean))
            gone = clean.pop(oldest)
            if oldest[0].row is bytes:
                self._clean_bytes -= len(gone or b"")

    # --- checkpoints -----------------------------------------------------------------------------------------------------

    def freeze(self) -> Generation:
        """Begin a checkpoint: what changed so far is frozen, later changes gather in a new generation."""
        assert self.frozen is None, "a checkpoint is under way"
        self.frozen, self.changes = self.changes, Generation()
        return self.frozen

    def thaw(self) -> None:
        """The checkpoint is durable: its rows are on disk now."""
        assert self.frozen is not None
        for table, rows in self.frozen.rows.items():
            for key, row in rows.items():
                self._keep_clean(table, key, row)
        self.frozen = None
        self.epoch += 1

    def changed(self, table: Table[Any]) -> Iterator[tuple[Key, Any]]:
        """The rows of a table that are not on disk yet, older generation first; None for a deleted one."""
        for generation in (self.frozen, self.changes):
            if generation is not None:
                yield from generation.rows.get(table, {}).items()
