"""Cutting the log: what is in the archive, and old enough, leaves it."""

from __future__ import annotations

from silo.events.catalogue import LogCut
from silo.projections.cuts import CUTS, LAST
from silo.shard.draft import Draft


def cut_log(upto_seq: int, draft: Draft) -> None:
    """Say that all events up to this one are in the archive alone from now on; the caller has seen to it that they are
    there, with an image of the rows as they stood then."""
    if upto_seq > last_cut(None, draft):
        draft.emit(LogCut(upto_seq=upto_seq))


def last_cut(_: None, draft: Draft) -> int:
    """Up to which event the log was cut; 0: it has not been."""
    row = draft.view.get(CUTS, LAST)
    return row.upto_seq if row is not None else 0
