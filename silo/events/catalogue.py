"""Every fact that a shard's log can hold, in the past tense.

Read one job's events in order and you have read its life: *JobEnqueued, ChainStarted, TaskLeased, AttemptFailed,
ChainStarted, ChainDue, TaskLeased, AttemptSucceeded*.

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
class JobEvent(Event):
    """A fact about one job; `prev` is the sequence number of the fact before it in the same job's life, 0 for its first.

    So a job's history is a walk backward of as many point reads as it has facts, whatever else the log holds.
    """

    BEGINS_JOB: ClassVar[bool] = False

    prev: int = attrs.field(init=False, default=0, eq=False)
    tenant: str
    job_id: str


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
    BEGINS_JOB: ClassVar[bool] = True
    spec: JobSpec
    payload: bytes


@attrs.define(kw_only=True)
class JobImported(JobEvent):
    """A job came from elsewhere with a history; `status` is what its attempts make of it.

    `AttemptImported` follows for each attempt, then `ChainStarted` if it still has work to do.
    """

    TAG: ClassVar[int] = 11
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
    """No retry is due after the last failure.  `forget_ms` is when retention removes the job, if ever."""

    TAG: ClassVar[int] = 14
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


# --- the chain: the way of one attempt to its worker ---------------------------------------------------------------------


@attrs.define(kw_only=True)
class ChainStarted(JobEvent):
    """An attempt set out.  Whatever chain the job had before is over.

    Attributes:
        task_id: the chain's identity; the lease and the attempt carry it too.
        attempt: counts over the job's life, from 1.
        relative_attempt: counts since the last restart, from 1; retries are reckoned by it.
        start_ms: not before this time.
        virtual_start_ms: its place in the ready order: start time plus priority times the configured weight.
    """

    TAG: ClassVar[int] = 30
    task_id: str
    attempt: int
    relative_attempt: int
    start_ms: int
    virtual_start_ms: int


@attrs.define(kw_only=True)
class ChainDue(JobEvent):
    """The chain's start time came."""

    TAG: ClassVar[int] = 31
    task_id: str


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
    ChainStarted,
    ChainDue,
    TaskLeased,
    LeaseRenewed,
    LeaseExpired,
    AttemptSucceeded,
    AttemptFailed,
    AttemptCancelled,
    AttemptImported,
)
