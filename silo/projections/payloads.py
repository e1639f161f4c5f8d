"""Long payloads, results and error data: bytes that are written once, passed through, and read only when somebody asks.

They lie under the sequence number of the event that brought them, so that jobs that arrived together are read together.
"""

from __future__ import annotations

from silo.events.catalogue import (
    AttemptFailed,
    AttemptImported,
    AttemptSucceeded,
    JobDeleted,
    JobEnqueued,
    JobErased,
    JobForgotten,
    JobImported,
)
from silo.projections.attempt import is_inline
from silo.projections.attempts import ATTEMPTS, earlier_keys
from silo.projections.jobs import JobRow
from silo.projections.view import Table, View, existing

PAYLOADS = Table("payloads", tag=0x19, row=bytes)
"""(sequence number)"""


def job_arrived(event: JobEnqueued | JobImported, _: None, view: View) -> None:
    if not is_inline(event.payload):
        view.insert(PAYLOADS, (event.seq,), event.payload)


def attempt_succeeded(event: AttemptSucceeded, _: JobRow, view: View) -> None:
    if not is_inline(event.result):
        view.insert(PAYLOADS, (event.seq,), event.result)


def attempt_failed(event: AttemptFailed, _: JobRow, view: View) -> None:
    if not is_inline(event.error_data):
        view.insert(PAYLOADS, (event.seq,), event.error_data)


def attempt_imported(event: AttemptImported, _: JobRow, view: View) -> None:
    if not is_inline(event.data):
        view.insert(PAYLOADS, (event.seq,), event.data)


def job_emptied(event: JobDeleted | JobForgotten | JobErased, job: JobRow, view: View) -> None:
    if job.payload_seq:
        view.delete(PAYLOADS, (job.payload_seq,))
    attempts = [existing(view, ATTEMPTS, key, event) for key in earlier_keys(event.tenant, event.job_id, job)]
    if job.last_attempt is not None:
        attempts.append(job.last_attempt)
    for attempt in attempts:
        if attempt.data_seq:
            view.delete(PAYLOADS, (attempt.data_seq,))


FOLDS = {
    JobEnqueued: job_arrived,
    JobImported: job_arrived,
    AttemptSucceeded: attempt_succeeded,
    AttemptFailed: attempt_failed,
    AttemptImported: attempt_imported,
    JobDeleted: job_emptied,
    JobForgotten: job_emptied,
    JobErased: job_emptied,
}
