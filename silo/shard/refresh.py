"""Refreshes of floating limits: scheduled when a maximum is old, leased to workers, reported or given up."""

from __future__ import annotations

import attrs

from silo.domain.int64 import rounded, saturated
from silo.domain.jobs import LEASE_MS
from silo.errors import CallFailed, LeaseNotFound
from silo.events.catalogue import RefreshExpired, RefreshFailed, RefreshLeased, RefreshSucceeded
from silo.projections.concurrency import FLOATING, REFRESHES_DUE, WAITERS, Floating
from silo.projections.leases import LEASES, LeaseRow
from silo.projections.refreshes import REFRESHES
from silo.projections.tasks import READY
from silo.projections.view import NotLoaded, View
from silo.shard.draft import Draft
from silo.shard.due import due_keys
from silo.shard.jobs import JobName, require_jobs
from silo.shard.lease import TASKS_PER_COMMAND_MAX, LeasedTask, LeaseTasks, lease_tasks
from silo.shard.slots import schedule_refresh, the_queue

BACKOFF_MS = 1_000
BACKOFF_MS_MAX = 60_000


def schedule_due_refreshes(_: None, draft: Draft) -> int:
    """Have old maxima found out anew for which somebody waits, by workers of the first one's task group.

    Returns how many it scheduled; there may be more.
    """
    due = [(str(tenant), str(queue)) for (_, tenant, queue), _ in due_keys(REFRESHES_DUE, draft)]
    fronts = [draft.view.first(WAITERS, (tenant, queue, FLOATING), 1)[0][1] for tenant, queue in due]
    jobs = require_jobs([JobName(ref.tenant, ref.job_id) for ref in fronts], draft.view)
    for (tenant, queue), job in zip(due, jobs, strict=True):
        schedule_refresh(tenant, queue, job.spec.task_group, draft)
    return len(due)


@attrs.frozen(kw_only=True)
class LeasedRefresh:
    """Work for a worker: find out the maximum of one floating limit, within `LEASE_MS`."""

    task_id: str
    tenant: str
    queue: str
    task_group: str
    maximum: int
    refreshed_ms: int
    metadata: tuple[tuple[str, str], ...]


def lease_refreshes(command: LeaseTasks, draft: Draft) -> list[LeasedRefresh]:
    """Lease the refreshes that wait for a worker of this task group.  They are not counted against the tasks of a worker."""
    most = min(command.max_tasks, TASKS_PER_COMMAND_MAX)
    front = draft.view.first(REFRESHES, (command.task_group,), most) if most else ()
    leased: list[LeasedRefresh] = []
    for _, row in front:
        floating = the_queue(row.tenant, row.queue, draft.view).floating
        assert floating is not None
        draft.emit(
            RefreshLeased(
                tenant=row.tenant,
                queue=row.queue,
                task_id=row.task_id,
                worker_id=command.worker_id,
                expires_ms=draft.now_ms + LEASE_MS,
            )
        )
        leased.append(
            LeasedRefresh(
                task_id=row.task_id,
                tenant=row.tenant,
                queue=row.queue,
                task_group=command.task_group,
                maximum=floating.maximum,
                refreshed_ms=floating.refreshed_ms,
                metadata=floating.metadata,
            )
        )
    return leased


@attrs.frozen(kw_only=True)
class LeasedWork:
    """All that a worker is given at once."""

    tasks: list[LeasedTask]
    refreshes: list[LeasedRefresh]


def lease_work(command: LeaseTasks, draft: Draft) -> LeasedWork:
    """Lease tasks and refreshes."""
    return LeasedWork(tasks=lease_tasks(command, draft), refreshes=lease_refreshes(command, draft))


def has_work(task_group: str, view: View) -> bool:
    """Whether `lease_work` would find something, or something on disk; a look that costs less than a command."""
    try:
        return bool(view.first(READY, (task_group,), 1) or view.first(REFRESHES, (task_group,), 1))
    except NotLoaded:
        return True


@attrs.frozen
class Refreshed:
    """The maximum is this now."""

    new_max_concurrency: int


@attrs.frozen
class NotRefreshed:
    """It could not be found out."""

    error_code: str
    message: str


@attrs.frozen
class ReportRefresh:
    """Whoever knows the task id reports what became of a refresh."""

    task_id: str
    outcome: Refreshed | NotRefreshed


def report_refresh(command: ReportRefresh, draft: Draft) -> None:
    """End a leased refresh.

    Raises LeaseNotFound: reported already, taken back, or never leased; CallFailed: it is the lease of a job.
    """
    lease = draft.view.get(LEASES, (command.task_id,))
    if lease is None:
        raise LeaseNotFound
    if lease.queue is None:
        raise CallFailed("codec error: task is not a RefreshFloatingLimit")
    if not draft.caller.actor:
        draft.caller = attrs.evolve(draft.caller, actor=lease.worker_id)
    floating = the_queue(lease.tenant, lease.queue, draft.view).floating
    assert floating is not None
    match command.outcome:
        case Refreshed(new_max_concurrency):
            draft.emit(
                RefreshSucceeded(
                    tenant=lease.tenant,
                    queue=lease.queue,
                    task_id=command.task_id,
                    new_max_concurrency=new_max_concurrency,
                )
            )
        case NotRefreshed(error_code, message):
            draft.emit(
                RefreshFailed(
                    tenant=lease.tenant,
                    queue=lease.queue,
                    task_id=command.task_id,
                    error_code=error_code,
                    message=message,
                    retry_ms=_retry_ms(floating, draft.now_ms),
                )
            )


def _retry_ms(floating: Floating, now_ms: int) -> int:
    """After 1 s, 2 s, 4 s and so on, and then every minute."""
    backoff_ms = rounded(BACKOFF_MS * 2.0 ** min(floating.failures, 32))
    return saturated(now_ms + min(backoff_ms, BACKOFF_MS_MAX))


def expire_refresh(task_id: str, queue: str, lease: LeaseRow, expired_ms: int, draft: Draft) -> None:
    """Take back the refresh of a queue whose worker was silent for too long.  If somebody waits, it is scheduled anew."""
    draft.emit(
        RefreshExpired(
            tenant=lease.tenant,
            queue=queue,
            task_id=task_id,
            worker_id=lease.worker_id,
            expired_ms=expired_ms,
        )
    )
