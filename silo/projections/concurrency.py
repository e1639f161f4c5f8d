"""Who holds a slot, who waits for one, and where there is room: the queues of each tenant.

A *queue* is what the jobs of a tenant share that name the same concurrency key.  Its slots are held by chains, and a chain
gives them back by ending, in the same event and whatever ended it: no command has a list of slots to release (I4).

A job is let in by its own maximum, and jobs may differ in it.  So those that wait stand in *lines*, one for each maximum,
and one for those that go by the queue's floating maximum; only the first of each line can be the next.  A queue that has
room for one of them is *unsettled*, and stays so until the room is given away (I6): between two commands none is, unless
there was more to give than one command should.
"""

from __future__ import annotations

from typing import Any

import attrs

from silo.domain.jobs import JobSpec
from silo.domain.limits import FloatingLimit, RateLimit, SlotLimit
from silo.errors import Corrupt
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    ChainStarted,
    HoldersDropped,
    JobCancelled,
    JobEvent,
    JobFailed,
    JobReimported,
    LimitCreated,
    QueueEvent,
    RefreshExpired,
    RefreshFailed,
    RefreshLeased,
    RefreshScheduled,
    RefreshSucceeded,
    SlotGranted,
    SlotWaited,
)
from silo.events.packing import replacer
from silo.projections.jobs import Chain, JobRow, Place, live_chain
from silo.projections.tasks import JobRef
from silo.projections.view import Key, Table, View, existing

FLOATING = -1
"""The line of those that go by the queue's floating maximum."""

INT64_MAX = (1 << 63) - 1


@attrs.define
class Refresh:
    """A refresh that a worker is to do, or does: its identity, and where `REFRESHES` has it until it is leased."""

    task_id: str
    task_group: str
    scheduled_ms: int
    seq: int
    leased: bool


@attrs.define
class Floating:
    """A maximum that workers find out anew.

    Attributes:
        refreshed_ms: when a worker last did; 0: never.
        failures: in a row.
        retry_ms: not before this time again; 0: whenever it is old.
        refresh: the one under way, if there is one.
    """

    maximum: int
    default_maximum: int
    refresh_interval_ms: int
    metadata: tuple[tuple[str, str], ...]
    refreshed_ms: int
    failures: int
    retry_ms: int
    refresh: Refresh | None

    @property
    def due_ms(self) -> int:
        """When the maximum is old enough to be found out anew."""
        return min(max(self.refreshed_ms + self.refresh_interval_ms, self.retry_ms), INT64_MAX)


@attrs.define
class QueueRow:
    """A queue with a holder, a waiter or a floating maximum.

    Attributes:
        lines: for each maximum by which somebody waits, how many do.
        maximum: what the limit was that was asked last.
        unsettled_seq: where `UNSETTLED` has it; 0: nowhere.
        refresh_due_ms: where `REFRESHES_DUE` has it; None: nowhere.
    """

    holders: int
    lines: tuple[tuple[int, int], ...]
    maximum: int
    floating: Floating | None
    unsettled_seq: int
    refresh_due_ms: int | None

    @property
    def waiters(self) -> int:
        return sum(count for _, count in self.lines)

    def has_room(self, line: int) -> bool:
        """Whether one more from this line may hold a slot."""
        if line != FLOATING:
            return self.holders < line
        return self.floating is not None and self.holders < self.floating.maximum

    @property
    def is_unsettled(self) -> bool:
        return self.unsettled_seq != 0


QUEUES = Table("queues", tag=0x50, row=QueueRow, catalogue=1)
"""(tenant, queue)"""

WAITERS = Table("waiters", tag=0x52, row=JobRef, front=3)
"""(tenant, queue, line, virtual start, start, sequence number of the chain)"""

UNSETTLED = Table("unsettled", tag=0x53, row=bytes, front=0)
"""(sequence number of the event that made or left it so, tenant, queue): nothing"""

REFRESHES_DUE = Table("refreshes_due", tag=0x54, row=bytes, front=0)
"""(time, tenant, queue): nothing.  Floating limits for which somebody waits, while no refresh is under way."""

_with = replacer(QueueRow)

NO_QUEUE = QueueRow(0, (), 0, None, 0, None)


def line_of(limit: SlotLimit) -> int:
    """The line in which a job with this limit waits."""
    return FLOATING if isinstance(limit, FloatingLimit) else limit.max_concurrency


