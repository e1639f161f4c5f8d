"""Who runs what, and until when: the live leases, and the order in which they expire."""

from __future__ import annotations

import attrs

from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    LeaseRenewed,
    RefreshExpired,
    RefreshFailed,
    RefreshLeased,
    RefreshRenewed,
    RefreshSucceeded,
    TaskLeased,
)
from silo.projections.jobs import JobRow
from silo.projections.view import Table, View, existing

AttemptEnded = AttemptSucceeded | AttemptFailed | AttemptCancelled
RefreshEnded = RefreshSucceeded | RefreshFailed | RefreshExpired


@attrs.define
class LeaseRow:
    """One live lease: of a job's task, or of the refresh of a queue's floating limit.

    A task id that has none is not running.

    Attributes:
        job_id: empty for a refresh.
        queue: whose maximum is found out; None for the task of a job.  The empty text is a queue like any other.
    """

    tenant: str
    job_id: str
    queue: str | None
    worker_id: str
    expires_ms: int


LEASES = Table("leases", tag=0x30, row=LeaseRow)
"""(task id)"""

EXPIRIES = Table("lease_expiries", tag=0x31, row=bytes, front=0)
"""(expiry, task id): nothing.  The expiry is the one last logged; a heartbeat in memory may have moved it on."""


def _begin(task_id: str, lease: LeaseRow, view: View) -> None:
    # SILO-LEASE-2: an insert, which refuses an id that has a lease; a job's chain has one id.
    view.insert(LEASES, (task_id,), lease)
    view.insert(EXPIRIES, (lease.expires_ms, task_id), b"")


def task_leased(event: TaskLeased, _: JobRow, view: View) -> None:
    lease = LeaseRow(event.tenant, event.job_id, None, event.worker_id, event.expires_ms)
    _begin(event.task_id, lease, view)


def refresh_leased(event: RefreshLeased, _: None, view: View) -> None:
    lease = LeaseRow(event.tenant, "", event.queue, event.worker_id, event.expires_ms)
    _begin(event.task_id, lease, view)


def renewed(event: LeaseRenewed | RefreshRenewed, _: JobRow | None, view: View) -> None:
    lease = existing(view, LEASES, (event.task_id,), event)
    view.put(LEASES, (event.task_id,), attrs.evolve(lease, expires_ms=event.expires_ms))
    view.delete(EXPIRIES, (lease.expires_ms, event.task_id))
    view.insert(EXPIRIES, (event.expires_ms, event.task_id), b"")


def ended(event: AttemptEnded | RefreshEnded, _: JobRow | None, view: View) -> None:
    lease = existing(view, LEASES, (event.task_id,), event)
    view.delete(LEASES, (event.task_id,))
    view.delete(EXPIRIES, (lease.expires_ms, event.task_id))


FOLDS = {
    TaskLeased: task_leased,
    LeaseRenewed: renewed,
    AttemptSucceeded: ended,
    AttemptFailed: ended,
    AttemptCancelled: ended,
    RefreshLeased: refresh_leased,
    RefreshRenewed: renewed,
    RefreshSucceeded: ended,
    RefreshFailed: ended,
    RefreshExpired: ended,
}
