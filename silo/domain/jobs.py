"""What a job is: the values that a client states once, the states that it passes through, and the bounds on both.

A `JobSpec` that exists is valid: whoever holds one never checks a priority again.
"""

from __future__ import annotations

from enum import IntEnum

import attrs

from silo.domain.limits import Limit, check_limits
from silo.domain.retry import RetryPolicy
from silo.errors import Invalid

PRIORITY_MAX = 99
METADATA_ENTRIES_MAX = 16
METADATA_KEY_CHARS_MAX = 63
METADATA_VALUE_BYTES_MAX = 65_534
TASK_GROUP_CHARS_MAX = 64

LEASE_MS = 10_000
"""How long a lease lasts without a heartbeat; fixed by the protocol and told to workers as `lease_ms`."""


class JobStatus(IntEnum):
    """Where a job stands; the numbers are those of the wire."""

    SCHEDULED = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended: no work of it is pending or leased."""
        return self >= JobStatus.SUCCEEDED

    @property
    def kind(self) -> str:
        """The word that error texts use: `Scheduled`, `Running`, ..."""
        return self.name.capitalize()


class AttemptStatus(IntEnum):
    """How one attempt stands; the numbers are those of the wire (and differ from `JobStatus`)."""

    RUNNING = 0
    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3


@attrs.frozen(kw_only=True)
class JobSpec:
    """What a client states about a job.

    Attributes:
        priority: 0 (first) to 99.
        task_group: which workers lease it.
        enqueue_time_ms: the requested start, verbatim: 0 or less means now (an import may state another time).  The name
            is the wire's; the true time of arrival is `JobRow.enqueued_ms`.
        retry_policy: None means no retries.
        metadata: pairs in the client's order.
        limits: what every attempt has to pass before it can be leased, in the client's order.
    """

    priority: int
    task_group: str
    enqueue_time_ms: int
    retry_policy: RetryPolicy | None
    metadata: tuple[tuple[str, str], ...]
    limits: tuple[Limit, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.priority <= PRIORITY_MAX:
            raise Invalid(f"priority must be between 0 and {PRIORITY_MAX}")
        if self.metadata:
            check_metadata(self.metadata)
        if not self.task_group:
            raise Invalid("task_group is required")
        check_limits(self.limits)


def check_metadata(metadata: tuple[tuple[str, str], ...]) -> None:
    """Refuse metadata beyond the bounds of the protocol: the count first, then each entry, key before value."""
    if len(metadata) > METADATA_ENTRIES_MAX:
        raise Invalid(f"metadata has too many entries (max {METADATA_ENTRIES_MAX})")
    for key, value in metadata:
        if len(key) > METADATA_KEY_CHARS_MAX:
            raise Invalid("metadata key too long (must be < 64 chars)")
        if len(value.encode()) > METADATA_VALUE_BYTES_MAX:
            raise Invalid("metadata value too long (must be < u16::MAX bytes)")


def check_task_group_length(task_group: str) -> None:
    """Refuse a task group that is too long.  Enqueue checks this; an import may bring longer ones."""
    if len(task_group) > TASK_GROUP_CHARS_MAX:
        raise Invalid(f"task_group too long (must be <= {TASK_GROUP_CHARS_MAX} chars)")
