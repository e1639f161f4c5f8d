"""What a program says of a job, and what it learns of one, in Python's own types.

Times are `datetime` with a zone, durations are seconds.  On the wire both are milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeAlias

import attrs

from silo.client.payloads import Codec
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PRIORITY = 50


def ms(seconds: float) -> int:
    """Seconds as whole milliseconds."""
    return round(seconds * 1000)


def epoch_ms(moment: datetime) -> int:
    """A moment as milliseconds since the epoch.  One without a zone counts as local time, as everywhere in Python."""
    return (moment.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def moment(time_ms: int) -> datetime:
    """The moment so many milliseconds after the epoch, in UTC."""
    return EPOCH + timedelta(milliseconds=time_ms)


# --- what a program says -------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Retry:
    """How often and when an attempt that failed is followed by another.

    Attributes:
        times: at most so many more attempts.
        first_s: the wait before the first of them, in seconds.
        factor: each wait is so many times as long as the one before.
        longest_s: no wait is longer, in seconds.
        jitter: whether each wait is drawn by chance, so that jobs which failed together do not come back together.
    """

    times: int
    first_s: float = 1.0
    factor: float = 2.0
    longest_s: float = 600.0
    jitter: bool = True

    def message(self) -> pb.RetryPolicy:
        return pb.RetryPolicy(
            retry_count=self.times,
            initial_interval_ms=ms(self.first_s),
            max_interval_ms=ms(self.longest_s),
            randomize_interval=self.jitter,
            backoff_factor=self.factor,
        )


@attrs.frozen
class Concurrency:
    """At most `most` jobs of the tenant with this key run at the same time."""

    key: str
    most: int

    def message(self) -> pb.Limit:
        return pb.Limit(concurrency=pb.ConcurrencyLimit(key=self.key, max_concurrency=self.most))


@attrs.frozen
class FloatingConcurrency:
    """The same with a maximum that workers find out anew now and then, see `Worker.refresh`.

    Attributes:
        first: the maximum until it was found out.
        refresh_s: how old it may get, in seconds.
        metadata: what the workers are told with it.
    """

    key: str
    first: int
    refresh_s: float = attrs.field(kw_only=True)
    metadata: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)

    def message(self) -> pb.Limit:
        floating = pb.FloatingConcurrencyLimit(
            key=self.key,
            default_max_concurrency=self.first,
            refresh_interval_ms=ms(self.refresh_s),
            metadata=self.metadata,
        )
        return pb.Limit(floating_concurrency=floating)


class Bucket(Enum):
    """How a rate limit counts."""

    TOKEN = pb.GUBERNATOR_ALGORITHM_TOKEN_BUCKET
    """Full again when its time is over: `limit` starts at once are allowed, then none until then."""

    LEAKY = pb.GUBERNATOR_ALGORITHM_LEAKY_BUCKET
    """Fills all the time: starts come evenly."""


@attrs.frozen
class RateLimit:
    """At most `limit` starts of jobs of the tenant with this name and key in each `per_s` seconds.

    Attributes:
        hits: how many starts this job counts for.
    """

    name: str
    key: str
    limit: int
    per_s: float = attrs.field(kw_only=True)
    hits: int = attrs.field(default=1, kw_only=True)
    bucket: Bucket = attrs.field(default=Bucket.TOKEN, kw_only=True)

    def message(self) -> pb.Limit:
        rate_limit = pb.GubernatorRateLimit(
            name=self.name,
            unique_key=self.key,
            limit=self.limit,
            duration_ms=ms(self.per_s),
            hits=self.hits,
            algorithm=self.bucket.value,
        )
        return pb.Limit(rate_limit=rate_limit)


Limit: TypeAlias = Concurrency | FloatingConcurrency | RateLimit


@attrs.frozen(kw_only=True)
class NewJob:
    """A job to be enqueued; the arguments of `Client.enqueue` as a value, for `Client.enqueue_many`."""

    task_group: str
    payload: Any = None
    id: str | None = None
    tenant: str | None = None
    priority: int = PRIORITY
    start_at: datetime | None = None
    delay_s: float | None = None
    retry: Retry | None = None
    limits: Sequence[Limit] = ()
    metadata: Mapping[str, str] = attrs.field(factory=dict)

    def message(self, codec: Codec, *, job_id: str, tenant: str | None, now_ms: int) -> pb.EnqueueRequest:
        """The request, still without its shard.

        Raises:
            ValueError: both `start_at` and `delay_s` are given.
        """
        start_at_ms = 0
        if self.start_at is not None and self.delay_s is not None:
            raise ValueError("give start_at or delay_s, not both")
        if self.start_at is not None:
            start_at_ms = epoch_ms(self.start_at)
        elif self.delay_s is not None:
            start_at_ms = now_ms + ms(self.delay_s)
        return pb.EnqueueRequest(
            id=job_id,
            priority=self.priority,
            start_at_ms=start_at_ms,
            retry_policy=self.retry.message() if self.retry is not None else None,
            payload=pb.SerializedBytes(msgpack=codec.encode(self.payload)),
            limits=[limit.message() for limit in self.limits],
            tenant=tenant,
            metadata=self.metadata,
            task_group=self.task_group,
        )


# --- what a program learns -----------------------------------------------------------------------------------------------


class Status(Enum):
    """Where a job stands."""

    SCHEDULED = pb.JOB_STATUS_SCHEDULED
    RUNNING = pb.JOB_STATUS_RUNNING
    SUCCEEDED = pb.JOB_STATUS_SUCCEEDED
    FAILED = pb.JOB_STATUS_FAILED
    CANCELLED = pb.JOB_STATUS_CANCELLED

    @property
    def has_ended(self) -> bool:
        return self not in (Status.SCHEDULED, Status.RUNNING)


class AttemptStatus(Enum):
    """How an attempt went."""

    RUNNING = pb.ATTEMPT_STATUS_RUNNING
    SUCCEEDED = pb.ATTEMPT_STATUS_SUCCEEDED
    FAILED = pb.ATTEMPT_STATUS_FAILED
    CANCELLED = pb.ATTEMPT_STATUS_CANCELLED


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt of a job."""

    number: int
    status: AttemptStatus
    started_at: datetime
    finished_at: datetime | None
    result: Any
    error_code: str | None
    error: Any


