"""What every command that names jobs begins with: reading them, all that are missing at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import attrs

from silo.errors import Corrupt, JobNotFound
from silo.projections.attempts import ATTEMPTS
from silo.projections.counters import COUNTS
from silo.projections.jobs import JOBS, JobRow
from silo.projections.view import Key, Table, View

Row = TypeVar("Row")


@attrs.frozen
class JobName:
    """The job that a command is about."""

    tenant: str
    job_id: str


def the_job(name: JobName, view: View) -> JobRow:
    """The job's row.  Raises JobNotFound."""
    row = view.get(JOBS, (name.tenant, name.job_id))
    if row is None:
        raise JobNotFound
    return row


def rows(view: View, table: Table[Row], keys: Sequence[Key]) -> list[Row]:
    """The rows under these keys, which another row says exist.  Raises Corrupt if one does not."""
    view.require(table, keys)
    found = [view.get(table, key) for key in keys]
    for key, row in zip(keys, found, strict=True):
        if row is None:
            raise Corrupt(f"{table.name} {key} is missing")
    return [row for row in found if row is not None]


def require_jobs(names: Sequence[JobName], view: View) -> list[JobRow]:
    """The rows of jobs that a queue or a lease names, with all that a change of their state will read.

    Without this a command about many jobs would load their rows one by one, and begin anew after each.
    """
    jobs = rows(view, JOBS, [(name.tenant, name.job_id) for name in names])
    view.require(COUNTS, sorted({(name.tenant,) for name in names}))
    view.require(
        ATTEMPTS,
        [(name.tenant, name.job_id, job.attempts) for name, job in zip(names, jobs, strict=True) if job.attempts],
    )
    return jobs
