"""What is to be erased from the log, and has not been yet."""

from __future__ import annotations

import attrs

from silo.events.catalogue import ErasureFinished, ErasureRequested
from silo.projections.view import Table, View


@attrs.define
class ErasureRow:
    """Of a job, or of the whole tenant if `job_id` is None; asked for at `time_ms`."""

    tenant: str
    job_id: str | None
    time_ms: int


ERASURES = Table("erasures", tag=0x61, row=ErasureRow, front=0)
"""(sequence number of the event that asks for it)"""


def erasure_requested(event: ErasureRequested, _: None, view: View) -> None:
    view.insert(ERASURES, (event.seq,), ErasureRow(event.tenant, event.job_id, event.time_ms))


def erasure_finished(event: ErasureFinished, _: None, view: View) -> None:
    view.delete(ERASURES, (event.requested_seq,))


FOLDS = {ErasureRequested: erasure_requested, ErasureFinished: erasure_finished}
