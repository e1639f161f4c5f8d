"""Who runs what, and until when: the live leases, and the order in which they expire."""

from __future__ import annotations

import attrs

from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    LeaseRenewed,
    TaskLeased,
)
from silo.projections.jobs import JobRow
from silo.projections.view import Table, View, existing


@attrs.define
class LeaseRow:
    """One live lease.  A task id that has none is not running."""

    tenant: str
    job_id: str
    worker_id: str
    expires_ms: int


LEASES = Table("leases", tag=0x30, row=LeaseRow)
"""(task id)"""

EXPIRIES = Table("lease_expiries", tag=0x31, row=bytes, front=0)
"""(expiry, task id): nothing.  The expiry is the one last logged; a heartbeat in memory may have moved it on."""


def task_leased(event: TaskLeased, _: JobRow, view: View) -> None:
    lease = LeaseRow(event.tenant, event.job_id, event.worker_id, event.expires_ms)
    view.insert(LEASES, (event.task_id,), lease)
    view.insert(EXPIRIES, (event.expires_ms, event.task_id), b"")


def lease_renewed(event: LeaseRenewed, _: JobRow, view: View) -> None:
    lease = existing(view, LEASES, (event.task_id,), event)
    view.put(LEASES, (event.task_id,), attrs.evolve(lease, expires_ms=event.expires_ms))
    view.delete(EXPIRIES, (lease.expires_ms, event.task_id))
    view.insert(EXPIRIES, (event.expires_ms, event.task_id), b"")


def attempt_ended(event: AttemptSucceeded | AttemptFailed | AttemptCancelled, _: JobRow, view: View) -> None:
    lease = existing(view, LEASES, (event.task_id,), event)
    view.delete(LEASES, (event.task_id,))
    view.delete(EXPIRIES, (lease.expires_ms, event.task_id))


FOLDS = {
    TaskLeased: task_leased,
    LeaseRenewed: lease_renewed,
    AttemptSucceeded: attempt_ended,
    AttemptFailed: attempt_ended,
    AttemptCancelled: attempt_ended,
}
