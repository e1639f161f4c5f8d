"""The jobs of an image by the columns that SQL shows of them, all but the payload: what a walk through all jobs reads."""

from __future__ import annotations

import pyarrow as pa

from silo.domain.jobs import JobStatus
from silo.events.shown import limits_as_json
from silo.projections.jobs import JobRow
from silo.projections.view import Key

SCHEMA = pa.schema(
    [
        pa.field("tenant", pa.utf8(), nullable=False),
        pa.field("id", pa.utf8(), nullable=False),
        pa.field("priority", pa.uint8(), nullable=False),
        pa.field("enqueue_time_ms", pa.int64(), nullable=False),
        pa.field("status", pa.utf8(), nullable=False),
        pa.field("status_changed_at_ms", pa.int64(), nullable=False),
        pa.field("task_group", pa.utf8(), nullable=False),
        pa.field("current_attempt", pa.uint32()),
        pa.field("next_attempt_starts_after_ms", pa.int64()),
        pa.field("starts_ms", pa.int64()),
        pa.field("metadata", pa.map_(pa.utf8(), pa.utf8()), nullable=False),
        pa.field("limits", pa.utf8(), nullable=False),
    ]
)
"""As the table `jobs`; but `status` is the stored one, which says nothing of the time: a job of status Scheduled is shown as
Waiting from `starts_ms` on, or always if that is null."""


def row(key: Key, job: JobRow) -> tuple[object, ...]:
    """A job by these columns."""
    spec, is_scheduled = job.spec, job.status is JobStatus.SCHEDULED
    chain = job.chain if is_scheduled else None
    return (
        key[0],
        key[1],
        spec.priority,
        spec.enqueue_time_ms,
        job.status.kind,
        job.changed_ms,
        spec.task_group,
        chain.attempt if chain is not None else None,
        job.next_start_ms if chain is not None else None,
        job.next_start_ms if is_scheduled else None,
        spec.metadata,
        limits_as_json(spec.limits),
    )
