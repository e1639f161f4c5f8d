"""Who reads the log under a name, and how far they have come."""

from __future__ import annotations

import attrs

from silo.events.catalogue import CursorDeleted, CursorMoved
from silo.projections.view import Table, View


@attrs.define
class CursorRow:
    """Where a reader is: done with all events up to `seq`, since `moved_ms`."""

    seq: int
    moved_ms: int


CURSORS = Table("cursors", tag=0x60, row=CursorRow)
"""(name)"""


def cursor_moved(event: CursorMoved, _: None, view: View) -> None:
    view.put(CURSORS, (event.name,), CursorRow(event.done_seq, event.time_ms))


def cursor_deleted(event: CursorDeleted, _: None, view: View) -> None:
    view.delete(CURSORS, (event.name,))


FOLDS = {CursorMoved: cursor_moved, CursorDeleted: cursor_deleted}
