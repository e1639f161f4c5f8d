"""LeaseTasks, LeaseTask and Heartbeat: handing work to workers, and hearing from them.

Refreshes of floating limits are leased to workers as well, see `refresh.py`; their heartbeats come here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

import attrs

from silo.domain.jobs import LEASE_MS, JobSpec, JobStatus
from silo.errors import Invalid, LeaseNotFound, WrongState
from silo.events.catalogue import LeaseRenewed, RefreshRenewed, TaskLeased
from silo.projections.jobs import JobRow, Place
from silo.projections.leases import LEASES, LeaseRow
from silo.projections.tasks import READY, ReadyRow
from silo.projections.view import View
from silo.shard.chains import start_chain
from silo.shard.draft import Draft
from silo.shard.due import wake_due_chains
from silo.shard.jobs import JobName, payloads, refusal, require_jobs, the_job

Item = TypeVar("Item")

TASKS_PER_COMMAND_MAX = 256
"""A worker may ask for any number; the server hands them out in pieces of this size."""

AHEAD_TASKS = 512
AHEAD_BYTES_MAX = 512 << 10

LEASED_BYTES_MAX = 32 << 20
"""Payloads in one reply; a message may have 128 MiB."""


@attrs.frozen
class LeasedTask:
    """Work for a worker: one attempt of one job, leased for `LEASE_MS`."""

    task_id: str
    tenant: str
    job_id: str
    attempt: int
    relative_attempt: int
    spec: JobSpec
    payload: bytes

    @property
    def is_last_attempt(self) -> bool:
        """Whether the job fails if this attempt does."""
        policy = self.spec.retry_policy
        return policy is None or self.relative_attempt >= policy.retry_count + 1


@attrs.frozen(kw_only=True)
class LeaseTasks:
    """A worker asks for up to `max_tasks` tasks of one task group.

    A task that would bring the payloads to more than `bytes_max` is left for the next command, unless it is the first: what
    does not fit into a message would be leased to nobody.
    """

    worker_id: str
    task_group: str
    max_tasks: int
    bytes_max: int = LEASED_BYTES_MAX


def lease_tasks(command: LeaseTasks, draft: Draft) -> list[LeasedTask]:
    """Lease what stands at the front of the ready queue, of whatever tenant."""
    wake_due_chains(draft)
    view, group = draft.view, command.task_group
    # SILO-LEASE-1: who is leased stood in the ready queue.
    front = [row for _, row in view.first(READY, (group,), min(command.max_tasks, TASKS_PER_COMMAND_MAX))]
    front = _up_to(command.bytes_max, front, [row.payload_bytes for row in front])
    names = [JobName(row.tenant, row.job_id) for row in front]
    jobs = require_jobs(names, view, ahead=(JobName(row.tenant, row.job_id) for row in _ahead(group, view)))
    long_ones_ahead = ((row.payload_seq,) for row in _ahead(group, view) if row.payload_seq)
    found = list(zip(names, jobs, payloads(jobs, view, ahead=long_ones_ahead), strict=True))
    fitting = _up_to(command.bytes_max, found, [job.payload_bytes + _metadata_bytes(job) for job in jobs])
    return [_lease(name, job, payload, command.worker_id, draft) for name, job, payload in fitting]


def _up_to(bytes_max: int, items: Sequence[Item], sizes: Sequence[int]) -> list[Item]:
    """The first of the items that are not larger together, at least one."""
    together = accumulate(sizes)
    return [
        item
        for index, (item, size) in enumerate(zip(items, together, strict=True))
        if not index or size <= bytes_max
    ]


def _metadata_bytes(job: JobRow) -> int:
    return sum(len(key) + len(value) for key, value in job.spec.metadata)


def _ahead(task_group: str, view: View) -> Iterator[ReadyRow]:
    """What the next commands will lease.  Rows that come from disk come together at a fraction of the cost."""
    size = 0
    for _, row in view.at_hand(READY, (task_group,), AHEAD_TASKS):
        size += row.payload_bytes
        if size > AHEAD_BYTES_MAX:
            return
        yield row


@attrs.frozen(kw_only=True)
class LeaseTask:
    """Somebody asks for the pending attempt of one particular job, due or not."""

    job: JobName
    worker_id: str


def lease_task(command: LeaseTask, draft: Draft) -> LeasedTask:
    """Lease one job's pending attempt under a new task id, whenever it was to start and whatever its limits say.

    A help for tests and debugging.  What the attempt held on its way is given back.
    """
    if not command.worker_id:
        raise Invalid("worker_id is required")
    name = command.job
    job = the_job(name, draft.view)
    if job.status is JobStatus.RUNNING:
        raise refusal("lease", name, job, "job is currently running")
    if job.status in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        raise refusal("lease", name, job, "job is already in terminal state")
    # SILO-JOB-4: nor does anybody get it by its name.
    if job.cancelled_ms is not None:
        raise refusal("lease", name, job, "job is cancelled")
    if job.chain is None:
        raise refusal("lease", name, job, "job has no pending task")
    if job.chain.place is Place.WAITING:
        raise refusal("lease", name, job, "job has no pending task in queue")

    start_chain(
        draft,
        name.tenant,
        name.job_id,
        spec=job.spec,
        attempt=job.chain.attempt,
        relative_attempt=job.chain.relative_attempt,
        start_ms=min(job.chain.start_ms, draft.now_ms),
        gate=len(job.spec.limits),
    )
    job = the_job(name, draft.view)
    [payload] = payloads([job], draft.view)
    return _lease(name, job, payload, command.worker_id, draft)


def _lease(name: JobName, job: JobRow, payload: bytes, worker_id: str, draft: Draft) -> LeasedTask:
    assert job.chain is not None
    draft.emit(
        TaskLeased(
            tenant=name.tenant,
            job_id=name.job_id,
            task_id=job.chain.task_id,
            attempt=job.chain.attempt,
            worker_id=worker_id,
            expires_ms=draft.now_ms + LEASE_MS,
        )
    )
    return LeasedTask(
        task_id=job.chain.task_id,
        tenant=name.tenant,
        job_id=name.job_id,
        attempt=job.chain.attempt,
        relative_attempt=job.chain.relative_attempt,
        spec=job.spec,
        payload=payload,
    )


@attrs.frozen(kw_only=True)
class Heartbeat:
    """A worker says that it is still at work."""

    task_id: str
    worker_id: str


def heartbeat(command: Heartbeat, draft: Draft) -> int | None:
    """Renew a lease, also one that is past its expiry but not taken back yet.

    Returns when the job's cancellation was requested, in ms, or None.
    """
    lease = draft.view.get(LEASES, (command.task_id,))
    if lease is None:
        raise LeaseNotFound
    if lease.worker_id != command.worker_id:
        raise WrongState("lease owner mismatch")

    cancelled_ms = (
        None
        if lease.queue is not None
        else the_job(JobName(lease.tenant, lease.job_id), draft.view).cancelled_ms
    )
    expires_ms = draft.now_ms + LEASE_MS
    if expires_ms - lease.expires_ms >= LEASE_MS // 2:
        draft.emit(renewal(command.task_id, lease, expires_ms))
    else:
        draft.leases.renew(command.task_id, expires_ms, now_ms=draft.now_ms)
    return cancelled_ms


def renewal(task_id: str, lease: LeaseRow, expires_ms: int) -> LeaseRenewed | RefreshRenewed:
    """The fact that a lease goes on until this time."""
    if lease.queue is not None:
        return RefreshRenewed(tenant=lease.tenant, queue=lease.queue, task_id=task_id, expires_ms=expires_ms)
    return LeaseRenewed(tenant=lease.tenant, job_id=lease.job_id, task_id=task_id, expires_ms=expires_ms)
