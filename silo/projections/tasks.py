"""What waits to run: the ready queue, the timers of what is not due yet, and the times at which ended jobs are forgotten.

The ready queue holds only chains that could be leased this instant (I7).  Its order is the *virtual start*: start time plus
priority times a weight, so that a low number overtakes but nothing waits for ever; then the start time; then the order of
arrival.
"""

from __future__ import annotations

import attrs

from silo.events.catalogue import (
    ERASED,
    AttemptSucceeded,
    ChainDue,
    ChainStarted,
    JobCancelled,
    JobDeleted,
    JobErased,
    JobEvent,
    JobExpedited,
    JobFailed,
    JobForgotten,
    JobImported,
    JobReimported,
    JobRestarted,
    RateChecked,
    SlotGranted,
    TaskLeased,
)
from silo.projections.jobs import Chain, JobRow, Place, is_through, live_chain
from silo.projections.view import Key, Table, View


@attrs.define
class JobRef:
    """The job that an entry of a queue stands for."""

    tenant: str
    job_id: str


@attrs.define
class ReadyRow:
    """A task that could be leased this instant, with where its payload lies if that is long, and how long it is."""

    tenant: str
    job_id: str
    payload_seq: int
    payload_bytes: int


READY = Table("ready", tag=0x20, row=ReadyRow, front=1)
"""(task group, virtual start, start, sequence number of the chain)"""

TIMERS = Table("timers", tag=0x21, row=JobRef, front=0)
"""(start, sequence number of the chain)"""

FORGETTING = Table("forgetting", tag=0x22, row=JobRef, front=0)
"""(time, tenant, job id)"""


def ready_key(task_group: str, chain: Chain) -> Key:
    return (task_group, chain.virtual_start_ms, chain.start_ms, chain.seq)


def timer_key(chain: Chain) -> Key:
    return (chain.start_ms, chain.seq)


def _enter_ready(event: JobEvent, job: JobRow, key: Key, view: View) -> None:
    view.insert(READY, key, ReadyRow(event.tenant, event.job_id, job.payload_seq, job.payload_bytes))


# SILO-CHAIN-2: whatever ends or moves a chain takes it out of the order that it is in.
def _leave(job: JobRow, view: View) -> None:
    """Take the job's chain, if it has one that is pending, out of where it waits (I4)."""
    if job.chain is None:
        return
    if job.chain.place is Place.READY:
        view.delete(READY, ready_key(job.spec.task_group, job.chain))
    elif job.chain.place is Place.TIMER:
        view.delete(TIMERS, timer_key(job.chain))


def _forget_at(event: JobEvent, time_ms: int | None, view: View) -> None:
    if time_ms is not None:
        view.insert(FORGETTING, (time_ms, event.tenant, event.job_id), JobRef(event.tenant, event.job_id))


def _remember(event: JobEvent, job: JobRow, view: View) -> None:
    if job.forget_ms is not None:
        view.delete(FORGETTING, (job.forget_ms, event.tenant, event.job_id))


def chain_started(event: ChainStarted, job: JobRow, view: View) -> None:
    _leave(job, view)
    if event.start_ms > event.time_ms:
        view.insert(TIMERS, (event.start_ms, event.seq), JobRef(event.tenant, event.job_id))
    elif is_through(job, event.gate):
        key = (job.spec.task_group, event.virtual_start_ms, event.start_ms, event.seq)
        _enter_ready(event, job, key, view)


# SILO-READY-1: the only way into the ready queue besides `chain_started` and `job_expedited`, which ask the same.
def _pass_on(event: JobEvent, job: JobRow, chain: Chain, gate: int, view: View) -> None:
    """A chain that has passed all its gates is ready."""
    if is_through(job, gate):
        _enter_ready(event, job, ready_key(job.spec.task_group, chain), view)


def chain_due(event: ChainDue, job: JobRow, view: View) -> None:
    chain = live_chain(event, job)
    _leave(job, view)
    _pass_on(event, job, chain, chain.gate, view)


def job_expedited(event: JobExpedited, job: JobRow, view: View) -> None:
    chain = live_chain(event, job)
    _leave(job, view)
    if is_through(job, chain.gate):
        key = (job.spec.task_group, event.virtual_start_ms, event.time_ms, chain.seq)
        _enter_ready(event, job, key, view)


def slot_granted(event: SlotGranted, job: JobRow, view: View) -> None:
    _pass_on(event, job, live_chain(event, job), event.gate + 1, view)


def rate_checked(event: RateChecked, job: JobRow, view: View) -> None:
    if event.allowed:
        _pass_on(event, job, live_chain(event, job), event.gate + 1, view)


# SILO-LEASE-1: it leaves the ready queue in the event that leases it.
def task_leased(event: TaskLeased, job: JobRow, view: View) -> None:
    _leave(job, view)


def attempt_succeeded(event: AttemptSucceeded, _: JobRow, view: View) -> None:
    _forget_at(event, event.forget_ms, view)


def job_failed(event: JobFailed, _: JobRow, view: View) -> None:
    _forget_at(event, event.forget_ms, view)


def job_cancelled(event: JobCancelled, job: JobRow, view: View) -> None:
    _leave(job, view)
    _forget_at(event, event.forget_ms, view)


def job_imported(event: JobImported, _: None, view: View) -> None:
    _forget_at(event, event.forget_ms, view)


def job_reimported(event: JobReimported, job: JobRow, view: View) -> None:
    _leave(job, view)
    _remember(event, job, view)
    _forget_at(event, event.forget_ms, view)


def job_restarted(event: JobRestarted, job: JobRow, view: View) -> None:
    _remember(event, job, view)


def job_deleted(event: JobDeleted | JobForgotten, job: JobRow, view: View) -> None:
    _remember(event, job, view)


def job_erased(event: JobErased, job: JobRow, view: View) -> None:
    """A task that is ready says where its payload is, and how long."""
    if job.chain is not None and job.chain.place is Place.READY:
        key = ready_key(job.spec.task_group, job.chain)
        view.delete(READY, key)
        view.insert(
            READY, key, ReadyRow(event.tenant, event.job_id, 0, len(ERASED) if job.payload_bytes else 0)
        )


FOLDS = {
    ChainStarted: chain_started,
    ChainDue: chain_due,
    JobExpedited: job_expedited,
    SlotGranted: slot_granted,
    RateChecked: rate_checked,
    TaskLeased: task_leased,
    AttemptSucceeded: attempt_succeeded,
    JobFailed: job_failed,
    JobCancelled: job_cancelled,
    JobImported: job_imported,
    JobReimported: job_reimported,
    JobRestarted: job_restarted,
    JobDeleted: job_deleted,
    JobForgotten: job_deleted,
    JobErased: job_erased,
}
