"""The rows of a shard in memory: what changed since the last checkpoint, over what was read from disk.

    changes    rows that commands changed; the next checkpoint writes them
    frozen     rows that a checkpoint is writing at this moment
    loaded     rows as they are on disk, read since the last checkpoint
    earlier    rows written or read before that, newest first; when there are too many, the oldest lot goes as a whole
    windows    the fronts of the queues
    catalogues of some tables and groups, which keys are on disk at all

A row is looked for in this order.  What is nowhere here is on disk or nowhere: the view raises `NotLoaded`.

Two kinds of step change this object, and neither awaits: a command's draft (`put` and its kin, with `undo` if the command
turns out to need a row that is not here) and `install`, which takes in what was loaded.  A load that raced with the end of
a checkpoint may have seen the disk from before it, so a loader compares `epoch` and reads again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from silo.projections.view import Key, MissingFront, MissingRows, NotLoaded, Table
from silo.shard.window import Window

Row = TypeVar("Row")

LOADED_BYTES_MAX = 8 << 20
EARLIER_LOTS_MAX = 1
WINDOWS_MAX = 20_000
CATALOGUES_MAX = 20_000
CATALOGUE_KEYS_MAX = 20_000
"""A group of which more keys are on disk has no catalogue."""

ROW_BYTES = 200
"""What a changed row is reckoned to take besides its payload bytes, for the bound on a checkpoint."""


class _Absent:
    """Stands where a dictionary has no entry; None means that there is known to be no row."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()

NO_ROWS: Final[dict[Key, Any]] = {}


class Generation:
    """Rows changed between two checkpoints.

    Attributes:
        rows: for each table, key to row; None for a deleted row.
        fresh: for each table, the keys that no checkpoint has written; deleting such a row leaves nothing to write.
        before: for each table with entries in other orders, the rows that the other checkpoints have written.
        payload_bytes: of the rows that are nothing but bytes.
    """

    def __init__(self) -> None:
        self.rows: defaultdict[Table[Any], dict[Key, Any]] = defaultdict(dict)
        self.fresh: defaultdict[Table[Any], set[Key]] = defaultdict(set)
        self.before: defaultdict[Table[Any], dict[Key, Any]] = defaultdict(dict)
        self.payload_bytes = 0

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return self.payload_bytes + ROW_BYTES * len(self)

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


class _Lot:
    """Rows as they are on disk."""

    def __init__(self) -> None:
        self.rows: defaultdict[Table[Any], dict[Key, Any]] = defaultdict(dict)
        self.size = 0


_Change = tuple[Table[Any], Key, Any, bool, Any]
"""What one change replaced, so that it can be undone: table, key, row before, whether that was fresh, row in the window."""


