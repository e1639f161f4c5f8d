"""What one command has done so far: its facts, and the rows that follow from them.  All of it is kept, or none.

A fact is folded the moment it is emitted, so the rest of the command reads its own writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import attrs

from silo.domain.ids import Ids
from silo.domain.jobs import JobStatus
from silo.events.catalogue import Event, JobEvent
from silo.projections.fold import fold, job_before
from silo.projections.view import View
from silo.shard.lease_clock import LeaseClock

INT64_MAX = (1 << 63) - 1


@attrs.frozen
class Caller:
    """Who asks: recorded with every event that follows from it."""

    actor: str
    method: str


SYSTEM = Caller(actor="system", method="")


@attrs.frozen(kw_only=True)
class Rules:
    """The configuration that decisions depend on.

    Attributes:
        priority_weight_ms: how much one step of priority moves a job in every line.
        completed_expire_ms: how long a succeeded job is kept; None: for ever.
        terminal_expire_ms: the same for a failed or cancelled one.
        asks_limiter: whether an outside service decides rate limits, instead of buckets inside the shard.
    """

    priority_weight_ms: int = 10_000
    completed_expire_ms: int | None = None
    terminal_expire_ms: int | None = None
    asks_limiter: bool = False

    def virtual_start_ms(self, start_ms: int, priority: int) -> int:
        """The place in every line of a task that may start at this time."""
        return min(start_ms + priority * self.priority_weight_ms, INT64_MAX)

    def forget_ms(self, status: JobStatus, now_ms: int) -> int | None:
        """When a job that ends now in this status is to be forgotten; None: never."""
        keep_ms = self.completed_expire_ms if status is JobStatus.SUCCEEDED else self.terminal_expire_ms
        return now_ms + keep_ms if keep_ms is not None else None


@dataclass(slots=True)
class Draft:
    """One command at work.  Decide-modules read `view`, and change things by `emit` alone.

    Attributes:
        now_ms: the time of the command and of its events.
        leases: heartbeats that are in memory only.
        next_seq: the sequence number of the next event.
    """

    view: View
    now_ms: int
    caller: Caller
    rules: Rules
    ids: Ids
    leases: LeaseClock
    next_seq: int
    events: list[Event]

    def emit(self, event: Event) -> None:
        """Stamp a fact, fold it, and keep it for the log."""
        event.seq = self.next_seq
        event.time_ms = self.now_ms
        event.actor = self.caller.actor
        event.method = self.caller.method
        job = None
        if isinstance(event, JobEvent):
            job = job_before(event, self.view)
            event.prev = job.last_seq if job is not None else 0
        fold(event, job, self.view)
        self.next_seq += 1
        self.events.append(event)
