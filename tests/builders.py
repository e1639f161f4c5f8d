"""Values for tests: each is complete by itself, so that a test spells out only what it is about."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs

from silo.domain.jobs import LEASE_MS, AttemptStatus, JobSpec, JobStatus
from silo.domain.limits import Algorithm, Behavior, ConcurrencyLimit, FloatingLimit, RateLimit, RateLimitRetry
from silo.domain.retry import RetryPolicy
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    CancellationRequested,
    ChainStarted,
    Event,
    JobCancelled,
    JobEnqueued,
    JobEvent,
    JobFailed,
    RateChecked,
    RateWaited,
    SlotGranted,
    SlotWaited,
    TaskLeased,
)
from silo.ratelimit.buckets import Bucket
from silo.shard.enqueue import NewJob
from silo.shard.import_jobs import ImportedAttempt, ImportJob
from silo.shard.jobs import JobName
from silo.shard.lease import Heartbeat, LeaseTask, LeaseTasks
from silo.shard.outcome import Cancelled, Failure, ReportOutcome, Success

NOW = 1_000_000
"""The time at which a test begins."""

LATER = NOW + 60_000

NAME = JobName("acme", "j1")
"""The job that a test is about, if it is about one."""

Fact = TypeVar("Fact", bound=Event)


def named(job_id: str) -> JobName:
    """Another job of the same tenant."""
    return JobName(NAME.tenant, job_id)


def a_policy(**but: Any) -> RetryPolicy:
    """Two retries: after 2000 ms, then after 4000 ms."""
    usual = {
        "retry_count": 2,
        "initial_interval_ms": 1_000,
        "max_interval_ms": 60_000,
        "randomize_interval": False,
        "backoff_factor": 2.0,
    }
    return RetryPolicy(**usual | but)


def a_rate_limit(limit: int = 10, **but: Any) -> RateLimit:
    """A token bucket of ten hits a second, of which one is asked for."""
    usual = {
        "name": "mails",
        "unique_key": "acme",
        "limit": limit,
        "duration_ms": 1_000,
        "hits": 1,
        "algorithm": Algorithm.TOKEN_BUCKET,
        "behavior": Behavior.BATCHING,
        "retry": RateLimitRetry(),
    }
    return RateLimit(**usual | but)


def a_spec(**but: Any) -> JobSpec:
    usual = {"priority": 0, "task_group": "group", "enqueue_time_ms": 0, "retry_policy": None, "metadata": ()}
    return JobSpec(**usual | but)


def a_limit(max_concurrency: int = 1, key: str = "queue") -> ConcurrencyLimit:
    return ConcurrencyLimit(key=key, max_concurrency=max_concurrency)


def a_floating_limit(default: int = 1, key: str = "queue", **but: Any) -> FloatingLimit:
    usual = {
        "key": key,
        "default_max_concurrency": default,
        "refresh_interval_ms": 60_000,
        "metadata": (),
    }
    return FloatingLimit(**usual | but)


def a_job(**but: Any) -> NewJob:
    """A job to be enqueued; what is said of its `JobSpec` is said here as well."""
    stated = {field.name: but.pop(field.name) for field in attrs.fields(JobSpec) if field.name in but}
    usual = {"tenant": NAME.tenant, "job_id": NAME.job_id, "spec": a_spec(**stated), "payload": b"payload"}
    return NewJob(**usual | but)


def an_attempt(status: AttemptStatus = AttemptStatus.FAILED, **but: Any) -> ImportedAttempt:
    """An attempt in an import."""
    told = {
        AttemptStatus.SUCCEEDED: {"error_code": "", "data": b"result"},
        AttemptStatus.FAILED: {"error_code": "E", "data": b"error"},
    }.get(status, {"error_code": "", "data": b""})
    return ImportedAttempt(**{"status": status, "started_ms": 100, "finished_ms": 200} | told | but)


def an_import(*attempts: ImportedAttempt, **but: Any) -> ImportJob:
    stated = {field.name: but.pop(field.name) for field in attrs.fields(JobSpec) if field.name in but}
    usual = {
        "name": NAME,
        "spec": a_spec(**stated),
        "start_ms": 0,
        "payload": b"payload",
        "attempts": attempts,
    }
    return ImportJob(**usual | but)


def for_worker(worker_id: str = "worker", **but: Any) -> LeaseTasks:
    return LeaseTasks(**{"worker_id": worker_id, "task_group": "group", "max_tasks": 10} | but)


def this_job(worker_id: str = "worker") -> LeaseTask:
    return LeaseTask(job=NAME, worker_id=worker_id)


def a_heartbeat(task_id: str = "task-1", worker_id: str = "worker") -> Heartbeat:
    return Heartbeat(task_id=task_id, worker_id=worker_id)


def success(task_id: str = "task-1", result: bytes = b"result") -> ReportOutcome:
    return ReportOutcome(task_id, Success(result))


def failure(task_id: str = "task-1", error_code: str = "E", error_data: bytes = b"error") -> ReportOutcome:
    return ReportOutcome(task_id, Failure(error_code, error_data))


def cancelled(task_id: str = "task-1") -> ReportOutcome:
    return ReportOutcome(task_id, Cancelled())


_FIELDS: dict[str, Any] = {
    "tenant": NAME.tenant,
    "job_id": NAME.job_id,
    "shard_id": "shard",
    "spec": a_spec(),
    "payload": b"payload",
    "status": JobStatus.SCHEDULED,
    "changed_ms": NOW,
    "forget_ms": None,
    "retry_policy": None,
    "task_id": "task-1",
    "attempt": 1,
    "relative_attempt": 1,
    "start_ms": NOW,
    "virtual_start_ms": NOW,
    "worker_id": "worker",
    "expires_ms": NOW + LEASE_MS,
    "expired_ms": NOW + LEASE_MS,
    "result": b"result",
    "error_code": "E",
    "error_data": b"error",
    "started_ms": 100,
    "finished_ms": 200,
    "data": b"data",
    "gate": 0,
    "queue": "queue",
    "maximum": 1,
    "allowed": True,
    "remaining": 0,
    "reset_ms": NOW,
    "retry_ms": None,
    "is_local": True,
    "bucket": None,
    "passes_ms": NOW + 1_000,
    "queues": ("queue",),
    "default_max_concurrency": 1,
    "refresh_interval_ms": 1_000,
    "metadata": (),
    "task_group": "group",
    "new_max_concurrency": 2,
    "message": "message",
    "name": "name",
    "unique_key": "key",
    "until_ms": NOW + 1_000,
    "requested_seq": 1,
    "done_seq": 1,
    "upto_seq": 1,
}


_FIELDS_OF: dict[type[Event], dict[str, Any]] = {
    JobFailed: {"error_code": ""},
    RateChecked: {"error": ""},
}


def fact(kind: type[Fact], **but: Any) -> Fact:
    """A fact of this kind, by default about the job `NAME`, its task `task-1` and the time `NOW`."""
    fields = [field.name for field in attrs.fields(kind) if field.init]
    usual = _FIELDS | _FIELDS_OF.get(kind, {})
    return kind(**{name: usual[name] for name in fields} | but)


def stamped(event: Fact, *, seq: int = 1, time_ms: int = NOW, prev: int = 0) -> Fact:
    """The fact as it stands in a log."""
    event.seq, event.time_ms, event.actor, event.method = seq, time_ms, "actor", "Method"
    if isinstance(event, JobEvent):
        event.prev = prev
    return event


# --- lives, each a list of new facts about the job `NAME` ---------------------------------------------------


def pending(*, start_ms: int = NOW, virtual_start_ms: int | None = None, **spec: Any) -> list[Event]:
    """A job whose first attempt may start at a time."""
    virtual = start_ms if virtual_start_ms is None else virtual_start_ms
    return [
        fact(JobEnqueued, spec=a_spec(**spec)),
        fact(ChainStarted, start_ms=start_ms, virtual_start_ms=virtual),
    ]


def holding(**spec: Any) -> list[Event]:
    """A job that has the only slot of its queue, and is ready."""
    return [*pending(**{"limits": (a_limit(),)} | spec), fact(SlotGranted)]


def waiting(**spec: Any) -> list[Event]:
    """A job that waits for a slot."""
    return [*pending(**{"limits": (a_limit(),)} | spec), fact(SlotWaited)]


def a_bucket(hits: int = 10, **but: Any) -> Bucket:
    """A bucket with so many hits, full if they are ten, until the second is over."""
    usual = {"since_ms": NOW, "expires_ms": NOW + 1_000, "hits": hits, "part": 0, "parts": 1}
    return Bucket(**usual | but)


def throttled(**spec: Any) -> list[Event]:
    """A job that waits in the line of a bucket."""
    return [
        *pending(**{"limits": (a_rate_limit(),)} | spec),
        fact(RateChecked, allowed=False, bucket=a_bucket()),
        fact(RateWaited),
    ]


def checking(*, retry_ms: int = LATER, **spec: Any) -> list[Event]:
    """A job whose rate limit was used up, and is asked again later."""
    return [
        *pending(**{"limits": (a_rate_limit(),)} | spec),
        fact(RateChecked, allowed=False, bucket=a_bucket(), retry_ms=retry_ms),
    ]


def running(**spec: Any) -> list[Event]:
    """A job whose first attempt is with `worker`."""
    return [*pending(**spec), fact(TaskLeased)]


def running_to_be_cancelled(**spec: Any) -> list[Event]:
    return [*running(**spec), fact(CancellationRequested)]


def succeeded(**spec: Any) -> list[Event]:
    return [*running(**spec), fact(AttemptSucceeded)]


def failed(**spec: Any) -> list[Event]:
    return [*running(**spec), fact(AttemptFailed), fact(JobFailed)]


def cancelled_by_client(**spec: Any) -> list[Event]:
    """A job that was cancelled before it ran."""
    return [*pending(**spec), fact(CancellationRequested), fact(JobCancelled)]


def cancelled_by_worker(**spec: Any) -> list[Event]:
    """A job of which the worker said that it was cancelled, though nobody had asked."""
    return [*running(**spec), fact(AttemptCancelled), fact(JobCancelled)]


def waiting_for_retry(*, retry_ms: int = LATER, **spec: Any) -> list[Event]:
    """A job whose second attempt starts later."""
    again = fact(
        ChainStarted,
        task_id="task-2",
        attempt=2,
        relative_attempt=2,
        start_ms=retry_ms,
        virtual_start_ms=retry_ms,
    )
    return [*running(**{"retry_policy": a_policy()} | spec), fact(AttemptFailed), again]
