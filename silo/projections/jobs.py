"""Where each job stands: one row a job, which is what GetJob answers, and the orders in which jobs are listed.

Every fold is given the job's row as it was before the event; this module alone writes it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import attrs

from silo.domain.jobs import JobSpec, JobStatus
from silo.errors import Corrupt
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptImported,
    AttemptSucceeded,
    CancellationRequested,
    ChainDue,
    ChainStarted,
    JobCancelled,
    JobDeleted,
    JobEnqueued,
    JobEvent,
    JobExpedited,
    JobFailed,
    JobForgotten,
    JobImported,
    JobReimported,
    JobRestarted,
    LeaseExpired,
    LeaseRenewed,
    TaskLeased,
)
from silo.events.packing import replacer
from silo.projections import attempt
from silo.projections.attempt import AttemptRow, is_inline
from silo.projections.view import Entry, Key, Table, View


class Place(IntEnum):
    """Where a live chain is.  It is in exactly one of these (I14)."""

    TIMER = 0
    READY = 1
    LEASED = 2


@attrs.define
class Chain:
    """The way of one attempt to its worker.  A job has at most one that lives (I5).

    Attributes:
        seq: the event that started it; the last word in the ready order.
    """

    task_id: str
    attempt: int
    relative_attempt: int
    start_ms: int
    virtual_start_ms: int
    seq: int
    place: Place


@attrs.define
class JobRow:
    """A job as it stands.

    Attributes:
        payload: if that is short.
        payload_seq: where `PAYLOADS` has it otherwise; 0: nowhere.
        payload_bytes: its length.
        enqueued_ms: when it arrived here.
        next_start_ms: when the pending attempt may start; kept when a pending job is cancelled.
        attempts: how many have started (or were imported).
        last_attempt: the newest of them; the others are in `ATTEMPTS`.
        chain: the attempt under way, from its start to its outcome; None once the job has ended.
        cancelled_ms: when a client asked to cancel.
        forget_ms: when retention removes the ended job.
        last_seq: the newest event of this job; its `prev` leads to the one before.
    """

    spec: JobSpec
    payload: bytes
    payload_seq: int
    payload_bytes: int
    enqueued_ms: int
    status: JobStatus
    changed_ms: int
    next_start_ms: int | None
    attempts: int
    last_attempt: AttemptRow | None
    chain: Chain | None
    cancelled_ms: int | None
    forget_ms: int | None
    last_seq: int


JOBS_BY_STATUS = Table("jobs_by_status", tag=0x11, row=bytes, index=True)
"""(tenant, status, time of the change, job id): nothing"""

JOBS_BY_METADATA = Table("jobs_by_metadata", tag=0x12, row=bytes, index=True)
"""(tenant, key, the beginning of the value, job id): nothing"""

INDEXED_VALUE_CHARS = 256
"""A metadata value may be 64 KiB; its index holds the beginning, and a reader compares the rest with the job's row."""


def _entries(key: Key, job: JobRow) -> list[Entry]:
    """Where a job stands in the orders in which jobs are listed."""
    tenant, job_id = key
    return [
        (JOBS_BY_STATUS, (tenant, int(job.status), job.changed_ms, job_id)),
        *(
            (JOBS_BY_METADATA, (tenant, name, value[:INDEXED_VALUE_CHARS], job_id))
            for name, value in job.spec.metadata
        ),
    ]


JOBS = Table("jobs", tag=0x10, row=JobRow, entries=_entries)
"""(tenant, job id)"""

_with = replacer(JobRow)
_chain_with = replacer(Chain)


def _change(event: JobEvent, job: JobRow, view: View, **changes: Any) -> None:
    """Replace the job's row."""
    view.put(JOBS, (event.tenant, event.job_id), _with(job, last_seq=event.seq, **changes))


def live_chain(event: JobEvent, job: JobRow) -> Chain:
    """The chain that an event takes for granted.  Raises Corrupt if the job has none."""
    if job.chain is None:
        raise Corrupt(
            f"event {event.seq} ({type(event).__name__}) needs a chain of job {event.job_id}, which has none"
        )
    return job.chain


def _running(event: JobEvent, job: JobRow) -> AttemptRow:
    if job.last_attempt is None:
        raise Corrupt(
            f"event {event.seq} ({type(event).__name__}) ends an attempt of job {event.job_id}, which has none"
        )
    return job.last_attempt


def _add_arrived(
    event: JobEnqueued | JobImported,
    view: View,
    *,
    status: JobStatus,
    changed_ms: int,
    forget_ms: int | None,
) -> None:
    inline = is_inline(event.payload)
    row = JobRow(
        spec=event.spec,
        payload=event.payload if inline else b"",
        payload_seq=0 if inline else event.seq,
        payload_bytes=len(event.payload),
        enqueued_ms=event.time_ms,
        status=status,
        changed_ms=changed_ms,
        next_start_ms=None,
        attempts=0,
        last_attempt=None,
        chain=None,
        cancelled_ms=None,
        forget_ms=forget_ms,
        last_seq=event.seq,
    )
    view.insert(JOBS, (event.tenant, event.job_id), row)