@attrs.frozen(kw_only=True)
class JobState:
    """All that the broker knows of a job.

    Attributes:
        start_at: not before this time, as the job was enqueued; None: at once.
        next_attempt_at: when its next attempt may start; None if none is to come.
        attempts: the oldest first; empty unless they were asked for.
        result: what it returned, once it has succeeded.
    """

    id: str
    task_group: str
    status: Status
    status_changed_at: datetime
    start_at: datetime | None
    priority: int
    payload: Any
    metadata: Mapping[str, str]
    limits: Sequence[pb.Limit]
    next_attempt_at: datetime | None
    attempts: Sequence[Attempt]
    result: Any

    @classmethod
    def of(cls, job: pb.GetJobResponse, codec: Codec) -> JobState:
        return cls(
            id=job.id,
            task_group=job.task_group,
            status=Status(job.status),
            status_changed_at=moment(job.status_changed_at_ms),
            start_at=moment(job.enqueue_time_ms) if job.enqueue_time_ms > 0 else None,
            priority=job.priority,
            payload=codec.decode(job.payload.msgpack),
            metadata=dict(job.metadata),
            limits=tuple(job.limits),
            next_attempt_at=(
                moment(job.next_attempt_starts_after_ms)
                if job.HasField("next_attempt_starts_after_ms")
                else None
            ),
            attempts=tuple(_attempt(attempt, codec) for attempt in job.attempts),
            result=codec.decode(job.result.msgpack) if job.HasField("result") else None,
        )