class Rows:
    """One shard's rows; implements `View`.

    A job's life takes some fifty calls of `get` and `put`, so these are written for speed: no helper is called for what
    most calls need.
    """

    def __init__(self) -> None:
        self.frozen: Generation | None = None
        self._begin_generation()
        self.epoch = 0
        self._loaded = _Lot()
        self._earlier: tuple[_Lot, ...] = ()
        self._windows: defaultdict[Table[Any], dict[Key, Window]] = defaultdict(dict)
        self._catalogues: defaultdict[Table[Any], dict[Key, set[Key] | None]] = defaultdict(dict)
        self._undo: list[_Change] = []
        self._begun: list[tuple[Table[Any], Key]] = []

    # --- reading ---------------------------------------------------------------------------------------------------------

    def get(self, table: Table[Row], key: Key) -> Row | None:
        row = self._changed[table].get(key, ABSENT)
        if row is ABSENT:
            row = self._peek_below(table, key)
            if row is ABSENT:
                raise NotLoaded(MissingRows(table, (key,)))
        return row  # type: ignore[no-any-return]

    def require(self, table: Table[Any], keys: Iterable[Key], *, ahead: Iterable[Key] = ()) -> None:
        missing = self.missing(table, keys)
        if missing:
            raise NotLoaded(MissingRows(table, tuple(dict.fromkeys(missing)), ahead))

    def missing(self, table: Table[Any], keys: Iterable[Key]) -> list[Key]:
        """Those of the keys of which nobody here knows whether there is a row."""
        changed = self._changed[table]
        return [key for key in keys if key not in changed and self._peek_below(table, key) is ABSENT]

    def first(self, table: Table[Row], queue: Key, rows: int) -> Sequence[tuple[Key, Row]]:
        window = self._windows[table].get(queue)
        front = window.first(rows) if window is not None else None
        if front is None:
            raise NotLoaded(MissingFront(table, queue, rows))
        return front

    def at_hand(self, table: Table[Row], queue: Key, rows: int) -> Sequence[tuple[Key, Row]]:
        window = self._windows[table].get(queue)
        return window.at_hand(rows) if window is not None else ()

    def _peek_below(self, table: Table[Any], key: Key) -> Any:
        """The row as it was before the changes, or ABSENT if it is not in memory."""
        if self.frozen is not None:
            # Not frozen.rows[table]: a checkpoint is walking through it, and must not see it grow.
            row = self.frozen.rows.get(table, NO_ROWS).get(key, ABSENT)
            if row is not ABSENT:
                return row
        row = self._loaded.rows[table].get(key, ABSENT)
        if row is ABSENT:
            for lot in self._earlier:
                row = lot.rows[table].get(key, ABSENT)
                if row is not ABSENT:
                    return row
            if table.catalogue is not None and self._is_nowhere(table, key):
                return None
        return row

    def _is_nowhere(self, table: Table[Any], key: Key) -> bool:
        """Whether it is known that there is no row on disk."""
        on_disk = self._catalogues[table].get(key[: table.catalogue])
        return on_disk is not None and key not in on_disk

    # --- changing --------------------------------------------------------------------------------------------------------

    def begin(self, table: Table[Any], queue: Key) -> None:
        if queue not in self._windows[table]:
            self._open_window(table, queue).extend((), None)
            self._begun.append((table, queue))

    def insert(self, table: Table[Row], key: Key, row: Row) -> None:
        rows = self._changed[table]
        old = rows.get(key, ABSENT)
        if old is ABSENT:
            self._fresh[table].add(key)
            if table.is_bytes:
                self.changes.payload_bytes += len(row)  # type: ignore[arg-type]
        self._undo.append((table, key, old, False, ABSENT))
        rows[key] = row
        if table.front is not None:
            window = self._windows[table].get(key[: table.front])
            if window is not None:
                window.add(key, row)

    def put(self, table: Table[Row], key: Key, row: Row) -> None:
        rows = self._changed[table]
        old = rows.get(key, ABSENT)
        if old is ABSENT:
            if table.is_bytes:
                self.changes.payload_bytes += len(row)  # type: ignore[arg-type]
            elif table.entries is not None:
                self._note_before(table, key)
        self._undo.append((table, key, old, False, ABSENT))
        rows[key] = row

    def delete(self, table: Table[Any], key: Key) -> None:
        rows, fresh = self._changed[table], self._fresh[table]
        was_fresh = key in fresh
        in_window: Any = ABSENT
        if table.front is not None:
            window = self._windows[table].get(key[: table.front])
            if window is not None:
                in_window = window.take(key, ABSENT)
        old = rows.get(key, ABSENT)
        if old is ABSENT and table.entries is not None:
            self._note_before(table, key)
        self._undo.append((table, key, old, was_fresh, in_window))
        if was_fresh:
            fresh.discard(key)
            dropped = rows.pop(key)
            if table.is_bytes:
                self.changes.payload_bytes -= len(dropped)
        else:
            rows[key] = None

    def _note_before(self, table: Table[Any], key: Key) -> None:
        row = self._peek_below(table, key)
        assert row is not ABSENT, f"{table} {key} was changed by somebody who had not read it"
        self.changes.before[table][key] = row

    # --- drafts ----------------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """The draft is kept: what changed since the last `keep` or `undo` stays."""
        self._undo.clear()
        self._begun.clear()

    def undo(self) -> None:
        """The draft is dropped: take back, newest first, what changed since the last `keep` or `undo`."""
        while self._undo:
            self._take_back(*self._undo.pop())
        for table, queue in self._begun:
            # That the queue was empty came from the draft: whether it is now is for the disk to say.
            self._windows[table].pop(queue, None)
        self._begun.clear()

    def _take_back(self, table: Table[Any], key: Key, row: Any, was_fresh: bool, in_window: Any) -> None:
        rows, fresh = self._changed[table], self._fresh[table]
        if row is ABSENT:
            undone = rows.pop(key)
            if table.is_bytes and undone:
                self.changes.payload_bytes -= len(undone)
            fresh.discard(key)
            if table.entries is not None:
                self.changes.before[table].pop(key, None)
        else:
            rows[key] = row
            if was_fresh:
                fresh.add(key)
                if table.is_bytes:
                    self.changes.payload_bytes += len(row)
        if table.front is not None:
            window = self._windows[table].get(key[: table.front])
            if window is not None:
                window.take(key)
                before = in_window if in_window is not ABSENT else row
                if before is not ABSENT and before is not None:
                    window.add(key, before)

    # --- loading ---------------------------------------------------------------------------------------------------------

    def install(self, table: Table[Any], loaded: Iterable[tuple[Key, Any]]) -> None:
        """Take in rows as they are on disk (None: there is none).  What changed in the meantime knows better."""
        lot = self._loaded
        rows = lot.rows[table]
        for key, row in loaded:
            rows[key] = row
            lot.size += ROW_BYTES + len(row) if table.is_bytes and row else ROW_BYTES
        if lot.size > LOADED_BYTES_MAX:
            self._put_aside()

    def horizon(self, table: Table[Any], queue: Key) -> Key | None:
        """From where the next piece of a queue has to be loaded; the empty tuple: from its beginning."""
        window = self._windows[table].get(queue)
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
        window = self._windows[table].get(queue)
        if window is None:
            window = self._open_window(table, queue)
        piece = dict(loaded)
        for generation in (self.frozen, self.changes):
            if generation is None:
                continue
            for key, row in generation.rows.get(table, NO_ROWS).items():
                if table.queue(key) != queue or window.covers(key) or not (horizon is None or key < horizon):
                    continue
                if row is None:
                    piece.pop(key, None)
                else:
                    piece[key] = row
        window.extend(piece.items(), horizon)

    def _open_window(self, table: Table[Any], queue: Key) -> Window:
        windows = self._windows[table]
        _make_room(windows, WINDOWS_MAX)
        window = windows[queue] = Window()
        return window

    def has_catalogue(self, table: Table[Any], group: Key) -> bool:
        """Whether it is known which keys of a group are on disk, or that they are too many."""
        return group in self._catalogues[table]

    def catalogue(self, table: Table[Any], group: Key, on_disk: Iterable[Key] | None) -> None:
        """Take in which keys of a group are on disk; None: too many."""
        catalogues = self._catalogues[table]
        _make_room(catalogues, CATALOGUES_MAX)
        catalogues[group] = None if on_disk is None else set(on_disk)

    def _put_aside(self) -> None:
        """Begin a new lot of loaded rows.  A row is never in an older lot without a newer one knowing better, so any number
        of lots can be dropped from the end."""
        self._earlier = (self._loaded, *self._earlier)[:EARLIER_LOTS_MAX]
        self._loaded = _Lot()

    # --- checkpoints -----------------------------------------------------------------------------------------------------

    def freeze(self) -> Generation:
        """Begin a checkpoint: what changed so far is frozen, later changes gather in a new generation."""
        assert self.frozen is None, "a checkpoint is under way"
        self.frozen = self.changes
        self._begin_generation()
        return self.frozen

    def _begin_generation(self) -> None:
        self.changes = Generation()
        # The same dictionaries, a look-up nearer for what is called most.
        self._changed = self.changes.rows
        self._fresh = self.changes.fresh

    def thaw(self) -> None:
        """The checkpoint is durable: its rows are on disk now."""
        assert self.frozen is not None
        for table, rows in self.frozen.rows.items():
            if table.read_by_key:
                self._loaded.rows[table].update(rows)
            if table.catalogue is not None:
                self._recatalogue(table, rows)
        self._put_aside()
        self.frozen = None
        self.epoch += 1

    def _recatalogue(self, table: Table[Any], written: dict[Key, Any]) -> None:
        catalogues = self._catalogues[table]
        for key, row in written.items():
            group = key[: table.catalogue]
            on_disk = catalogues.get(group)
            if on_disk is None:
                continue
            if row is None:
                on_disk.discard(key)
            elif len(on_disk) < CATALOGUE_KEYS_MAX:
                on_disk.add(key)
            else:
                catalogues[group] = None

    def changed(self, table: Table[Any]) -> Iterator[tuple[Key, Any]]:
        """The rows of a table that are not on disk yet, older generation first; None for a deleted one."""
        for generation in (self.frozen, self.changes):
            if generation is not None:
                yield from generation.rows.get(table, NO_ROWS).items()


def _make_room(known: dict[Key, Any], most: int) -> None:
    """Drop the older half of what can be dropped at any time, as it is loaded again when somebody asks."""
    if len(known) >= most:
        for key in list(known)[: most // 2]:
            del known[key]
