"""What the clock says: leases whose worker was silent for too long are taken back."""

from __future__ import annotations

from silo.events.catalogue import LeaseExpired
from silo.events.packing import to_bytes
from silo.projections.jobs import JobRow
from silo.projections.leases import EXPIRIES, LEASES, LeaseRow
from silo.shard.draft import Draft
from silo.shard.due import due_keys
from silo.shard.jobs import JobName, require_chains, rows, the_job
from silo.shard.lease import renewal
from silo.shard.outcome import Cancelled, Failure, Outcome, end_attempt
from silo.shard.refresh import expire_refresh

WORKER_CRASHED = "WORKER_CRASHED"


def expire_leases(_: None, draft: Draft) -> int:
    """Take back leases that have expired.  Returns how many it looked at; there may be more.

    A lease that is overdue by the log but was renewed in memory is renewed in the log instead: so it moves on in the order
    of expiry, and a front full of busy workers hides nobody.
    """
    overdue = [str(key[1]) for key, _ in due_keys(EXPIRIES, draft)]
    leases = rows(draft.view, LEASES, [(task_id,) for task_id in overdue])
    require_chains(
        [JobName(lease.tenant, lease.job_id) for lease in leases if lease.queue is None], draft.view
    )
    for task_id, lease in zip(overdue, leases, strict=True):
        expires_ms = draft.leases.expires_ms(task_id, lease.expires_ms)
        if expires_ms > draft.now_ms:
            draft.emit(renewal(task_id, lease, expires_ms))
        elif lease.queue is not None:
            expire_refresh(task_id, lease.queue, lease, expires_ms, draft)
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
