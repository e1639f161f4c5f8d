"""What a handler knows of the work that it has."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs

from silo.pb import silo_pb2 as pb


class Cancelled(Exception):
    """What `Task.check` raises in a handler whose work is no longer wanted."""


@attrs.define(eq=False)
class Task:
    """One attempt of one job, as its handler gets it.

    Attributes:
        id: of the task: another one for each attempt.
        attempt: the number of the attempt, from 1; a restart of the job does not begin again.
        relative_attempt: the same since the last restart.
        is_last_attempt: whether the job fails for good if this attempt does.
        metadata: what whoever enqueued the job gave along.
        payload: decoded.
    """

    id: str
    job_id: str
    tenant: str | None
    task_group: str
    attempt: int
    relative_attempt: int
    is_last_attempt: bool
    priority: int
    metadata: Mapping[str, str]
    payload: Any = attrs.field(repr=False)
    message: pb.Task = attrs.field(repr=False)
    _over: threading.Event = attrs.field(factory=threading.Event, repr=False, init=False)
    _lost: bool = attrs.field(default=False, repr=False, init=False)
    _when_over: Callable[[], object] | None = attrs.field(default=None, repr=False, init=False)

    @classmethod
    def of(cls, message: pb.Task) -> Task:
        """A task as it came, its payload still to be decoded."""
        return cls(
            id=message.id,
            job_id=message.job_id,
            tenant=message.tenant_id if message.HasField("tenant_id") else None,
            task_group=message.task_group,
            attempt=message.attempt_number,
            relative_attempt=message.relative_attempt_number,
            is_last_attempt=message.is_last_attempt,
            priority=message.priority,
            metadata=dict(message.metadata),
            payload=None,
            message=message,
        )

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the job, or the lease is lost: there is no use in going on."""
        return self._over.is_set()

    @property
    def is_lost(self) -> bool:
        """Whether the lease is lost: another worker may have the job by now, and nobody wants to know how this one ends."""
        return self._lost

    def check(self) -> None:
        """Raise Cancelled if there is no use in going on.  Handlers that take long call it now and then."""
        if self._over.is_set():
            raise Cancelled

    def wait_cancelled(self, timeout_s: float | None = None) -> bool:
        """Wait in a thread until there is no use in going on, or so many seconds.  Returns `is_cancelled`."""
        return self._over.wait(timeout_s)

    # --- for the worker --------------------------------------------------------------------------------------------------

    def when_over(self, tell: Callable[[], object]) -> None:
        """Have `tell` called when the work is no longer wanted."""
        self._when_over = tell

    def end(self, *, lost: bool) -> None:
        """The work is no longer wanted."""
        self._lost = self._lost or lost
        if not self._over.is_set():
            self._over.set()
            if self._when_over is not None:
                self._when_over()


@attrs.frozen(kw_only=True)
class Refresh:
    """A floating limit whose maximum is to be found out.

    Attributes:
        key: of the limit.
        maximum: what it is now.
        refreshed_at: when that was found out.
        metadata: what the job gave along that made the limit.
    """

    key: str
    tenant: str | None
    task_group: str
    maximum: int
    refreshed_at: datetime
    metadata: Mapping[str, str]


current: contextvars.ContextVar[Task] = contextvars.ContextVar("silo_task")


def current_task() -> Task:
    """The task that the calling handler has.  Raises LookupError outside of one."""
    return current.get()
