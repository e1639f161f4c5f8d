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
    ERASED,
    AttemptCancelled,
    AttemptFailed,
    AttemptImported,
    AttemptSucceeded,
    CancellationRequested,
    ChainDue,
    ChainStarted,
    HoldersDropped,
    JobCancelled,
    JobDeleted,
    JobEnqueued,
    JobErased,
    JobEvent,
    JobExpedited,
    JobFailed,
    JobForgotten,
    JobImported,
    JobReimported,
    JobRestarted,
    LeaseExpired,
    LeaseRenewed,
    RateCheckDue,
    RateChecked,
    RateWaited,
    SlotGranted,
    SlotWaited,
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
    GATE = 3
    """Before its next gate.  Never seen between two commands: whoever brings a chain here leads it on."""
    WAITING = 4
    """In line for a slot."""
    CHECKING = 5
    """Until a rate limit is asked, for the first time or again."""
    THROTTLED = 6
    """In the line of a bucket."""


@attrs.define
class Chain:
    """The way of one attempt through its gates to its worker.  A job has at most one that lives (I5).

    Attributes:
        seq: the event that started it; the last word in every line.
        since_ms: when it came to its place.
        gate: which of the job's limits it comes to next; at their number it is through.
        held: the queues of which it holds a slot, each with the time since when.
        tries: how often the rate limit at this gate was asked.
        refused: how often it answered that it is used up.
        due_ms: when it is asked next, while the chain is `CHECKING`.
    """

    task_id: str
    attempt: int
    relative_attempt: int
    start_ms: int
    virtual_start_ms: int
    seq: int
    place: Place
    since_ms: int
    gate: int
    held: tuple[tuple[str, int], ...]
    tries: int
    refused: int
    due_ms: int


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
        error_code: why a job failed that came to no attempt, or to none any more; else empty.
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
    error_code: str
    forget_ms: int | None
    last_seq: int


JOBS_BY_STATUS = Table("jobs_by_status", tag=0x11, row=bytes, index=True)
"""(tenant, status, time of the change, job id): nothing"""

JOBS_BY_METADATA = Table("jobs_by_metadata", tag=0x12, row=bytes, index=True)
"""(tenant, key, the beginning of the value, job id): nothing"""

HOLDERS = Table("holders", tag=0x51, row=bytes, index=True)
"""(tenant, queue, since when, task id, job id): nothing"""

INDEXED_VALUE_CHARS = 256
"""A metadata value may be 64 KiB; its index holds the beginning, and a reader compares the rest with the job's row."""


def _entries(key: Key, job: JobRow) -> list[Entry]:
    """Where a job stands in the orders in which jobs are listed."""
    tenant, job_id = key
    entries: list[Entry] = [(JOBS_BY_STATUS, (tenant, int(job.status), job.changed_ms, job_id))]
    for name, value in job.spec.metadata:
        entries.append((JOBS_BY_METADATA, (tenant, name, value[:INDEXED_VALUE_CHARS], job_id)))
    if job.chain is not None:
        for queue, since_ms in job.chain.held:
            entries.append((HOLDERS, (tenant, queue, since_ms, job.chain.task_id, job_id)))
    return entries


JOBS = Table("jobs", tag=0x10, row=JobRow, entries=_entries)
"""(tenant, job id)"""

_with = replacer(JobRow)
_chain_with = replacer(Chain)


def _change(event: JobEvent, job: JobRow, view: View, **changes: Any) -> None:
    """Replace the job's row."""
    view.put(JOBS, (event.tenant, event.job_id), _with(job, last_seq=event.seq, **changes))


def is_through(job: JobRow, gate: int) -> bool:
    """Whether a chain at this gate has passed them all."""
    return gate == len(job.spec.limits)


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
        error_code="",
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
        error_code="",
        forget_ms=event.forget_ms,
    )


def attempt_imported(event: AttemptImported, job: JobRow, view: View) -> None:
    _change(event, job, view, attempts=event.attempt, last_attempt=attempt.imported(event))


def _place(job: JobRow, gate: int) -> Place:
    """Where a chain is that need not wait for its time."""
    return Place.READY if is_through(job, gate) else Place.GATE


