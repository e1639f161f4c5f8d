"""Protobuf in, domain values out, and back: every difference of vocabulary between the two is in this file.

A message that is absent reads as an empty one, so bytes that were not sent are zero bytes.  Replies always carry the wrapper
around bytes, also around none, because clients look for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

from silo.domain.jobs import (
    LEASE_MS,
    AttemptStatus,
    JobSpec,
    JobStatus,
    check_task_group_length,
)
from silo.domain.limits import (
    Algorithm,
    ConcurrencyLimit,
    FloatingLimit,
    Limit,
    RateLimit,
    RateLimitRetry,
)
from silo.domain.retry import RetryPolicy
from silo.domain.tenants import DEFAULT_TENANT
from silo.errors import Invalid
from silo.pb import silo_pb2 as pb
from silo.shard.enqueue import NewJob
from silo.shard.import_jobs import ImportedAttempt, ImportJob
from silo.shard.jobs import Attempt, JobName
from silo.shard.lease import LeasedTask
from silo.shard.outcome import Cancelled, Failure, Outcome, Success
from silo.shard.reading import JobResult, JobView
from silo.shard.refresh import LeasedRefresh, NotRefreshed, Refreshed

# --- what clients send -----------------------------------------------------------------------------------------------


def new_job(request: pb.EnqueueRequest, tenant: str) -> NewJob:
    """Raises Invalid for what is out of bounds, in the order of the contract."""
    spec = _spec(request, enqueue_time_ms=request.start_at_ms)
    check_task_group_length(request.task_group)
    return NewJob(tenant=tenant, job_id=request.id, spec=spec, payload=request.payload.msgpack)


def imported_job(request: pb.ImportJobRequest, tenant: str, *, now_ms: int) -> ImportJob:
    """Raises Invalid as `new_job` does."""
    if not request.id:
        raise Invalid("job id is required for import")
    if not request.task_group:
        raise Invalid("task_group is required")
    return ImportJob(
        name=JobName(tenant, request.id),
        spec=_spec(
            request, enqueue_time_ms=request.enqueue_time_ms if request.enqueue_time_ms > 0 else now_ms
        ),
        start_ms=request.start_at_ms,
        payload=request.payload.msgpack,
        attempts=tuple(_imported_attempt(attempt) for attempt in request.attempts),
    )


def _spec(request: pb.EnqueueRequest | pb.ImportJobRequest, *, enqueue_time_ms: int) -> JobSpec:
    return JobSpec(
        priority=request.priority,
        task_group=request.task_group,
        enqueue_time_ms=enqueue_time_ms,
        retry_policy=_retry_policy(request.retry_policy) if request.HasField("retry_policy") else None,
        metadata=tuple(request.metadata.items()),
        limits=tuple(_limits(request.limits)) if request.limits else (),
    )


def _retry_policy(policy: pb.RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        retry_count=policy.retry_count,
        initial_interval_ms=policy.initial_interval_ms,
        max_interval_ms=policy.max_interval_ms,
        randomize_interval=policy.randomize_interval,
        backoff_factor=policy.backoff_factor,
    )


def _limits(limits: Iterable[pb.Limit]) -> Iterator[Limit]:
    """A limit that says nothing is none, and is dropped."""
    for limit in limits:
        match limit.WhichOneof("limit"):
            case "concurrency":
                fixed = limit.concurrency
                yield ConcurrencyLimit(key=fixed.key, max_concurrency=fixed.max_concurrency)
            case "floating_concurrency":
                floating = limit.floating_concurrency
                yield FloatingLimit(
                    key=floating.key,
                    default_max_concurrency=floating.default_max_concurrency,
                    refresh_interval_ms=floating.refresh_interval_ms,
                    metadata=tuple(floating.metadata.items()),
                )
            case "rate_limit":
                yield _rate_limit(limit.rate_limit)


def _rate_limit(rate: pb.GubernatorRateLimit) -> RateLimit:
    retry = rate.retry_policy
    is_leaky = rate.algorithm == pb.GUBERNATOR_ALGORITHM_LEAKY_BUCKET
    return RateLimit(
        name=rate.name,
        unique_key=rate.unique_key,
        limit=rate.limit,
        duration_ms=rate.duration_ms,
        hits=rate.hits,
        algorithm=Algorithm.LEAKY_BUCKET if is_leaky else Algorithm.TOKEN_BUCKET,
        behavior=rate.behavior,
        retry=RateLimitRetry(
            initial_backoff_ms=retry.initial_backoff_ms,
            max_backoff_ms=retry.max_backoff_ms,
            backoff_multiplier=retry.backoff_multiplier,
            max_retries=retry.max_retries,
        )
        if rate.HasField("retry_policy")
        else RateLimitRetry(),
    )


def _imported_attempt(attempt: pb.ImportAttempt) -> ImportedAttempt:
    if attempt.status not in pb.AttemptStatus.values():
        raise Invalid("invalid attempt status")
    status = AttemptStatus(attempt.status)
    if status is AttemptStatus.RUNNING:
        raise Invalid("import attempts must be terminal (not Running)")
    data = b""
    if status is AttemptStatus.SUCCEEDED:
        data = attempt.result.msgpack
    elif status is AttemptStatus.FAILED:
        data = attempt.error_data.msgpack
    return ImportedAttempt(
        status=status,
        started_ms=attempt.started_at_ms,
        finished_ms=attempt.finished_at_ms,
        error_code=attempt.error_code if status is AttemptStatus.FAILED else "",
        data=data,
    )


def outcome(request: pb.ReportOutcomeRequest) -> Outcome:
    """Raises Invalid if the request has none."""
    match request.WhichOneof("outcome"):
        case "success":
            return Success(request.success.msgpack)
        case "failure":
            return Failure(request.failure.code, request.failure.data.msgpack)
        case "cancelled":
            return Cancelled()
        case _:
            raise Invalid("missing outcome")


def refresh_outcome(request: pb.ReportRefreshOutcomeRequest) -> Refreshed | NotRefreshed:
    """Raises Invalid if the request has none."""
    match request.WhichOneof("outcome"):
        case "success":
            return Refreshed(request.success.new_max_concurrency)
        case "failure":
            return NotRefreshed(request.failure.code, request.failure.message)
        case _:
            raise Invalid("missing outcome")


# --- what they are answered --------------------------------------------------------------------------------------------


JOB_STATUSES: dict[JobStatus, pb.JobStatus] = {
    status: getattr(pb, f"JOB_STATUS_{status.name}") for status in JobStatus
}
ATTEMPT_STATUSES: dict[AttemptStatus, pb.AttemptStatus] = {
    status: getattr(pb, f"ATTEMPT_STATUS_{status.name}") for status in AttemptStatus
}

ALGORITHMS: dict[Algorithm, pb.GubernatorAlgorithm] = {
    algorithm: getattr(pb, f"GUBERNATOR_ALGORITHM_{algorithm.name}") for algorithm in Algorithm
}


def job_response(job_id: str, job: JobView) -> pb.GetJobResponse:
    row, spec = job.row, job.row.spec
    return pb.GetJobResponse(
        id=job_id,
        priority=spec.priority,
        enqueue_time_ms=spec.enqueue_time_ms,
        payload=_bytes(job.payload),
        retry_policy=_policy_message(spec.retry_policy),
        limits=limit_messages(spec.limits),
        metadata=dict(spec.metadata),
        status=JOB_STATUSES[row.status],
        status_changed_at_ms=row.changed_ms,
        attempts=[_attempt_message(job_id, attempt) for attempt in job.attempts],
        next_attempt_starts_after_ms=row.next_start_ms,
        task_group=spec.task_group,
        result=_bytes(job.result) if job.result is not None else None,
    )


def _attempt_message(job_id: str, attempt: Attempt) -> pb.JobAttempt:
    row = attempt.row
    message = pb.JobAttempt(
        job_id=job_id,
        attempt_number=attempt.number,
        task_id=row.task_id,
        status=ATTEMPT_STATUSES[row.status],
        started_at_ms=row.started_ms,
        finished_at_ms=row.finished_ms,
    )
    if row.status is AttemptStatus.SUCCEEDED:
        message.result.msgpack = attempt.data
    elif row.status is AttemptStatus.FAILED:
        message.error_code = row.error_code or ""
        message.error_data.msgpack = attempt.data
    return message


def result_response(job_id: str, result: JobResult) -> pb.GetJobResultResponse:
    message = pb.GetJobResultResponse(
        id=job_id, status=JOB_STATUSES[result.status], finished_at_ms=result.finished_ms
    )
    if result.status is JobStatus.SUCCEEDED:
        message.success_data.msgpack = result.attempt.data if result.attempt else b""
    elif result.status is JobStatus.FAILED:
        message.failure.error_code = result.error_code
        message.failure.error_data.msgpack = result.error_data
    else:
        message.cancelled.cancelled_at_ms = result.finished_ms
    return message


def task(task: LeasedTask, shard: str) -> pb.Task:
    """A leased task; `shard` is the id as the worker is to send it back."""
    spec = task.spec
    return pb.Task(
        id=task.task_id,
        job_id=task.job_id,
        tenant_id=task.tenant if task.tenant != DEFAULT_TENANT else None,
        attempt_number=task.attempt,
        relative_attempt_number=task.relative_attempt,
        is_last_attempt=task.is_last_attempt,
        metadata=dict(spec.metadata),
        limits=limit_messages(spec.limits),
        payload=_bytes(task.payload),
        priority=spec.priority,
        shard=shard,
        task_group=spec.task_group,
        lease_ms=LEASE_MS,
    )


def refresh_task(refresh: LeasedRefresh, shard: str) -> pb.RefreshFloatingLimitTask:
    """A leased refresh; `shard` is the id as the worker is to send it back."""
    return pb.RefreshFloatingLimitTask(
        id=refresh.task_id,
        queue_key=refresh.queue,
        current_max_concurrency=refresh.maximum,
        last_refreshed_at_ms=refresh.refreshed_ms,
        metadata=dict(refresh.metadata),
        lease_ms=LEASE_MS,
        shard=shard,
        task_group=refresh.task_group,
        tenant_id=refresh.tenant if refresh.tenant != DEFAULT_TENANT else None,
    )


def limit_messages(limits: Iterable[Limit]) -> list[pb.Limit]:
    return [_limit_message(limit) for limit in limits]


def _limit_message(limit: Limit) -> pb.Limit:
    match limit:
        case ConcurrencyLimit():
            return pb.Limit(
                concurrency=pb.ConcurrencyLimit(key=limit.key, max_concurrency=limit.max_concurrency)
            )
        case FloatingLimit():
            return pb.Limit(
                floating_concurrency=pb.FloatingConcurrencyLimit(
                    key=limit.key,
                    default_max_concurrency=limit.default_max_concurrency,
                    refresh_interval_ms=limit.refresh_interval_ms,
                    metadata=dict(limit.metadata),
                )
            )
        case RateLimit():
            return pb.Limit(
                rate_limit=pb.GubernatorRateLimit(
                    name=limit.name,
                    unique_key=limit.unique_key,
                    limit=limit.limit,
                    duration_ms=limit.duration_ms,
                    hits=limit.hits,
                    algorithm=ALGORITHMS[limit.algorithm],
                    behavior=limit.behavior,
                    retry_policy=pb.RateLimitRetryPolicy(
                        initial_backoff_ms=limit.retry.initial_backoff_ms,
                        max_backoff_ms=limit.retry.max_backoff_ms,
                        backoff_multiplier=limit.retry.backoff_multiplier,
                        max_retries=limit.retry.max_retries,
                    ),
                )
            )
        case _:
            assert_never(limit)


def _bytes(data: bytes) -> pb.SerializedBytes:
    return pb.SerializedBytes(msgpack=data)


def _policy_message(policy: RetryPolicy | None) -> pb.RetryPolicy | None:
    if policy is None:
        return None
    return pb.RetryPolicy(
        retry_count=policy.retry_count,
        initial_interval_ms=policy.initial_interval_ms,
        max_interval_ms=policy.max_interval_ms,
        randomize_interval=policy.randomize_interval,
        backoff_factor=policy.backoff_factor,
    )
