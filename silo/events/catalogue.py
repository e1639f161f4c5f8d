"""Every fact that a shard's log can hold, in the past tense.

Read one job's events in order and you have read its life: *JobEnqueued, ChainStarted, SlotWaited, SlotGranted, TaskLeased,
AttemptFailed, ChainStarted, ChainDue, SlotGranted, TaskLeased, AttemptSucceeded*.

Three rules keep old logs readable for ever:

- `TAG` names the type and `VERSION` its shape; neither is ever reused for something else.
- A changed shape is a new version plus one upcaster (`upcasts.py`); a fact is never deleted from `EVENTS`.
- Whatever chance, the clock or the configuration decided is a field here: a fold has no other source.

An event's own fields are given by whoever emits it.  The *stamp* (sequence number, time, caller, and the job's previous
event) is set once, by the draft that emits it or by the codec that reads it back.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from silo.domain.jobs import AttemptStatus, JobSpec, JobStatus
from silo.domain.retry import RetryPolicy
from silo.ratelimit.buckets import Bucket


@attrs.define(kw_only=True)
class Event:
    """One immutable fact.

    Attributes:
        seq: position in the shard's log, from 1, without gaps.
        time_ms: when it was decided; never runs backward along the log.
        actor: who caused it: a worker id, a client's name, or `system`.
        method: the RPC that asked for it, or empty for what the clock caused.
    """

    TAG: ClassVar[int] = 0
    VERSION: ClassVar[int] = 1

    seq: int = attrs.field(init=False, default=0, eq=False)
    time_ms: int = attrs.field(init=False, default=0, eq=False)
    actor: str = attrs.field(init=False, default="", eq=False)
    method: str = attrs.field(init=False, default="", eq=False)


@attrs.define(kw_only=True)
class TenantEvent(Event):
    """A fact about something of one tenant."""

    tenant: str


@attrs.define(kw_only=True)
class JobEvent(TenantEvent):
    """A fact about one job; `prev` is the sequence number of the fact before it in the same job's life, 0 for its first.

    So a job's history is a walk backward of as many point reads as it has facts, whatever else the log holds.
    """

    BEGINS_JOB: ClassVar[bool] = False

    prev: int = attrs.field(init=False, default=0, eq=False)
    job_id: str


@attrs.define(kw_only=True)
class QueueEvent(TenantEvent):
    """A fact about one of a tenant's queues, which is what jobs wait in that share a concurrency key."""

    queue: str


@attrs.define(kw_only=True)
class ShardCreated(Event):
    """The log begins."""

    TAG: ClassVar[int] = 1
    shard_id: str


# --- the job -----------------------------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class JobEnqueued(JobEvent):
    """A client handed over a job.  `ChainStarted` follows in the same commit."""

    TAG: ClassVar[int] = 10
    VERSION: ClassVar[int] = 2
    BEGINS_JOB: ClassVar[bool] = True
    spec: JobSpec
    payload: bytes


@attrs.define(kw_only=True)
class JobImported(JobEvent):
    """A job came from elsewhere with a history; `status` is what its attempts make of it.

    `AttemptImported` follows for each attempt, then `ChainStarted` if it still has work to do.
    """

    TAG: ClassVar[int] = 11
    VERSION: ClassVar[int] = 2
    BEGINS_JOB: ClassVar[bool] = True
    spec: JobSpec
    payload: bytes
    status: JobStatus
    changed_ms: int
    forget_ms: int | None


@attrs.define(kw_only=True)
class JobReimported(JobEvent):
    """A known job was imported again with more attempts than before; only its retry policy may change."""

    TAG: ClassVar[int] = 12
    retry_policy: RetryPolicy | None
    status: JobStatus
    changed_ms: int
    forget_ms: int | None


@attrs.define(kw_only=True)
class CancellationRequested(JobEvent):
    """A client asked to cancel.  A pending job ends in the same commit; a running one is told by its next heartbeat."""

    TAG: ClassVar[int] = 13


@attrs.define(kw_only=True)
class JobFailed(JobEvent):
    """No attempt will follow.  `forget_ms` is when retention removes the job, if ever.

    `error_code` is empty if the last attempt says why; a job that came to no attempt says it here.
    """

    TAG: ClassVar[int] = 14
    VERSION: ClassVar[int] = 2
    error_code: str
    forget_ms: int | None


@attrs.define(kw_only=True)
class JobCancelled(JobEvent):
    """The job ended without success because somebody wanted it so."""

    TAG: ClassVar[int] = 15
    forget_ms: int | None


@attrs.define(kw_only=True)
class JobRestarted(JobEvent):
    """A failed or cancelled job was given another run; its cancellation is forgotten.  `ChainStarted` follows."""

    TAG: ClassVar[int] = 16


@attrs.define(kw_only=True)
class JobExpedited(JobEvent):
    """A job that waited for its time need not wait any longer.  The time of this event is its new start."""

    TAG: ClassVar[int] = 17
    virtual_start_ms: int


@attrs.define(kw_only=True)
class JobDeleted(JobEvent):
    """A client removed an ended job; its id is free again."""

    TAG: ClassVar[int] = 18


