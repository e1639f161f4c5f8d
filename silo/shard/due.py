"""What the clock says: chains whose start has come, and leases whose worker was silent for too long."""

from __future__ import annotations

from silo.events.catalogue import ChainDue, LeaseExpired, LeaseRenewed
from silo.events.packing import to_bytes
from silo.projections.jobs import JobRow
from silo.projections.leases import EXPIRIES, LEASES, LeaseRow
from silo.projections.tasks import TIMERS
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, require_jobs, rows, the_job
from silo.shard.outcome import Cancelled, Failure, Outcome, end_attempt

PER_COMMAND_MAX = 200

WORKER_CRASHED = "WORKER_CRASHED"


def wake_due_chains(draft: Draft) -> int:
    """Move chains whose start has come to where they can be leased.  Returns how many; there may be more."""
    front = draft.view.first(TIMERS, (), 1)
    if not front or int(front[0][0][0]) > draft.now_ms:
        return 0
    due = [
        JobName(ref.tenant, ref.job_id)
        for key, ref in draft.view.first(TIMERS, (), PER_COMMAND_MAX)
        if int(key[0]) <= draft.now_ms
    ]
    for name, job in zip(due, require_jobs(due, draft.view), strict=True):
        assert job.chain is not None
        draft.emit(ChainDue(tenant=name.tenant, job_id=name.job_id, task_id=job.chain.task_id))
    return len(due)


def wake_due(_: None, draft: Draft) -> int:
    """`wake_due_chains` as a command of its own."""
    return wake_due_chains(draft)


def expire_leases(_: None, draft: Draft) -> int:
    """Take back leases that have expired.  Returns how many it looked at; there may be more.

    A lease that is overdue by the log but was renewed in memory is renewed in the log instead: so it moves on in the order
    of expiry, and a front full of busy workers hides nobody.
    """
    overdue = [
        str(key[1])
        for key, _ in draft.view.first(EXPIRIES, (), PER_COMMAND_MAX)
        if int(key[0]) <= draft.now_ms
    ]
    leases = rows(draft.view, LEASES, [(task_id,) for task_id in overdue])
    require_jobs([JobName(lease.tenant, lease.job_id) for lease in leases], draft.view)
    for task_id, lease in zip(overdue, leases, strict=True):
        expires_ms = draft.leases.expires_ms(task_id, lease.expires_ms)
        if expires_ms > draft.now_ms:
            draft.emit(
                LeaseRenewed(tenant=lease.tenant, job_id=lease.job_id, task_id=task_id, expires_ms=expires_ms)
            )
        else:
            _expire(task_id, lease, expires_ms, draft)
    return len(overdue)


def _expire(task_id: str, lease: LeaseRow, expired_ms: int, draft: Draft) -> None:
    name = JobName(lease.tenant, lease.job_id)
    outcome = _outcome_of_silence(the_job(name, draft.view), lease, expired_ms, draft.now_ms)
    draft.emit(
        LeaseExpired(
            tenant=lease.tenant,
            job_id=lease.job_id,
            task_id=task_id,
            worker_id=lease.worker_id,
            expired_ms=expired_ms,
        )
    )
    end_attempt(name, outcome, draft)


def _outcome_of_silence(job: JobRow, lease: LeaseRow, expired_ms: int, now_ms: int) -> Outcome:
    """A job that was to be cancelled is; any other attempt counts as crashed, and may be tried again."""
    if job.cancelled_ms is not None:
        return Cancelled()
    text = f"lease expired at {expired_ms} (now {now_ms}), worker={lease.worker_id}"
    return Failure(WORKER_CRASHED, to_bytes(text))
