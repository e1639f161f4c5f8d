"""One attempt of a job, as a row: what each event makes of it.

The newest attempt of a job lies in the job's own row, where nearly every reader looks for it; earlier ones have a table of
their own (`attempts.py`).
"""

from __future__ import annotations

import attrs

from silo.domain.jobs import AttemptStatus
from silo.events.catalogue import (
    ERASED,
    AttemptCancelled,
    AttemptFailed,
    AttemptImported,
    AttemptSucceeded,
    TaskLeased,
)

INLINE_BYTES_MAX = 512
"""Payloads, results and error data up to this length lie in the row of their job or attempt: a row of their own would cost
more than they do, although these are written again whenever the job changes."""


@attrs.define
class AttemptRow:
    """One attempt.

    Attributes:
        finished_ms: None while it runs.
        error_code: of a failed attempt, else None.
        data: its result or error data, if that is short.
        data_seq: where `PAYLOADS` has them otherwise; 0: nowhere.
    """

    task_id: str
    status: AttemptStatus
    started_ms: int
    finished_ms: int | None
    error_code: str | None
    data: bytes
    data_seq: int


def is_inline(data: bytes) -> bool:
    """Whether these bytes lie in the row of whom they belong to."""
    return len(data) <= INLINE_BYTES_MAX


def leased(event: TaskLeased) -> AttemptRow:
    return AttemptRow(event.task_id, AttemptStatus.RUNNING, event.time_ms, None, None, b"", 0)


def succeeded(row: AttemptRow, event: AttemptSucceeded) -> AttemptRow:
    return _ended(row, AttemptStatus.SUCCEEDED, event.time_ms, None, event.result, event.seq)


def failed(row: AttemptRow, event: AttemptFailed) -> AttemptRow:
    return _ended(row, AttemptStatus.FAILED, event.time_ms, event.error_code, event.error_data, event.seq)


def cancelled(row: AttemptRow, event: AttemptCancelled) -> AttemptRow:
    return _ended(row, AttemptStatus.CANCELLED, event.time_ms, None, b"", event.seq)


def imported(event: AttemptImported) -> AttemptRow:
    running = AttemptRow(event.task_id, AttemptStatus.RUNNING, event.started_ms, None, None, b"", 0)
    error_code = event.error_code if event.status is AttemptStatus.FAILED else None
    return _ended(running, event.status, event.finished_ms, error_code, event.data, event.seq)


def erased(row: AttemptRow) -> AttemptRow:
    return attrs.evolve(row, data=ERASED, data_seq=0) if row.data or row.data_seq else row


def _ended(
    row: AttemptRow, status: AttemptStatus, finished_ms: int, error_code: str | None, data: bytes, seq: int
) -> AttemptRow:
    inline = is_inline(data)
    return AttemptRow(
        row.task_id,
        status,
        row.started_ms,
        finished_ms,
        error_code,
        data if inline else b"",
        0 if inline else seq,
    )