@attrs.define(kw_only=True)
class JobForgotten(JobEvent):
    """Retention removed an ended job; its id is free again."""

    TAG: ClassVar[int] = 19


ERASED = b"\xc0"
"""What stands where data was erased: MessagePack for null."""


@attrs.define(kw_only=True)
class JobErased(JobEvent):
    """The job's payload, results and error data are gone from its rows; the job itself stays."""

    TAG: ClassVar[int] = 20


# --- the chain: the way of one attempt through its gates to a worker ------------------------------------------------------


@attrs.define(kw_only=True)
class ChainStarted(JobEvent):
    """An attempt set out.  Whatever chain the job had before is over, and what that one held is free.

    Attributes:
        task_id: the chain's identity; slots, lease and attempt carry it too.
        attempt: counts over the job's life, from 1.
        relative_attempt: counts since the last restart, from 1; retries are reckoned by it.
        start_ms: not before this time.
        virtual_start_ms: its place in every line: start time plus priority times the configured weight.
        gate: which of the job's limits it comes to first, from 0; their number, if it passes all of them by.
    """

    TAG: ClassVar[int] = 30
    VERSION: ClassVar[int] = 2
    task_id: str
    attempt: int
    relative_attempt: int
    start_ms: int
    virtual_start_ms: int
    gate: int


@attrs.define(kw_only=True)
class GateEvent(JobEvent):
    """A fact about a chain at one of its gates; `gate` is the limit's place in the job's list, from 0."""

    task_id: str
    gate: int


@attrs.define(kw_only=True)
class ChainDue(JobEvent):
    """The chain's start time came."""

    TAG: ClassVar[int] = 31
    task_id: str


@attrs.define(kw_only=True)
class SlotGranted(GateEvent):
    """The chain holds a slot of the queue from now until it ends, and goes on to its next gate.

    `maximum` is what the limit was when it decided.
    """

    TAG: ClassVar[int] = 32
    queue: str
    maximum: int


@attrs.define(kw_only=True)
class SlotWaited(GateEvent):
    """No slot is free, or others are before this one: the chain waits in the queue's line."""

    TAG: ClassVar[int] = 33
    queue: str
    maximum: int


@attrs.define(kw_only=True)
class RateCheckDue(GateEvent):
    """The chain has come to a rate limit that an outside service decides: it is to be asked from now on."""

    TAG: ClassVar[int] = 34


@attrs.define(kw_only=True)
class RateChecked(GateEvent):
    """A rate limit was asked.  If it allowed the hit, the chain goes on to its next gate.

    Attributes:
        remaining: hits that the limiter still allowed; 0 if it did not answer.
        reset_ms: when it will have forgotten all hits; 0 if it did not answer.
        error: why it did not answer, or why it never allows this; else empty.
        retry_ms: when it is asked again; None: not by itself, see the event that follows.
        is_local: whether it was a bucket inside the shard.
        bucket: what that has come to; None: as good as new, or not inside the shard.
    """

    TAG: ClassVar[int] = 35
    allowed: bool
    remaining: int
    reset_ms: int
    error: str
    retry_ms: int | None
    is_local: bool
    bucket: Bucket | None


@attrs.define(kw_only=True)
class RateWaited(GateEvent):
    """The bucket is used up: the chain waits in its line, in which the first may pass at `passes_ms` at the latest."""

    TAG: ClassVar[int] = 36
    passes_ms: int


@attrs.define(kw_only=True)
class HoldersDropped(JobEvent):
    """An operator took the chain's slots away; the chain itself goes on."""

    TAG: ClassVar[int] = 37
    task_id: str
    queues: tuple[str, ...]


# --- the lease and its attempt --------------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class TaskLeased(JobEvent):
    """A worker took the ready task; attempt number `attempt` runs from now."""

    TAG: ClassVar[int] = 40
    task_id: str
    attempt: int
    worker_id: str
    expires_ms: int


@attrs.define(kw_only=True)
class LeaseRenewed(JobEvent):
    """The worker is alive.  Written when half a lease has passed since the last one, not for each heartbeat."""

    TAG: ClassVar[int] = 41
    task_id: str
    expires_ms: int


@attrs.define(kw_only=True)
class LeaseExpired(JobEvent):
    """The worker was silent for too long; what becomes of its attempt follows in the same commit."""

    TAG: ClassVar[int] = 42
    task_id: str
    worker_id: str
    expired_ms: int


@attrs.define(kw_only=True)
class AttemptSucceeded(JobEvent):
    """The attempt succeeded, and with it the job."""

    TAG: ClassVar[int] = 43
    task_id: str
    attempt: int
    result: bytes
    forget_ms: int | None


@attrs.define(kw_only=True)
class AttemptFailed(JobEvent):
    """The attempt failed.  `ChainStarted` (a retry), `JobFailed` or `JobCancelled` follows in the same commit."""

    TAG: ClassVar[int] = 44
    task_id: str
    attempt: int
    error_code: str
    error_data: bytes