def slot_limit(job: JobRow, gate: int) -> SlotLimit:
    """The limit of a job at a gate that is about slots.  Raises Corrupt if it is not."""
    limit = job.spec.limits[gate] if gate < len(job.spec.limits) else None
    if limit is None or isinstance(limit, RateLimit):
        raise Corrupt(f"gate {gate} of a job is no queue: its limits are {job.spec.limits}")
    return limit


def waiter_key(tenant: str, limit: SlotLimit, chain: Chain) -> Key:
    return (tenant, limit.key, line_of(limit), chain.virtual_start_ms, chain.start_ms, chain.seq)


def queue_keys(tenant: str, spec: JobSpec) -> list[Key]:
    """The queues that a job's chain may have to do with."""
    return [(tenant, limit.key) for limit in spec.limits if not isinstance(limit, RateLimit)]


# --- changing a queue ----------------------------------------------------------------------------------------------------


def _change(event: JobEvent | QueueEvent, queue: str, row: QueueRow, view: View, **changes: Any) -> None:
    """Replace a queue's row, which may be `NO_QUEUE`, with what follows from the change: is it unsettled, when is a refresh
    due, is there anything left of it?"""
    key = (event.tenant, queue)
    new = _with(row, **changes)
    if new.lines or row.lines:
        new = _settle(event, key, new, view)
    if new.floating is not None:
        new = _keep_refreshing(key, new, view)
    if row is NO_QUEUE:
        view.insert(QUEUES, key, new)
    elif new.holders or new.lines or new.floating:
        view.put(QUEUES, key, new)
    else:
        view.delete(QUEUES, key)


def _settle(event: JobEvent | QueueEvent, key: Key, row: QueueRow, view: View) -> QueueRow:
    """Note whether the queue has room beside a waiter.  One that just gave a slot goes behind the others: fair turns."""
    unsettled = any(row.has_room(line) for line, _ in row.lines)
    seq = row.unsettled_seq
    if unsettled and seq and not isinstance(event, SlotGranted):
        return row
    if seq:
        view.delete(UNSETTLED, (seq, *key))
    if unsettled:
        view.insert(UNSETTLED, (event.seq, *key), b"")
    return _with(row, unsettled_seq=event.seq if unsettled else 0) if unsettled or seq else row


def _keep_refreshing(key: Key, row: QueueRow, view: View) -> QueueRow:
    floating = row.floating
    assert floating is not None
    due_ms = floating.due_ms if FLOATING in dict(row.lines) and floating.refresh is None else None
    if due_ms == row.refresh_due_ms:
        return row
    if row.refresh_due_ms is not None:
        view.delete(REFRESHES_DUE, (row.refresh_due_ms, *key))
    if due_ms is not None:
        view.insert(REFRESHES_DUE, (due_ms, *key), b"")
    return _with(row, refresh_due_ms=due_ms)


def _longer(lines: tuple[tuple[int, int], ...], line: int, by: int) -> tuple[tuple[int, int], ...]:
    """The lines, in the order of their maxima, with one of them longer or shorter."""
    counts = dict(lines)
    counts[line] = counts.get(line, 0) + by
    if not counts[line]:
        del counts[line]
    return tuple(sorted(counts.items()))


# --- slots ---------------------------------------------------------------------------------------------------------------


def slot_granted(event: SlotGranted, job: JobRow, view: View) -> None:
    row = view.get(QUEUES, (event.tenant, event.queue)) or NO_QUEUE
    chain, lines = live_chain(event, job), row.lines
    if chain.place is Place.WAITING:
        limit = slot_limit(job, event.gate)
        view.delete(WAITERS, waiter_key(event.tenant, limit, chain))
        lines = _longer(lines, line_of(limit), -1)
    _change(event, event.queue, row, view, holders=row.holders + 1, lines=lines, maximum=event.maximum)


def slot_waited(event: SlotWaited, job: JobRow, view: View) -> None:
    row = view.get(QUEUES, (event.tenant, event.queue)) or NO_QUEUE
    limit = slot_limit(job, event.gate)
    key = waiter_key(event.tenant, limit, live_chain(event, job))
    line = line_of(limit)
    if line not in dict(row.lines):
        view.begin(WAITERS, WAITERS.queue(key))
    view.insert(WAITERS, key, JobRef(event.tenant, event.job_id))
    _change(event, event.queue, row, view, lines=_longer(row.lines, line, 1), maximum=event.maximum)


