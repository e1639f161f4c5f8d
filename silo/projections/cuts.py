"""Where the log was cut: what came before is in the archive alone."""

from __future__ import annotations

import attrs

from silo.events.catalogue import LogCut
from silo.projections.view import Table, View


@attrs.define
class CutRow:
    """All events up to `upto_seq` have left the log, since `cut_ms`."""

    upto_seq: int
    cut_ms: int


CUTS = Table("log_cuts", tag=0x62, row=CutRow)
"""("log"): the last cut"""

LAST = ("log",)


def log_cut(event: LogCut, _: None, view: View) -> None:
    view.put(CUTS, LAST, CutRow(event.upto_seq, event.time_ms))


FOLDS = {LogCut: log_cut}
