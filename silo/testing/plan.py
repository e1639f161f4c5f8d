"""What a history is made of: steps at given times, by clients and by accidents.

A scenario and a seed give a plan, and a plan and a seed give a history.  The plan lies between them for the shrinker's sake:
it leaves out steps and looks whether what is left still fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from silo.domain.limits import Limit

Name = tuple[str, str]
"""Tenant and job id."""


@attrs.frozen(kw_only=True)
class Step:
    """Something happens at `at_s`, in seconds since the world began."""

    at_s: float

    def __str__(self) -> str:
        fields = ", ".join(
            f"{field.name}={_short(getattr(self, field.name))}"
            for field in attrs.fields(type(self))
            if field.name != "at_s"
        )
        return f"{self.at_s:8.3f} s  {type(self).__name__}({fields})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- clients -------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Enqueue(Step):
    """A client enqueues a job, and tries again until it knows that it is in.

    Attributes:
        start_in_s: how far ahead its start lies; 0: at once.
        retries: how often it is tried again, with a backoff of `backoff_ms`.
        payload_bytes: how long its payload is.
    """

    name: Name
    task_group: str = "work"
    priority: int = 50
    start_in_s: float = 0.0
    retries: int = 0
    backoff_ms: int = 500
    limits: tuple[Limit, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    payload_bytes: int = 16


@attrs.frozen(kw_only=True)
class Ask(Step):
    """A client asks something of one job, until it is answered.

    Attributes:
        method: CancelJob, RestartJob, ExpediteJob, DeleteJob, GetJob or LeaseTask.
    """

    method: str
    name: Name


@attrs.frozen(kw_only=True)
class Import(Step):
    """A client imports a job that has failed so many times elsewhere."""

    name: Name
    failed: int
    limits: tuple[Limit, ...] = ()


@attrs.frozen(kw_only=True)
class DropHolders(Step):
    """An operator takes all slots of a tenant away."""

    tenant: str


# --- accidents -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Crash(Step):
    """A broker is killed, and started again after `down_s`.

    Attributes:
        after_callbacks: it is only killed when it has gone on by so many steps, so at any `await` of a commit.
    """

    down_s: float
    after_callbacks: int = 0


@attrs.frozen(kw_only=True)
class Stop(Step):
    """A broker is asked to stop, as for an update, and is started again after `down_s`."""

    down_s: float


@attrs.frozen(kw_only=True)
class TakeOver(Step):
    """Another broker is started on the same data, while the first one is at work.

    Attributes:
        after_callbacks: only when the first one has gone on by so many steps, so in the middle of a commit.
    """

    after_callbacks: int = 0


@attrs.frozen(kw_only=True)
class Pause(Step):
    """A broker's process stands still for `for_s`, and knows nothing of it."""

    for_s: float


@attrs.frozen(kw_only=True)
class StoreTrouble(Step):
    """The store behaves as `faults` says (fields of StoreFaults) for `for_s`."""

    for_s: float
    faults: dict[str, Any]


@attrs.frozen(kw_only=True)
class NetworkTrouble(Step):
    """The network behaves as `faults` says (fields of NetworkFaults) for `for_s`."""

    for_s: float
    faults: dict[str, Any]


@attrs.frozen(kw_only=True)
class ClockJump(Step):
    """The brokers' clock is set on, or back."""

    by_s: float


@attrs.frozen(kw_only=True)
class Checkpoint(Step):
    """An operator has a broker write all that it has in memory."""


@attrs.frozen(kw_only=True)
class WorkersGone(Step):
    """All workers are killed with what they have leased; others come after `for_s`."""

    for_s: float


Plan = Sequence[Step]
