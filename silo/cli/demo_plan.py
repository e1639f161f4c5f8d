"""The jobs of the demo: what each is to go through, and how it must end.

Every job may be tried again, also those that never fail by themselves: when the broker is killed between leasing a task and
saying so, the task belongs to nobody until its lease runs out, and that costs the job one attempt.
"""

from __future__ import annotations

import hashlib
import zlib
from enum import Enum
from typing import Any

import attrs
import msgpack

from silo.client import Concurrency, NewJob, Retry
from silo.domain.jobs import JobStatus

TASK_GROUP = "demo"
TENANTS = ("bakery", "cinema", "dentist", "florist", "garage", "harbour")
HARBOUR = "harbour"
CRANE = "crane"
CRANES = 2
"""What the jobs of the harbour share: so many of them run at the same time, however many workers there are."""

SHIP_S = 0.02
"""How long a job of the harbour needs its crane."""

OTHERS = [tenant for tenant in TENANTS if tenant != HARBOUR]
PRIORITIES = (10, 50, 90)
HASHES = 200
"""How often a worker hashes the payload: about a tenth of a millisecond of real work."""


class Kind(Enum):
    """What a job goes through."""

    PLAIN = "plain"
    FLAKY = "flaky"
    HOPELESS = "hopeless"
    LATER = "later"
    CALLED_OFF = "called off"
    LIMITED = "limited"
    INTERRUPTED = "interrupted"


IN_WORDS = {
    Kind.PLAIN: "simply succeed",
    Kind.FLAKY: "fail once or twice, are tried again with growing pauses, and succeed",
    Kind.HOPELESS: "fail until no tries are left",
    Kind.LATER: "are to start some seconds later",
    Kind.CALLED_OFF: "are cancelled before they start",
    Kind.LIMITED: f"are of one tenant, the {HARBOUR}, and share its {CRANES} cranes: a limit of {CRANES} at a time",
    Kind.INTERRUPTED: "is cancelled while a worker runs it",
}

ENDS = {
    Kind.PLAIN: JobStatus.SUCCEEDED,
    Kind.FLAKY: JobStatus.SUCCEEDED,
    Kind.HOPELESS: JobStatus.FAILED,
    Kind.LATER: JobStatus.SUCCEEDED,
    Kind.CALLED_OFF: JobStatus.CANCELLED,
    Kind.LIMITED: JobStatus.SUCCEEDED,
    Kind.INTERRUPTED: JobStatus.CANCELLED,
}


CRANE_LIMIT = Concurrency(CRANE, CRANES)
RETRY = Retry(times=5, first_s=0.2, longest_s=5, jitter=False)
RETRY_HOPELESS = attrs.evolve(RETRY, times=2)


@attrs.frozen(kw_only=True)
class PlannedJob:
    """One job.

    Attributes:
        fails: how many attempts of a run fail, as its worker will see to.
        start_in_ms: how long after its enqueue it may start.
    """

    tenant: str
    id: str
    kind: Kind
    priority: int
    fails: int = 0
    start_in_ms: int = 0

    @property
    def payload(self) -> dict[str, Any]:
        text = (
            f"{self.tenant}/{self.id}: "
            + "what the worker is to know, such as an address or a file name. " * 3
        )
        return {"kind": self.kind.value, "fails": self.fails, "text": text}

    @property
    def new(self) -> NewJob:
        """The job as it is handed over."""
        return NewJob(
            id=self.id,
            tenant=self.tenant,
            task_group=TASK_GROUP,
            priority=self.priority,
            delay_s=self.start_in_ms / 1000 or None,
            retry=RETRY_HOPELESS if self.kind is Kind.HOPELESS else RETRY,
            payload=self.payload,
            metadata={"kind": self.kind.value},
            limits=[CRANE_LIMIT] if self.kind is Kind.LIMITED else [],
        )


def plan(jobs: int) -> list[PlannedJob]:
    """So many jobs, of all kinds and tenants; the same at every run."""
    # The ships come all at once, so that they have to wait for one another.
    ships = range(jobs * 3 // 10, jobs * 35 // 100)
    return [_ship(number) if number in ships else _job(number) for number in range(jobs)]


def _ship(number: int) -> PlannedJob:
    return PlannedJob(tenant=HARBOUR, id=f"job-{number:05}", kind=Kind.LIMITED, priority=PRIORITIES[1])


def _job(number: int) -> PlannedJob:
    job_id = f"job-{number:05}"
    # Like chance, but the same at every run.
    scattered = zlib.crc32(job_id.encode())
    job = PlannedJob(
        tenant=OTHERS[scattered % len(OTHERS)],
        id=job_id,
        kind=Kind.PLAIN,
        priority=PRIORITIES[scattered // 1000 % len(PRIORITIES)],
    )
    if number == 10:
        return attrs.evolve(job, kind=Kind.INTERRUPTED, priority=0)
    if number % 10 == 3:
        return attrs.evolve(job, kind=Kind.FLAKY, fails=1 + number // 10 % 2)
    if number % 50 == 17:
        return attrs.evolve(job, kind=Kind.HOPELESS, fails=99)
    if number % 20 == 9:
        return attrs.evolve(job, kind=Kind.LATER, start_in_ms=1_000 + number % 7 * 500)
    if number % 50 == 31:
        return attrs.evolve(job, kind=Kind.CALLED_OFF, start_in_ms=3_600_000)
    return job


def work(payload: dict[str, Any]) -> dict[str, str]:
    """What a worker makes of a job's payload: the result that it returns."""
    digest: bytes = msgpack.packb(payload)
    for _ in range(HASHES):
        digest = hashlib.sha256(digest).digest()
    return {"sha256": digest.hex()}
