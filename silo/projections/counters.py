"""How many jobs there are: for each tenant and for the whole shard, by status."""

from __future__ import annotations

import attrs

from silo.domain.jobs import JobStatus
from silo.events.catalogue import (
    AttemptSucceeded,
    ChainStarted,
    JobCancelled,
    JobDeleted,
    JobEnqueued,
    JobEvent,
    JobFailed,
    JobForgotten,
    JobImported,
    JobReimported,
    TaskLeased,
)
from silo.projections.jobs import JobRow
from silo.projections.view import Table, View


@attrs.define
class CountRow:
    """How many jobs are in each status; `by_status` is indexed by `JobStatus`."""

    by_status: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.by_status)

    @property
    def completed(self) -> int:
        return sum(self.by_status[JobStatus.SUCCEEDED :])


NOTHING = CountRow((0,) * len(JobStatus))

COUNTS = Table("counts", tag=0x40, row=CountRow)
"""(tenant), and the whole shard under (`WHOLE_SHARD`)"""

WHOLE_SHARD = ""
"""No tenant has the empty name."""

WHOLE_SHARD_KEY = (WHOLE_SHARD,)


def _move(view: View, event: JobEvent, old: JobStatus | None, new: JobStatus | None) -> None:
    """Count a job under its new status instead of its old one; None: it did not exist, or does no longer."""
    if old is new:
        return
    for key in ((event.tenant,), WHOLE_SHARD_KEY):
        row = view.get(COUNTS, key)
        counts = list(row.by_status if row is not None else NOTHING.by_status)
        if old is not None:
            counts[old] -= 1
        if new is not None:
            counts[new] += 1
        if new is not None or any(counts):
            view.put(COUNTS, key, CountRow(tuple(counts)))
        else:
            view.delete(COUNTS, key)


def job_enqueued(event: JobEnqueued, _: None, view: View) -> None:
    _move(view, event, None, JobStatus.SCHEDULED)


def job_imported(event: JobImported, _: None, view: View) -> None:
    _move(view, event, None, event.status)


def job_reimported(event: JobReimported, job: JobRow, view: View) -> None:
    _move(view, event, job.status, event.status)


def chain_started(event: ChainStarted, job: JobRow, view: View) -> None:
    _move(view, event, job.status, JobStatus.SCHEDULED)


def task_leased(event: TaskLeased, job: JobRow, view: View) -> None:
    _move(view, event, job.status, JobStatus.RUNNING)


def attempt_succeeded(event: AttemptSucceeded, job: JobRow, view: View) -> None:
    _move(view, event, job.status, JobStatus.SUCCEEDED)


def job_failed(event: JobFailed, job: JobRow, view: View) -> None:
    _move(view, event, job.status, JobStatus.FAILED)


def job_cancelled(event: JobCancelled, job: JobRow, view: View) -> None:
    _move(view, event, job.status, JobStatus.CANCELLED)


def job_deleted(event: JobDeleted | JobForgotten, job: JobRow, view: View) -> None:
    _move(view, event, job.status, None)


FOLDS = {
    JobEnqueued: job_enqueued,
    JobImported: job_imported,
    JobReimported: job_reimported,
    ChainStarted: chain_started,
    TaskLeased: task_leased,
    AttemptSucceeded: attempt_succeeded,
    JobFailed: job_failed,
    JobCancelled: job_cancelled,
    JobDeleted: job_deleted,
    JobForgotten: job_deleted,
}
