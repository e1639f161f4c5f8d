"""Taking payloads, results and error data out of events that have happened.  The events stay, and so do their places.

Whoever reads the log afterwards makes rows from it that are the same as those that `JobErased` left: both put `ERASED`
where there was data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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


async def erase_log(
    db: Database,
    *,
    before: int,
    tenant: str,
    job_id: str | None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Take the data of a job, or of all jobs of a tenant, out of all events before a sequence number.

    Every record is written anew as a whole, so a crash leaves each as it was or done; doing it again does no harm.

    Args:
        progress: told the sequence number that has been looked at.

    Returns:
        How many events it changed.
    """
    erased = 0
    async for page in db.pages(LOG_PREFIX, record_key(before), rows=RECORDS_PER_PAGE):
        batch = db.batch()
        for key, record in page:
            changed, count = await asyncio.to_thread(_without, key, record, before, tenant, job_id)
            if count:
                batch.put(key, changed)
                erased += count
        if batch:
            await db.write(batch)
        if progress is not None:
            progress(first_seq_of(page[-1][0]))
    return erased


def _without(key: bytes, record: bytes, before: int, tenant: str, job_id: str | None) -> tuple[bytes, int]:
    """A record without that data, and of how many events it was taken."""
    if not _may_be_about(record, tenant, job_id):
        return record, 0
    events = codec.decode(first_seq_of(key), record)
    count = sum(erase(event) for event in events if event.seq < before and _is_about(event, tenant, job_id))
    return (codec.encode(events), count) if count else (record, 0)


def erased(seq: int, record: bytes, *, tenant: str, job_id: str | None) -> Event | None:
    """The event of a record that has only one, without that data; None if it has none."""
    if not _may_be_about(record, tenant, job_id):
        return None
    [event] = codec.decode(seq, record)
    return event if _is_about(event, tenant, job_id) and erase(event) else None


def _may_be_about(record: bytes, tenant: str, job_id: str | None) -> bool:
    # Text is stored as it is, so that most records need not be taken apart.
    return tenant.encode() in record and (job_id is None or job_id.encode() in record)


def _is_about(event: Event, tenant: str, job_id: str | None) -> bool:
    return isinstance(event, JobEvent) and event.tenant == tenant and job_id in (None, event.job_id)
