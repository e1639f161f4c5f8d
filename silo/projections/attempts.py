"""Every attempt of every job that still exists: one row for each that started or was imported."""

from __future__ import annotations

import attrs

from silo.domain.jobs import AttemptStatus
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptImported,
    AttemptSucceeded,
    JobDeleted,
    JobForgotten,
    TaskLeased,
)
from silo.projections.jobs import JOBS
from silo.projections.view import Key, Table, View, existing


@attrs.frozen
class AttemptRow:
    """One attempt.

    Attributes:
        finished_ms: None while it runs.
        error_code: of a failed attempt, else None.
        data_seq: where `PAYLOADS` has its result or error data, 0 if there is none.
    """

    task_id: str
    status: AttemptStatus
    started_ms: int
    finished_ms: int | None
    error_code: str | None
    data_seq: int


ATTEMPTS = Table("attempts", tag=0x18, row=AttemptRow)
"""(tenant, job id, attempt number)"""


def attempt_keys(tenant: str, job_id: str, attempts: int) -> list[Key]:
    """The keys of a job's attempts, of which the highest number is `attempts`."""
    return [(tenant, job_id, number) for number in range(1, attempts + 1)]


def task_leased(event: TaskLeased, view: View) -> None:
    row = AttemptRow(event.task_id, AttemptStatus.RUNNING, event.time_ms, None, None, 0)
    view.insert(ATTEMPTS, (event.tenant, event.job_id, event.attempt), row)


def attempt_succeeded(event: AttemptSucceeded, view: View) -> None:
    key = (event.tenant, event.job_id, event.attempt)
    row = existing(view, ATTEMPTS, key, event)
    data_seq = event.seq if event.result else 0
    view.put(
        ATTEMPTS,
        key,
        AttemptRow(row.task_id, AttemptStatus.SUCCEEDED, row.started_ms, event.time_ms, None, data_seq),
    )


def attempt_failed(event: AttemptFailed, view: View) -> None:
    key = (event.tenant, event.job_id, event.attempt)
    row = existing(view, ATTEMPTS, key, event)
    data_seq = event.seq if event.error_data else 0
    ended = AttemptRow(
        row.task_id, AttemptStatus.FAILED, row.started_ms, event.time_ms, event.error_code, data_seq
    )
    view.put(ATTEMPTS, key, ended)


def attempt_cancelled(event: AttemptCancelled, view: View) -> None:
    key = (event.tenant, event.job_id, event.attempt)
    row = existing(view, ATTEMPTS, key, event)
    view.put(ATTEMPTS, key, attrs.evolve(row, status=AttemptStatus.CANCELLED, finished_ms=event.time_ms))


def attempt_imported(event: AttemptImported, view: View) -> None:
    failed = event.status is AttemptStatus.FAILED
    row = AttemptRow(
        task_id=event.task_id,
        status=event.status,
        started_ms=event.started_ms,
        finished_ms=event.finished_ms,
        error_code=event.error_code if failed else None,
        data_seq=event.seq if event.data else 0,
    )
    view.insert(ATTEMPTS, (event.tenant, event.job_id, event.attempt), row)


def job_deleted(event: JobDeleted | JobForgotten, view: View) -> None:
    job = existing(view, JOBS, (event.tenant, event.job_id), event)
    for key in attempt_keys(event.tenant, event.job_id, job.attempts):
        view.delete(ATTEMPTS, key)


FOLDS = {
    TaskLeased: task_leased,
    AttemptSucceeded: attempt_succeeded,
    AttemptFailed: attempt_failed,
    AttemptCancelled: attempt_cancelled,
    AttemptImported: attempt_imported,
    JobDeleted: job_deleted,
    JobForgotten: job_deleted,
}
