"""Taking payloads, results and error data out of events that have happened.  The events stay, and so do their places.

Whoever reads the log afterwards makes rows from it that are the same as those that `JobErased` left: both put `ERASED`
where there was data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import attrs

from silo.events import codec
from silo.events.catalogue import (
    ERASED,
    AttemptFailed,
    AttemptImported,
    AttemptSucceeded,
    Event,
    JobEnqueued,
    JobEvent,
    JobImported,
)
from silo.events.log import LOG_PREFIX, first_seq_of, record_key
from silo.storage.database import Database

DATA_OF: dict[type[Event], str] = {
    JobEnqueued: "payload",
    JobImported: "payload",
    AttemptSucceeded: "result",
    AttemptFailed: "error_data",
    AttemptImported: "data",
}
"""Which field of which event is data of the tenant's own."""

RECORDS_PER_PAGE = 4


def erase(event: Event) -> bool:
    """Take the data out of an event.  Returns whether it had any."""
    name = DATA_OF.get(type(event))
    if name is None or getattr(event, name) in (b"", ERASED):
        return False
    setattr(event, name, ERASED)
    return True


@attrs.frozen
class Target:
    """Whose data is to be erased: that of a job, or of all jobs of a tenant if `job_id` is None.

    Attributes:
        before: only events before this one are meant.
    """

    tenant: str
    job_id: str | None
    before: int


class Targets:
    """Several of them, for which events are looked at once.

    Attributes:
        before: none of them is about this event or a later one.
    """

    def __init__(self, targets: Iterable[Target]) -> None:
        self.each = tuple(targets)
        self.before = max((target.before for target in self.each), default=0)
        self._before: dict[tuple[str, str | None], int] = {}
        for target in self.each:
            name = (target.tenant, target.job_id)
            self._before[name] = max(target.before, self._before.get(name, 0))
        # Text is stored as it is, so that most records need not be taken apart.
        self._traces = {
            name: (name[0].encode(), name[1].encode() if name[1] is not None else b"")
            for name in self._before
        }

    def without(self, seq: int, record: bytes) -> tuple[list[Event], int]:
        """The events of a record without that data, and from how many of them it was taken; if from none, there are none."""
        if seq >= self.before or not any(
            tenant in record and job_id in record for tenant, job_id in self._traces.values()
        ):
            return [], 0
        events = codec.decode(seq, record)
        count = sum(erase(event) for event in events if self._is_about(event))
        return (events, count) if count else ([], 0)

    def _is_about(self, event: Event) -> bool:
        if not isinstance(event, JobEvent):
            return False
        names = ((event.tenant, event.job_id), (event.tenant, None))
        return event.seq < max(self._before.get(name, 0) for name in names)


async def erase_log(db: Database, targets: Targets, *, progress: Callable[[int], None] | None = None) -> int:
    """Take data out of the log.

    Every record is written anew as a whole, so a crash leaves each as it was or done; doing it again does no harm.

    Args:
        progress: told the sequence number that has been looked at.

    Returns:
        How many events it changed.
    """
    erased = 0
    async for page in db.pages(LOG_PREFIX, record_key(targets.before), rows=RECORDS_PER_PAGE):
        batch = db.batch()
        for key, record in page:
            changed, count = await asyncio.to_thread(_without, key, record, targets)
            if count:
                batch.put(key, changed)
                erased += count
        if batch:
            await db.write(batch)
        if progress is not None:
            progress(first_seq_of(page[-1][0]))
    return erased


def _without(key: bytes, record: bytes, targets: Targets) -> tuple[bytes, int]:
    """A record without that data, and of how many events it was taken."""
    events, count = targets.without(first_seq_of(key), record)
    return (codec.encode(events), count) if count else (record, 0)
