"""The front of one long queue, in memory and in order; the rest of it on disk.

A window promises: *every row of the queue below its horizon is here*.  A row that comes in below the horizon is added, one
beyond it is left to the disk, and when the front is used up the shard loads the next piece.  So a backlog of millions costs
the memory of a few thousand rows, and taking from its front costs the same at any length.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from sortedcontainers import SortedDict

from silo.projections.view import Key

ROWS_MAX = 4096
"""A window that has grown to twice this many rows by insertion gives its tail back to the disk."""


class Window:
    """The front of one queue."""

    def __init__(self) -> None:
        self._rows: SortedDict[Key, Any] = SortedDict()
        self._horizon: Key | None = ()

    @property
    def horizon(self) -> Key | None:
        """Every row below this key is here; None: every row of the queue is.  The empty tuple: nothing was loaded yet."""
        return self._horizon

    def first(self, rows: int) -> list[tuple[Key, Any]] | None:
        """Up to `rows` rows from the front, or None if more of the queue must be loaded to tell."""
        if len(self._rows) < rows and self._horizon is not None:
            return None
        return self.at_hand(rows)

    def at_hand(self, rows: int) -> list[tuple[Key, Any]]:
        """Up to `rows` rows from the front, as far as it is here."""
        return list(islice(self._rows.items(), rows)) if self._rows else []

    def covers(self, key: Key) -> bool:
        """Whether the row under this key is here if it exists at all."""
        return self._horizon is None or key < self._horizon

    def add(self, key: Key, row: Any) -> None:
        """Note a new row; one beyond the horizon is not kept."""
        if not self.covers(key):
            return
        self._rows[key] = row
        if len(self._rows) > 2 * ROWS_MAX:
            self._horizon = self._rows.keys()[ROWS_MAX]
            del self._rows.keys()[ROWS_MAX:]

    def take(self, key: Key, default: Any = None) -> Any:
        """Forget the row under a key and return it, or `default` if it was not here."""
        return self._rows.pop(key, default)

    def extend(self, rows: Iterable[tuple[Key, Any]], horizon: Key | None) -> None:
        """Take in all rows of the queue from the old horizon up to a new one (None: to its end)."""
        self._rows.update(rows)
        self._horizon = horizon
