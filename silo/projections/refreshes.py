"""Refreshes of floating limits that wait for a worker: the work of a task group that is no job."""

from __future__ import annotations

import attrs

from silo.errors import Corrupt
from silo.events.catalogue import RefreshLeased, RefreshScheduled
from silo.projections.concurrency import QUEUES
from silo.projections.view import Table, View, existing


@attrs.define
class RefreshRow:
    """The queue whose maximum a worker shall find out."""

    tenant: str
    queue: str
    task_id: str


REFRESHES = Table("refreshes", tag=0x55, row=RefreshRow, front=1)
"""(task group, time, sequence number of the event that scheduled it)"""


def refresh_scheduled(event: RefreshScheduled, _: None, view: View) -> None:
    key = (event.task_group, event.time_ms, event.seq)
    view.insert(REFRESHES, key, RefreshRow(event.tenant, event.queue, event.task_id))


def refresh_leased(event: RefreshLeased, _: None, view: View) -> None:
    row = existing(view, QUEUES, (event.tenant, event.queue), event)
    refresh = row.floating.refresh if row.floating else None
    if refresh is None:
        raise Corrupt(f"event {event.seq} leases a refresh of {event.queue}, which has none")
    view.delete(REFRESHES, (refresh.task_group, refresh.scheduled_ms, refresh.seq))


FOLDS = {
    RefreshScheduled: refresh_scheduled,
    RefreshLeased: refresh_leased,
}