def job_enqueued(event: JobEnqueued, _: None, view: View) -> None:
    _add_arrived(event, view, status=JobStatus.SCHEDULED, changed_ms=event.time_ms, forget_ms=None)


def job_imported(event: JobImported, _: None, view: View) -> None:
    _add_arrived(event, view, status=event.status, changed_ms=event.changed_ms, forget_ms=event.forget_ms)


def job_reimported(event: JobReimported, job: JobRow, view: View) -> None:
    _change(
        event,
        job,
        view,
        spec=attrs.evolve(job.spec, retry_policy=event.retry_policy),
        status=event.status,
        changed_ms=event.changed_ms,
        next_start_ms=None,
        chain=None,
        cancelled_ms=None,
        forget_ms=event.forget_ms,
    )


def attempt_imported(event: AttemptImported, job: JobRow, view: View) -> None:
    _change(event, job, view, attempts=event.attempt, last_attempt=attempt.imported(event))


def chain_started(event: ChainStarted, job: JobRow, view: View) -> None:
    chain = Chain(
        task_id=event.task_id,
        attempt=event.attempt,
        relative_attempt=event.relative_attempt,
        start_ms=event.start_ms,
        virtual_start_ms=event.virtual_start_ms,
        seq=event.seq,
        place=Place.TIMER if event.start_ms > event.time_ms else Place.READY,
    )
    _change(
        event,
        job,
        view,
        status=JobStatus.SCHEDULED,
        changed_ms=event.time_ms,
        next_start_ms=event.start_ms,
        chain=chain,
    )


def chain_due(event: ChainDue, job: JobRow, view: View) -> None:
    _change(event, job, view, chain=_chain_with(live_chain(event, job), place=Place.READY))


def job_expedited(event: JobExpedited, job: JobRow, view: View) -> None:
    chain = _chain_with(
        live_chain(event, job),
        start_ms=event.time_ms,
        virtual_start_ms=event.virtual_start_ms,
        place=Place.READY,
    )
    _change(event, job, view, changed_ms=event.time_ms, next_start_ms=event.time_ms, chain=chain)


def task_leased(event: TaskLeased, job: JobRow, view: View) -> None:
    _change(
        event,
        job,
        view,
        status=JobStatus.RUNNING,
        changed_ms=event.time_ms,
        next_start_ms=None,
        attempts=event.attempt,
        last_attempt=attempt.leased(event),
        chain=_chain_with(live_chain(event, job), place=Place.LEASED),
    )


def lease_renewed(event: LeaseRenewed, job: JobRow, view: View) -> None:
    _change(event, job, view)


def lease_expired(event: LeaseExpired, job: JobRow, view: View) -> None:
    _change(event, job, view)


def attempt_succeeded(event: AttemptSucceeded, job: JobRow, view: View) -> None:
    _change(
        event,
        job,
        view,
        status=JobStatus.SUCCEEDED,
        changed_ms=event.time_ms,
        last_attempt=attempt.succeeded(_running(event, job), event),
        chain=None,
        forget_ms=event.forget_ms,
    )


def attempt_failed(event: AttemptFailed, job: JobRow, view: View) -> None:
    _change(event, job, view, last_attempt=attempt.failed(_running(event, job), event), chain=None)


def attempt_cancelled(event: AttemptCancelled, job: JobRow, view: View) -> None:
    _change(event, job, view, last_attempt=attempt.cancelled(_running(event, job), event), chain=None)


def job_failed(event: JobFailed, job: JobRow, view: View) -> None:
    _change(
        event,
        job,
        view,
        status=JobStatus.FAILED,
        changed_ms=event.time_ms,
        forget_ms=event.forget_ms,
    )


def job_cancelled(event: JobCancelled, job: JobRow, view: View) -> None:
    _change(
        event,
        job,
        view,
        status=JobStatus.CANCELLED,
        changed_ms=event.time_ms,
        chain=None,
        forget_ms=event.forget_ms,
    )


def cancellation_requested(event: CancellationRequested, job: JobRow, view: View) -> None:
    _change(event, job, view, cancelled_ms=event.time_ms)


def job_restarted(event: JobRestarted, job: JobRow, view: View) -> None:
    _change(event, job, view, cancelled_ms=None, forget_ms=None)


def job_deleted(event: JobDeleted | JobForgotten, job: JobRow, view: View) -> None:
    view.delete(JOBS, (event.tenant, event.job_id))


FOLDS = {
    JobEnqueued: job_enqueued,
    JobImported: job_imported,
    JobReimported: job_reimported,
    AttemptImported: attempt_imported,
    ChainStarted: chain_started,
    ChainDue: chain_due,
    JobExpedited: job_expedited,
    TaskLeased: task_leased,
    LeaseRenewed: lease_renewed,
    LeaseExpired: lease_expired,
    AttemptSucceeded: attempt_succeeded,
    AttemptFailed: attempt_failed,
    AttemptCancelled: attempt_cancelled,
    JobFailed: job_failed,
    JobCancelled: job_cancelled,
    CancellationRequested: cancellation_requested,
    JobRestarted: job_restarted,
    JobDeleted: job_deleted,
    JobForgotten: job_deleted,
}
