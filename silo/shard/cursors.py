"""Named cursors: how far somebody has read the log, kept for when he comes back."""

from __future__ import annotations

import attrs

from silo.errors import Invalid, NotFound
from silo.events.catalogue import CursorDeleted, CursorMoved
from silo.projections.cursors import CURSORS, CursorRow
from silo.shard.draft import Draft

NAME_CHARS_MAX = 128


@attrs.frozen
class MoveCursor:
    """Put a cursor behind the event `done_seq`; make it if there is none."""

    name: str
    done_seq: int


def require_name(name: str) -> None:
    """Raise Invalid for a name that no cursor can have."""
    if not name or len(name) > NAME_CHARS_MAX:
        raise Invalid(f"a cursor's name has 1 to {NAME_CHARS_MAX} characters")


def move_cursor(move: MoveCursor, draft: Draft) -> None:
    """Raises Invalid for a name that cannot be, and for a place beyond the end of the log."""
    require_name(move.name)
    last = draft.next_seq - 1
    if not 0 <= move.done_seq <= last:
        raise Invalid(f"a cursor of this shard stands between 0 and {last}, not at {move.done_seq}")
    row = draft.view.get(CURSORS, (move.name,))
    if row is None or row.seq != move.done_seq:
        draft.emit(CursorMoved(name=move.name, done_seq=move.done_seq))


def find_cursor(name: str, draft: Draft) -> CursorRow | None:
    """Where a cursor stands, if there is one.  Raises Invalid."""
    require_name(name)
    return draft.view.get(CURSORS, (name,))


def delete_cursor(name: str, draft: Draft) -> None:
    """Raises NotFound."""
    require_name(name)
    if draft.view.get(CURSORS, (name,)) is None:
        raise NotFound(f"there is no cursor called {name}")
    draft.emit(CursorDeleted(name=name))
