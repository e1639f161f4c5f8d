"""Many commands in one: each item is decided as it would be by itself, after those before it, and answered by itself.

Nothing of an item is written if it is refused, as every command refuses before its first fact.  What all items will read is
said at the beginning, so that it is loaded together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from silo.errors import Refused
from silo.projections.jobs import JOBS
from silo.projections.leases import LEASES
from silo.projections.view import View
from silo.shard.draft import Draft
from silo.shard.enqueue import NewJob, enqueue
from silo.shard.jobs import JobName, require_chains, require_gates
from silo.shard.lease import Heartbeat, heartbeat
from silo.shard.outcome import ReportOutcome, report_outcome

Command = TypeVar("Command")
Reply = TypeVar("Reply")

ITEMS_PER_COMMAND_MAX = 250
"""A command holds up all others of its shard while it is decided, so a larger batch is done in pieces."""


def enqueue_all(jobs: Sequence[NewJob], draft: Draft) -> list[str | Refused]:
    """Take in jobs.  Returns their ids, or why not."""
    view = draft.view
    view.require(JOBS, [(job.tenant, job.job_id) for job in jobs if job.job_id])
    require_gates([(job.tenant, job.spec) for job in jobs], view)
    return _each(enqueue, jobs, draft)


def report_all(reports: Sequence[ReportOutcome], draft: Draft) -> list[Refused | None]:
    """End attempts.  Returns None for each that was ended, or why not."""
    _require_leased([report.task_id for report in reports], draft.view)
    return _each(report_outcome, reports, draft)


def heartbeat_all(heartbeats: Sequence[Heartbeat], draft: Draft) -> list[int | Refused | None]:
    """Renew leases.  Returns for each when its cancellation was requested, in ms, or None; or why it was not renewed."""
    _require_leased([each.task_id for each in heartbeats], draft.view)
    return _each(heartbeat, heartbeats, draft)


def _require_leased(task_ids: Sequence[str], view: View) -> None:
    """Say that these leases and their jobs will be read."""
    view.require(LEASES, [(task_id,) for task_id in task_ids])
    leases = [view.get(LEASES, (task_id,)) for task_id in task_ids]
    names = [
        JobName(lease.tenant, lease.job_id) for lease in leases if lease is not None and lease.queue is None
    ]
    require_chains(list(dict.fromkeys(names)), view)


def _each(
    decide: Callable[[Command, Draft], Reply], commands: Sequence[Command], draft: Draft
) -> list[Reply | Refused]:
    replies: list[Reply | Refused] = []
    caller = draft.caller
    for command in commands:
        # A report is its worker's, and each of them may have another.
        draft.caller = caller
        try:
            replies.append(decide(command, draft))
        except Refused as refused:
            replies.append(refused)
    return replies