# SILO-CHAIN-2: whatever ends a chain takes it out of its line.
# SILO-SLOT-2: and gives back what its row says that it holds.
def chain_over(event: JobEvent, job: JobRow, view: View) -> None:
    """Whatever ended the job's chain: it is in no line any more, and its slots are free."""
    chain = job.chain
    if chain is None or not job.spec.limits:
        return
    if chain.place is Place.WAITING:
        limit = slot_limit(job, chain.gate)
        row = existing(view, QUEUES, (event.tenant, limit.key), event)
        view.delete(WAITERS, waiter_key(event.tenant, limit, chain))
        _change(event, limit.key, row, view, lines=_longer(row.lines, line_of(limit), -1))
    _release(event, chain, view)


def holders_dropped(event: HoldersDropped, job: JobRow, view: View) -> None:
    _release(event, live_chain(event, job), view)


# SILO-SLOT-5: there is no other way to give back a slot, and two who call it: the end of a chain, and an operator.
def _release(event: JobEvent, chain: Chain, view: View) -> None:
    for queue, _ in chain.held:
        row = existing(view, QUEUES, (event.tenant, queue), event)
        _change(event, queue, row, view, holders=row.holders - 1)


# --- floating limits -----------------------------------------------------------------------------------------------------


def limit_created(event: LimitCreated, _: None, view: View) -> None:
    row = view.get(QUEUES, (event.tenant, event.queue)) or NO_QUEUE
    floating = Floating(
        maximum=event.default_max_concurrency,
        default_maximum=event.default_max_concurrency,
        refresh_interval_ms=event.refresh_interval_ms,
        metadata=event.metadata,
        refreshed_ms=0,
        failures=0,
        retry_ms=0,
        refresh=None,
    )
    _change(event, event.queue, row, view, floating=floating)


def _floating(event: QueueEvent, row: QueueRow) -> Floating:
    if row.floating is None:
        raise Corrupt(f"event {event.seq} ({type(event).__name__}): {event.queue} has no floating limit")
    return row.floating


def _refloat(event: QueueEvent, view: View, **changes: Any) -> None:
    row = existing(view, QUEUES, (event.tenant, event.queue), event)
    floating = attrs.evolve(_floating(event, row), **changes)
    _change(event, event.queue, row, view, floating=floating)


def refresh_scheduled(event: RefreshScheduled, _: None, view: View) -> None:
    refresh = Refresh(event.task_id, event.task_group, event.time_ms, event.seq, leased=False)
    _refloat(event, view, refresh=refresh)


def refresh_leased(event: RefreshLeased, _: None, view: View) -> None:
    row = existing(view, QUEUES, (event.tenant, event.queue), event)
    refresh = _floating(event, row).refresh
    if refresh is None:
        raise Corrupt(f"event {event.seq} leases a refresh of {event.queue}, which has none")
    _refloat(event, view, refresh=attrs.evolve(refresh, leased=True))


def refresh_succeeded(event: RefreshSucceeded, _: None, view: View) -> None:
    _refloat(
        event,
        view,
        maximum=event.new_max_concurrency,
        refreshed_ms=event.time_ms,
        failures=0,
        retry_ms=0,
        refresh=None,
    )


def refresh_failed(event: RefreshFailed, _: None, view: View) -> None:
    row = existing(view, QUEUES, (event.tenant, event.queue), event)
    failures = _floating(event, row).failures + 1
    _refloat(event, view, failures=failures, retry_ms=event.retry_ms, refresh=None)


def refresh_expired(event: RefreshExpired, _: None, view: View) -> None:
    _refloat(event, view, refresh=None)


FOLDS = {
    SlotGranted: slot_granted,
    SlotWaited: slot_waited,
    ChainStarted: chain_over,
    AttemptSucceeded: chain_over,
    AttemptFailed: chain_over,
    AttemptCancelled: chain_over,
    JobFailed: chain_over,
    JobCancelled: chain_over,
    JobReimported: chain_over,
    HoldersDropped: holders_dropped,
    LimitCreated: limit_created,
    RefreshScheduled: refresh_scheduled,
    RefreshLeased: refresh_leased,
    RefreshSucceeded: refresh_succeeded,
    RefreshFailed: refresh_failed,
    RefreshExpired: refresh_expired,
}