@attrs.define(kw_only=True)
class AttemptCancelled(JobEvent):
    """The attempt stopped because of a cancellation.  `JobCancelled` follows in the same commit."""

    TAG: ClassVar[int] = 45
    task_id: str
    attempt: int


@attrs.define(kw_only=True)
class AttemptImported(JobEvent):
    """An attempt that ran elsewhere.  `data` is its result or error data."""

    TAG: ClassVar[int] = 46
    task_id: str
    attempt: int
    status: AttemptStatus
    started_ms: int
    finished_ms: int
    error_code: str
    data: bytes


# --- queues with a floating limit -----------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class LimitCreated(QueueEvent):
    """The first job with this floating limit came: its maximum begins with what that job says."""

    TAG: ClassVar[int] = 60
    default_max_concurrency: int
    refresh_interval_ms: int
    metadata: tuple[tuple[str, str], ...]


@attrs.define(kw_only=True)
class RefreshScheduled(QueueEvent):
    """The maximum is old and jobs wait: a worker of the task group shall find it out anew."""

    TAG: ClassVar[int] = 61
    task_id: str
    task_group: str


@attrs.define(kw_only=True)
class RefreshLeased(QueueEvent):
    """A worker took the refresh."""

    TAG: ClassVar[int] = 62
    task_id: str
    worker_id: str
    expires_ms: int


@attrs.define(kw_only=True)
class RefreshRenewed(QueueEvent):
    """The refresh's worker is alive; written as seldom as `LeaseRenewed`."""

    TAG: ClassVar[int] = 63
    task_id: str
    expires_ms: int


@attrs.define(kw_only=True)
class RefreshSucceeded(QueueEvent):
    """The queue has a new maximum.  Holders beyond it keep their slots."""

    TAG: ClassVar[int] = 64
    task_id: str
    new_max_concurrency: int


@attrs.define(kw_only=True)
class RefreshFailed(QueueEvent):
    """The maximum stays as it is, and is not looked for before `retry_ms`."""

    TAG: ClassVar[int] = 65
    task_id: str
    error_code: str
    message: str
    retry_ms: int


@attrs.define(kw_only=True)
class RefreshExpired(QueueEvent):
    """The refresh's worker was silent for too long; that does not count as a failure."""

    TAG: ClassVar[int] = 66
    task_id: str
    worker_id: str
    expired_ms: int


# --- buckets of rate limits -----------------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class BucketEvent(TenantEvent):
    """A fact about a bucket inside the shard, which all jobs of a tenant share that name it."""

    name: str
    unique_key: str


@attrs.define(kw_only=True)
class BucketWaited(BucketEvent):
    """It was looked at, and nothing can be done about it before `until_ms`: the first in its line may pass then, or the
    bucket will have expired."""

    TAG: ClassVar[int] = 70
    until_ms: int


@attrs.define(kw_only=True)
class BucketForgotten(BucketEvent):
    """It expired: it is as if it had never been."""

    TAG: ClassVar[int] = 71


# --- the log itself -------------------------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class ErasureRequested(TenantEvent):
    """Payloads, results and error data are to be erased from all earlier events of a job, or of all jobs of the tenant if
    `job_id` is null.  Those events stay, with nothing (null) where the data was."""

    TAG: ClassVar[int] = 80
    job_id: str | None


@attrs.define(kw_only=True)
class ErasureFinished(TenantEvent):
    """It is done: neither the log nor the rows hold that data any longer.  `requested_seq`: the event that asked for it."""

    TAG: ClassVar[int] = 81
    job_id: str | None
    requested_seq: int


@attrs.define(kw_only=True)
class CursorMoved(Event):
    """Somebody who reads this log under a name is done with all events up to `done_seq`."""

    TAG: ClassVar[int] = 82
    name: str
    done_seq: int


@attrs.define(kw_only=True)
class CursorDeleted(Event):
    """Nobody reads this log under that name any more."""

    TAG: ClassVar[int] = 83
    name: str


@attrs.define(kw_only=True)
class LogCut(Event):
    """All events up to `upto_seq` are in the archive alone from now on; an image of the rows as they stood then is there,
    too."""

    TAG: ClassVar[int] = 84
    upto_seq: int


EVENTS: tuple[type[Event], ...] = (
    ShardCreated,
    JobEnqueued,
    JobImported,
    JobReimported,
    CancellationRequested,
    JobFailed,
    JobCancelled,
    JobRestarted,
    JobExpedited,
    JobDeleted,
    JobForgotten,
    JobErased,
    ChainStarted,
    ChainDue,
    SlotGranted,
    SlotWaited,
    RateCheckDue,
    RateChecked,
    RateWaited,
    HoldersDropped,
    TaskLeased,
    LeaseRenewed,
    LeaseExpired,
    AttemptSucceeded,
    AttemptFailed,
    AttemptCancelled,
    AttemptImported,
    LimitCreated,
    RefreshScheduled,
    RefreshLeased,
    RefreshRenewed,
    RefreshSucceeded,
    RefreshFailed,
    RefreshExpired,
    BucketWaited,
    BucketForgotten,
    ErasureRequested,
    ErasureFinished,
    CursorMoved,
    CursorDeleted,
    LogCut,
)