# SILO-JOB-1: status and chain change in the same event, here and wherever a chain ends.
# SILO-CHAIN-1: the new chain takes the place of the one before; there is room for one.
def chain_started(event: ChainStarted, job: JobRow, view: View) -> None:
    chain = Chain(
        task_id=event.task_id,
        attempt=event.attempt,
        relative_attempt=event.relative_attempt,
        start_ms=event.start_ms,
        virtual_start_ms=event.virtual_start_ms,
        seq=event.seq,
        place=Place.TIMER if event.start_ms > event.time_ms else _place(job, event.gate),
        since_ms=event.time_ms,
        gate=event.gate,
        held=(),
        tries=0,
        refused=0,
        due_ms=0,
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


def _move(event: JobEvent, job: JobRow, view: View, place: Place, **changes: Any) -> None:
    """The job's chain comes to another place."""
    chain = _chain_with(live_chain(event, job), place=place, since_ms=event.time_ms, **changes)
    _change(event, job, view, chain=chain)


def chain_due(event: ChainDue, job: JobRow, view: View) -> None:
    _move(event, job, view, _place(job, live_chain(event, job).gate))


def job_expedited(event: JobExpedited, job: JobRow, view: View) -> None:
    old = live_chain(event, job)
    chain = _chain_with(
        old,
        start_ms=event.time_ms,
        virtual_start_ms=event.virtual_start_ms,
        place=_place(job, old.gate),
        since_ms=event.time_ms,
    )
    _change(event, job, view, changed_ms=event.time_ms, next_start_ms=event.time_ms, chain=chain)


# SILO-CHAIN-4: the gate only ever moves on, here and in `rate_checked`.
def slot_granted(event: SlotGranted, job: JobRow, view: View) -> None:
    gate = event.gate + 1
    held = (*live_chain(event, job).held, (event.queue, event.time_ms))
    _move(event, job, view, _place(job, gate), gate=gate, held=held)


def slot_waited(event: SlotWaited, job: JobRow, view: View) -> None:
    _move(event, job, view, Place.WAITING)


def holders_dropped(event: HoldersDropped, job: JobRow, view: View) -> None:
    _change(event, job, view, chain=_chain_with(live_chain(event, job), held=()))


def rate_check_due(event: RateCheckDue, job: JobRow, view: View) -> None:
    _move(event, job, view, Place.CHECKING, due_ms=event.time_ms)


def rate_checked(event: RateChecked, job: JobRow, view: View) -> None:
    if event.allowed:
        gate = event.gate + 1
        _move(event, job, view, _place(job, gate), gate=gate, tries=0, refused=0)
        return
    before = live_chain(event, job)
    no_answer = bool(event.error) and not event.is_local
    tries, refused = before.tries + 1, before.refused + (not no_answer)
    if event.retry_ms is None:
        _move(event, job, view, Place.GATE, tries=tries, refused=refused)
        return
    chain = _chain_with(
        before,
        place=Place.CHECKING,
        since_ms=event.time_ms,
        tries=tries,
        refused=refused,
        due_ms=event.retry_ms,
    )
    _change(event, job, view, chain=chain, next_start_ms=event.retry_ms)


def rate_waited(event: RateWaited, job: JobRow, view: View) -> None:
    _move(event, job, view, Place.THROTTLED)


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
        chain=_chain_with(live_chain(event, job), place=Place.LEASED, since_ms=event.time_ms),
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
        chain=None,
        error_code=event.error_code,
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
    _change(event, job, view, cancelled_ms=None, error_code="", forget_ms=None)


def job_deleted(event: JobDeleted | JobForgotten, job: JobRow, view: View) -> None:
    view.delete(JOBS, (event.tenant, event.job_id))


def job_erased(event: JobErased, job: JobRow, view: View) -> None:
    payload = ERASED if job.payload_bytes else b""
    _change(
        event,
        job,
        view,
        payload=payload,
        payload_seq=0,
        payload_bytes=len(payload),
        last_attempt=attempt.erased(job.last_attempt) if job.last_attempt is not None else None,
    )


FOLDS = {
    JobEnqueued: job_enqueued,
    JobImported: job_imported,
    JobReimported: job_reimported,
    AttemptImported: attempt_imported,
    ChainStarted: chain_started,
    ChainDue: chain_due,
    JobExpedited: job_expedited,
    SlotGranted: slot_granted,
    SlotWaited: slot_waited,
    HoldersDropped: holders_dropped,
    RateCheckDue: rate_check_due,
    RateChecked: rate_checked,
    RateWaited: rate_waited,
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
    JobErased: job_erased,
}
