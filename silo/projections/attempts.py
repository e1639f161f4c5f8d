"""The earlier attempts of every job that still exists: all but the newest, which lies in the job's row."""

from __future__ import annotations

from silo.events.catalogue import AttemptImported, JobDeleted, JobErased, JobForgotten, TaskLeased
from silo.projections.attempt import AttemptRow, erased
from silo.projections.jobs import JobRow
from silo.projections.view import Key, Table, View, existing

ATTEMPTS = Table("attempts", tag=0x18, row=AttemptRow)
"""(tenant, job id, attempt number)"""


def earlier_keys(tenant: str, job_id: str, job: JobRow) -> list[Key]:
    """The keys of a job's attempts that are in this table."""
    return [(tenant, job_id, number) for number in range(1, job.attempts)]


def attempt_began(event: TaskLeased | AttemptImported, job: JobRow, view: View) -> None:
    if job.last_attempt is not None:
        view.insert(ATTEMPTS, (event.tenant, event.job_id, job.attempts), job.last_attempt)


def job_deleted(event: JobDeleted | JobForgotten, job: JobRow, view: View) -> None:
    for key in earlier_keys(event.tenant, event.job_id, job):
        view.delete(ATTEMPTS, key)


def job_erased(event: JobErased, job: JobRow, view: View) -> None:
    for key in earlier_keys(event.tenant, event.job_id, job):
        view.put(ATTEMPTS, key, erased(existing(view, ATTEMPTS, key, event)))


FOLDS = {
    TaskLeased: attempt_began,
    AttemptImported: attempt_began,
    JobDeleted: job_deleted,
    JobForgotten: job_deleted,
    JobErased: job_erased,
}
