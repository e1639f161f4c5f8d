"""Slots: a chain asks for one, waits for one, is let in.  See `gates.py` for the whole."""

from __future__ import annotations

from silo.domain.limits import FloatingLimit, SlotLimit
from silo.events.catalogue import LimitCreated, RefreshScheduled, SlotGranted, SlotWaited
from silo.projections.concurrency import (
    FLOATING,
    NO_QUEUE,
    QUEUES,
    UNSETTLED,
    WAITERS,
    QueueRow,
    slot_limit,
)
from silo.projections.jobs import Chain, JobRow
from silo.projections.view import View
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, rows, the_job


def ask_for_slot(name: JobName, job: JobRow, chain: Chain, limit: SlotLimit, draft: Draft) -> None:
    """Let a chain in, if there is room and nobody else is to be let in before it; else it waits in line."""
    row = _queue(name.tenant, limit, draft)
    maximum = _maximum(limit, row)
    # SILO-SLOT-1: fewer are held than its own maximum.
    # SILO-SLOT-4: and there is nobody in line who could be let in.
    if row.holders < maximum and not row.is_unsettled:
        _grant(name, chain, limit, maximum, draft)
        return
    draft.emit(
        SlotWaited(
            tenant=name.tenant,
            job_id=name.job_id,
            task_id=chain.task_id,
            gate=chain.gate,
            queue=limit.key,
            maximum=maximum,
        )
    )
    if isinstance(limit, FloatingLimit):
        schedule_refresh(name.tenant, limit.key, job.spec.task_group, draft)


def _queue(tenant: str, limit: SlotLimit, draft: Draft) -> QueueRow:
    """The queue of a limit.  The first job with a floating limit makes it."""
    row = draft.view.get(QUEUES, (tenant, limit.key)) or NO_QUEUE
    if not isinstance(limit, FloatingLimit) or row.floating is not None:
        return row
    draft.emit(
        LimitCreated(
            tenant=tenant,
            queue=limit.key,
            default_max_concurrency=limit.default_max_concurrency,
            refresh_interval_ms=limit.refresh_interval_ms,
            metadata=limit.metadata,
        )
    )
    return the_queue(tenant, limit.key, draft.view)


def the_queue(tenant: str, queue: str, view: View) -> QueueRow:
    """The row of a queue that exists."""
    return rows(view, QUEUES, [(tenant, queue)])[0]


def _maximum(limit: SlotLimit, row: QueueRow) -> int:
    if isinstance(limit, FloatingLimit):
        assert row.floating is not None
        return row.floating.maximum
    return limit.max_concurrency


def _grant(name: JobName, chain: Chain, limit: SlotLimit, maximum: int, draft: Draft) -> None:
    draft.emit(
        SlotGranted(
            tenant=name.tenant,
            job_id=name.job_id,
            task_id=chain.task_id,
            gate=chain.gate,
            queue=limit.key,
            maximum=maximum,
        )
    )


def schedule_refresh(tenant: str, queue: str, task_group: str, draft: Draft) -> None:
    """Have a floating maximum found out anew, if it is old, somebody waits, and nobody is at it."""
    due_ms = the_queue(tenant, queue, draft.view).refresh_due_ms
    if due_ms is not None and due_ms <= draft.now_ms:
        task_id = draft.ids.uuid4()
        draft.emit(RefreshScheduled(tenant=tenant, queue=queue, task_id=task_id, task_group=task_group))


def next_waiters(most: int, view: View) -> list[JobName]:
    """All that one command may let in if it lets in so many, and perhaps some more."""
    unsettled = [key for key, _ in view.first(UNSETTLED, (), most)]
    queues = [(str(tenant), str(queue)) for _, tenant, queue in unsettled]
    names: list[JobName] = []
    for (tenant, queue), row in zip(queues, rows(view, QUEUES, queues), strict=True):
        for line, count in row.lines:
            if row.has_room(line) and len(names) < most:
                front = view.first(WAITERS, (tenant, queue, line), min(_room(row, line), count, most))
                names += [JobName(ref.tenant, ref.job_id) for _, ref in front]
    return names


def _room(row: QueueRow, line: int) -> int:
    floating = row.floating
    return (floating.maximum if floating is not None and line == FLOATING else line) - row.holders


def next_waiter(tenant: str, queue: str, view: View) -> JobName:
    """Of those that an unsettled queue has room for, the first by virtual start."""
    row = the_queue(tenant, queue, view)
    # SILO-SLOT-1: only the lines count that have room by their own maximum.
    fronts = [view.first(WAITERS, (tenant, queue, line), 1)[0] for line, _ in row.lines if row.has_room(line)]
    _, ref = min(fronts, key=lambda front: front[0][3:])
    return JobName(ref.tenant, ref.job_id)


def let_in(name: JobName, draft: Draft) -> None:
    """Give a waiting job the slot that it waits for."""
    job = the_job(name, draft.view)
    assert job.chain is not None
    limit = slot_limit(job, job.chain.gate)
    row = the_queue(name.tenant, limit.key, draft.view)
    _grant(name, job.chain, limit, _maximum(limit, row), draft)
