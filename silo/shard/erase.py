"""Erasing what jobs carried: payloads, results, error data.

    erase           one job, ended or long gone: its rows at once
    erase_tenant    all jobs of a tenant: only says so
    erase_rows      the rows of some of them, until there are no more
    next_erasures   what is to be erased from the log; silo/broker/erasures.py does it
    finish_erasures they are done

The rows are erased by events of their own, before the log is touched; so at every moment in between the log gives the rows
that there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from silo.domain.jobs import JobStatus
from silo.errors import WrongState
from silo.events.catalogue import ErasureFinished, ErasureRequested, JobErased
from silo.projections.attempts import ATTEMPTS, earlier_keys
from silo.projections.counters import COUNTS, NOTHING
from silo.projections.erasures import ERASURES, ErasureRow
from silo.projections.jobs import JOBS, JobRow
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, refusal


@attrs.frozen
class Erasure:
    """What is to be erased from all events before `seq`, which is the event that asked for it."""

    seq: int
    row: ErasureRow


def erase(name: JobName, draft: Draft) -> int:
    """Erase an ended job, or what the log has of one that was deleted.  Returns the sequence number of the request.

    Raises WrongState for a job that has not ended.
    """
    job = draft.view.get(JOBS, (name.tenant, name.job_id))
    if job is not None:
        if not job.status.is_terminal:
            raise refusal("erase", name, job, "job is still in progress; cancel it first")
        _erase_rows([(name, job)], draft)
    draft.emit(ErasureRequested(tenant=name.tenant, job_id=name.job_id))
    return draft.next_seq - 1


def erase_tenant(tenant: str, draft: Draft) -> int:
    """Have all jobs erased that the tenant has had so far.  Returns the sequence number of the request.

    Raises WrongState if one of them has not ended.
    """
    counts = (draft.view.get(COUNTS, (tenant,)) or NOTHING).by_status
    pending = counts[JobStatus.SCHEDULED] + counts[JobStatus.RUNNING]
    if pending:
        raise WrongState(
            f"cannot erase tenant {tenant}: {pending} of its jobs have not ended; cancel them first"
        )
    draft.emit(ErasureRequested(tenant=tenant, job_id=None))
    return draft.next_seq - 1


def erase_rows(names: Sequence[JobName], draft: Draft) -> None:
    """Erase the rows of those of these jobs that there are."""
    keys = [(name.tenant, name.job_id) for name in names]
    draft.view.require(JOBS, keys)
    rows = [(name, draft.view.get(JOBS, key)) for name, key in zip(names, keys, strict=True)]
    _erase_rows([(name, job) for name, job in rows if job is not None], draft)


def _erase_rows(jobs: Sequence[tuple[JobName, JobRow]], draft: Draft) -> None:
    draft.view.require(
        ATTEMPTS, [key for name, job in jobs for key in earlier_keys(name.tenant, name.job_id, job)]
    )
    for name, _ in jobs:
        draft.emit(JobErased(tenant=name.tenant, job_id=name.job_id))


def next_erasures(most: int, draft: Draft) -> list[Erasure]:
    """The oldest erasures that are not finished, so many at most."""
    return [Erasure(int(key[0]), row) for key, row in draft.view.first(ERASURES, (), most)]


def finish_erasures(erasures: Sequence[Erasure], draft: Draft) -> None:
    """Say that they are done."""
    for erasure in erasures:
        row = erasure.row
        draft.emit(ErasureFinished(tenant=row.tenant, job_id=row.job_id, requested_seq=erasure.seq))
