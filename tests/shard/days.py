"""What clients and workers do all day, a line each: for stories about many jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from silo.events.catalogue import Event, SlotGranted
from silo.shard.enqueue import enqueue
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.refresh import NotRefreshed, Refreshed, ReportRefresh, lease_work, report_refresh
from tests.builders import a_job, for_worker, named, success
from tests.story import Story


def enqueued(story: Story, *job_ids: str, **spec: Any) -> Story:
    """A client enqueues jobs, one after the other."""
    for job_id in job_ids:
        story.when(enqueue, a_job(job_id=job_id, **spec))
    return story


def leased(story: Story, most: int = 256) -> list[str]:
    """A worker leases what is ready.  Returns the jobs."""
    return [task.job_id for task in story.when(lease_tasks, for_worker(max_tasks=most)).reply]


def ended(story: Story, job_id: str, report: Callable[[str], Any] = success) -> Story:
    """A worker reports a job's attempt."""
    chain = story.job(named(job_id)).chain
    assert chain is not None
    return story.when(report_outcome, report(chain.task_id))


def refreshed(story: Story, maximum: int | None) -> Story:
    """A worker is asked for the maximum of one limit, and reports it; None: he could not find it out."""
    [refresh] = story.when(lease_work, for_worker(max_tasks=1)).reply.refreshes
    told = NotRefreshed("E", "message") if maximum is None else Refreshed(maximum)
    return story.when(report_refresh, ReportRefresh(refresh.task_id, told))


def granted(events: list[Event]) -> list[tuple[str, str]]:
    """Who got a slot of which queue, in this order."""
    return [(event.job_id, event.queue) for event in events if isinstance(event, SlotGranted)]
