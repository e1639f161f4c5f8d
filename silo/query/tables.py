"""The tables with their columns.  The first five read as they do in the server that clients know; the others are ours."""

from __future__ import annotations

import pyarrow as pa


def _schema(**columns: str) -> pa.Schema:
    """Columns by type; one that may be null has a question mark behind."""
    return pa.schema([_field(name, kind) for name, kind in columns.items()])


def _field(name: str, kind: str) -> pa.Field:
    return pa.field(name, TYPES[kind.rstrip("?")], nullable=kind.endswith("?"))


TYPES = {
    "text": pa.utf8(),
    "int64": pa.int64(),
    "uint32": pa.uint32(),
    "uint8": pa.uint8(),
    "map": pa.map_(pa.utf8(), pa.utf8()),
}

JOBS = _schema(
    shard_id="text",
    tenant="text",
    id="text",
    priority="uint8",
    enqueue_time_ms="int64",
    payload="text?",
    status_kind="text?",
    status_changed_at_ms="int64?",
    task_group="text",
    current_attempt="uint32?",
    next_attempt_starts_after_ms="int64?",
    metadata="map?",
    limits="text?",
)

TASKS = _schema(
    shard_id="text",
    tenant="text",
    task_group="text",
    start_time_ms="int64",
    priority="uint8",
    job_id="text",
    attempt="uint32",
    variant_type="text",
    task_id="text",
    held_queues="text",
)

QUEUES = _schema(
    shard_id="text",
    tenant="text",
    queue_name="text",
    entry_type="text",
    task_id="text",
    job_id="text?",
    priority="uint8?",
    timestamp_ms="int64",
)

TENANT_COUNTS = _schema(shard_id="text", tenant="text", status_kind="text", cnt="int64")

QUEUE_COUNTS = _schema(
    shard_id="text",
    tenant="text",
    queue_name="text",
    holders="int64",
    requesters="int64",
    max_concurrency="int64?",
    limit_type="text?",
)

ATTEMPTS = _schema(
    shard_id="text",
    tenant="text",
    job_id="text",
    attempt="uint32",
    task_id="text",
    status="text",
    started_at_ms="int64",
    finished_at_ms="int64?",
    error_code="text?",
    data="text?",
)

LEASES = _schema(
    shard_id="text",
    tenant="text",
    task_id="text",
    job_id="text?",
    queue_name="text?",
    worker_id="text",
    expires_at_ms="int64",
)

EVENTS = _schema(
    shard_id="text",
    seq="int64",
    time_ms="int64",
    type="text",
    tenant="text?",
    job_id="text?",
    task_id="text?",
    attempt="uint32?",
    queue_name="text?",
    worker_id="text?",
    actor="text",
    method="text",
    data="text",
)

SCHEMAS: dict[str, pa.Schema] = {
    "jobs": JOBS,
    "tasks": TASKS,
    "queues": QUEUES,
    "tenant_counts": TENANT_COUNTS,
    "queue_counts": QUEUE_COUNTS,
    "attempts": ATTEMPTS,
    "leases": LEASES,
    "events": EVENTS,
}