def _attempt(attempt: pb.JobAttempt, codec: Codec) -> Attempt:
    return Attempt(
        number=attempt.attempt_number,
        status=AttemptStatus(attempt.status),
        started_at=moment(attempt.started_at_ms),
        finished_at=moment(attempt.finished_at_ms) if attempt.HasField("finished_at_ms") else None,
        result=codec.decode(attempt.result.msgpack) if attempt.HasField("result") else None,
        error_code=attempt.error_code if attempt.HasField("error_code") else None,
        error=codec.decode(attempt.error_data.msgpack) if attempt.HasField("error_data") else None,
    )


class Standing(Enum):
    """Where a job stands, and so why it is not running."""

    ENDED = ext.STANDING_ENDED
    WAITS_FOR_TIME = ext.STANDING_WAITS_FOR_TIME
    WAITS_FOR_SLOT = ext.STANDING_WAITS_FOR_SLOT
    WAITS_FOR_RATE_LIMIT = ext.STANDING_WAITS_FOR_RATE_LIMIT
    READY = ext.STANDING_READY
    RUNNING = ext.STANDING_RUNNING


@attrs.frozen(kw_only=True)
class Explanation:
    """Why a job is not running.

    Attributes:
        summary: where it stands and why, in a sentence.
        next: what has to happen next, in a sentence.
        next_at: when that happens by itself; None if somebody has to do something.
        details: the answer as the broker gave it, with every limit, the line, and who holds the slots.
    """

    standing: Standing
    since: datetime
    summary: str
    next: str
    next_at: datetime | None
    details: ext.ExplainJobResponse

    @classmethod
    def of(cls, told: ext.ExplainJobResponse) -> Explanation:
        return cls(
            standing=Standing(told.standing),
            since=moment(told.since_ms),
            summary=told.summary,
            next=told.next,
            next_at=moment(told.next_ms) if told.HasField("next_ms") else None,
            details=told,
        )


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened, mostly to a job.

    Attributes:
        seq: its place in the log of its shard.
        type: as docs/events.md names it.
        actor: who caused it: a worker's id, a client's name, or `system`.
        method: the call that asked for it; empty for what the clock caused.
        tenant, job_id: which job it is about, if it is about one; `-` is the tenant of a broker without tenants.
        data: its other fields.
    """

    seq: int
    time: datetime
    type: str
    actor: str
    method: str
    tenant: str | None
    job_id: str | None
    attempt: int | None
    task_id: str | None
    data: Mapping[str, Any]

    @classmethod
    def of(cls, event: ext.Event) -> Event:
        return cls(
            seq=event.seq,
            time=moment(event.time_ms),
            type=event.type,
            actor=event.actor,
            method=event.method,
            tenant=event.tenant if event.HasField("tenant") else None,
            job_id=event.job_id if event.HasField("job_id") else None,
            attempt=event.attempt if event.HasField("attempt") else None,
            task_id=event.task_id if event.HasField("task_id") else None,
            data=json.loads(event.data),
        )


@attrs.frozen
class Rows:
    """What a statement found.

    Attributes:
        columns: their names, in order.
        rows: one dict for each row.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


Parameter: TypeAlias = bool | int | float | str | bytes | None


def parameter(value: Parameter) -> pb.QueryParameter:
    """A bind parameter.  Raises TypeError for a value that SQL does not take."""
    match value:
        case None:
            return pb.QueryParameter(null_value=pb.QueryNull())
        case bool():
            return pb.QueryParameter(bool_value=value)
        case int():
            return (
                pb.QueryParameter(int64_value=value)
                if value < 1 << 63
                else pb.QueryParameter(uint64_value=value)
            )
        case float():
            return pb.QueryParameter(float64_value=value)
        case str():
            return pb.QueryParameter(string_value=value)
        case bytes():
            return pb.QueryParameter(bytes_value=value)
    raise TypeError(f"a bind parameter is None, bool, int, float, str or bytes, not {type(value).__name__}")
