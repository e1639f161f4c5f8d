"""What the clock says: the start of chains has come."""

from __future__ import annotations

from collections.abc import Sequence

from silo.events.catalogue import ChainDue
from silo.projections.tasks import TIMERS, JobRef
from silo.projections.view import Key, Row, Table
from silo.shard.draft import Draft
from silo.shard.gates import walk
from silo.shard.jobs import JobName, require_chains

PER_COMMAND_MAX = 200


def due_keys(table: Table[Row], draft: Draft) -> Sequence[tuple[Key, Row]]:
    """The front of a table in the order of times, as far as its times have come, and no more than one command should do."""
    front = draft.view.first(table, (), 1)
    if not front or int(front[0][0][0]) > draft.now_ms:
        return ()
    return [
        (key, row) for key, row in draft.view.first(table, (), PER_COMMAND_MAX) if int(key[0]) <= draft.now_ms
    ]


def due_jobs(table: Table[JobRef], draft: Draft) -> list[JobName]:
    """The jobs of which the time has come."""
    return [JobName(ref.tenant, ref.job_id) for _, ref in due_keys(table, draft)]


def wake_due_chains(draft: Draft) -> int:
    """Lead chains on whose start has come.  Returns how many; there may be more."""
    due = due_jobs(TIMERS, draft)
    for name, job in zip(due, require_chains(due, draft.view), strict=True):
        assert job.chain is not None
        draft.emit(ChainDue(tenant=name.tenant, job_id=name.job_id, task_id=job.chain.task_id))
        if job.spec.limits:
            walk(name, draft)
    return len(due)


def wake_due(_: None, draft: Draft) -> int:
    """`wake_due_chains` as a command of its own."""
    return wake_due_chains(draft)
