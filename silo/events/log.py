"""The log of one shard: appended by group commit, read by everybody through the same few methods.

A *group commit* is everything that was appended while the previous commit was on its way.  It becomes one record,
`log/<first sequence number>`, and all who wait for it are told at once.  A commit starts as soon as the previous one is
durable: no timer stands between an idle shard and its first command.  `commit_interval_ms` can put one there, for stores
that charge by the request.

Sequence numbers start at 1 and have no gaps.  If a commit fails nobody knows whether it is in the store, so the log is of no
use any more: every waiter gets the error, and the shard opens anew from what the store says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import attrs

from silo.errors import Corrupt, SiloError, StoreFailed, again
from silo.events import codec
from silo.events.catalogue import Event, JobEvent, TenantEvent
from silo.storage.database import Database, Reader

LOG_PREFIX = b"\x01"
LOG_END = b"\x02"
EVENTS_PER_COMMIT_MAX = 20_000
BYTES_PER_COMMIT_MAX = 32 << 20
RECORDS_PER_PAGE = 16


def record_key(first_seq: int) -> bytes:
    """The key of the record that begins with this sequence number."""
    return LOG_PREFIX + first_seq.to_bytes(8, "big")


def first_seq_of(key: bytes) -> int:
    """The inverse of `record_key`."""
    return int.from_bytes(key[len(LOG_PREFIX) :], "big")


@attrs.define
class _Append:
    """What one command appended, on its way to the store."""

    events: Sequence[Event]
    size: int
    done: asyncio.Future[None] | None


class Log:
    """The log of one open shard."""

    def __init__(self, db: Database, *, next_seq: int, commit_interval_ms: int = 0) -> None:
        self._db = db
        self._interval_s = commit_interval_ms / 1000
        self._queue: deque[_Append] = deque()
        self._wake = asyncio.Event()
        self._advanced = asyncio.Event()
        self._failure: SiloError | None = None
        self._loop = asyncio.get_running_loop()
        self.next_seq = next_seq
        self.durable_seq = next_seq - 1
        self.pending_commands = 0
        self.pending_bytes = 0
        self.commits = 0
        self.committed_bytes = 0

    # --- appending -------------------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event], size: int) -> asyncio.Future[None]:
        """Queue what one command decided.  It is written whether or not anybody waits for the future that is returned.

        Args:
            events: stamped, the first with the sequence number `next_seq`.
            size: of their payloads in bytes, for the bound on what is pending.
        """
        # SILO-OWN-5: each event goes behind the last, so no record is ever written over.
        assert events[0].seq == self.next_seq
        self.next_seq += len(events)
        self.pending_bytes += size
        return self._enqueue(events, size)

    async def durable(self) -> None:
        """Wait until all that was appended before this call is durable.  Raises what the commit raised."""
        if self._failure is not None:
            raise again(self._failure)
        if self.durable_seq + 1 < self.next_seq:
            await self._enqueue((), 0)

    def _enqueue(self, events: Sequence[Event], size: int) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        if self._failure is not None:
            done.set_exception(again(self._failure))
            return done
        self.pending_commands += 1
        self._queue.append(_Append(events, size, done))
        self._wake.set()
        return done

    async def run(self) -> None:
        """Commit what is appended, until cancelled or until a commit fails; then it raises the error."""
        clock = self._loop.time
        group: list[_Append] = []
        try:
            while True:
                await self._wake.wait()
                # One turn of the event loop: who was only waiting for what is to be committed, such as a worker for a job,
                # decides on top of it, and both become durable together.
                await asyncio.sleep(0)
                began = clock()
                group = self._take_group()
                await self._commit([event for append in group for event in append.events])
                self._tell(group)
                if self._interval_s:
                    await asyncio.sleep(max(0.0, began + self._interval_s - clock()))
        except SiloError as error:
            self.fail(error, group)
            raise
        except BaseException:
            self.fail(StoreFailed("the shard closed before the command was durable; try again"), group)
            raise

    def fail(self, error: SiloError, group: Sequence[_Append] = ()) -> None:
        """No commit will follow: everybody who waits, and everybody who comes, gets the error."""
        self._failure = error
        for append in (*group, *self._queue):
            if append.done is not None and not append.done.done():
                append.done.set_exception(again(error))
                append.done.exception()  # a caller that has gone away does not count as an error that nobody saw
        self._queue.clear()
        self._advanced.set()

    def _take_group(self) -> list[_Append]:
        """As much of the queue as one record should hold; at least one."""
        group: list[_Append] = []
        events = size = 0
        while self._queue and events < EVENTS_PER_COMMIT_MAX and size < BYTES_PER_COMMIT_MAX:
            append = self._queue.popleft()
            events += len(append.events)
            size += append.size
            group.append(append)
        if not self._queue:
            self._wake.clear()
        return group

    async def _commit(self, events: list[Event]) -> None:
        if not events:
            return
        record = codec.encode(events)
        batch = self._db.batch()
        batch.put(record_key(events[0].seq), record)
        await self._db.write(batch)
        self.durable_seq = events[-1].seq
        self.commits += 1
        self.committed_bytes += len(record)

    def _tell(self, group: list[_Append]) -> None:
        for append in group:
            self.pending_commands -= 1
            self.pending_bytes -= append.size
            if append.done is not None and not append.done.done():
                append.done.set_result(None)
        self._advanced.set()
        self._advanced = asyncio.Event()

    # --- reading ---------------------------------------------------------------------------------------------------------

    async def read(
        self, start: int, *, end: int | None = None, tenant: str | None = None, job_id: str | None = None
    ) -> AsyncIterator[list[Event]]:
        """The durable events from `start` up to before `end`, a record at a time; see `read` below."""
        async for events in read(self._db, start, end=end, tenant=tenant, job_id=job_id):
            yield events

    async def follow(
        self, start: int, *, tenant: str | None = None, job_id: str | None = None
    ) -> AsyncIterator[list[Event]]:
        """The durable events from `start`, first what is there, then what comes.  Ends with the error that ends the log."""
        while True:
            advanced, end = self._advanced, self.durable_seq + 1
            if start < end:
                async for events in read(self._db, start, end=end, tenant=tenant, job_id=job_id):
                    yield events
                start = end
            elif self._failure is not None:
                raise again(self._failure)
            else:
                await advanced.wait()

    async def history(self, last_seq: int, *, most: int | None = None) -> list[Event]:
        """The newest events of one job, up to so many, oldest first, given the newest.  Waits until that is durable."""
        if last_seq > self.durable_seq:
            await self.durable()
        return await history(self._db, last_seq, most=most)


async def read(
    reader: Reader,
    start: int,
    *,
    end: int | None = None,
    tenant: str | None = None,
    job_id: str | None = None,
) -> AsyncIterator[list[Event]]:
    """The events in the store from `start` up to before `end`, a record at a time.

    Args:
        tenant, job_id: only the events of this tenant, or of this job; None: any.

    Raises:
        Corrupt: for a record that cannot be decoded and for a gap.
    """
    first = await _record_of(reader, max(start, 1))
    last = record_key(end) if end is not None else LOG_END
    expected = first
    async for page in reader.pages(record_key(first), last, rows=RECORDS_PER_PAGE):
        for key, record in page:
            events = codec.decode(first_seq_of(key), record)
            # SILO-OWN-5: a gap is damage, never the end.
            if events[0].seq != expected:
                raise Corrupt(f"event {expected} is missing: the log goes on at {events[0].seq}")
            expected = events[-1].seq + 1
            wanted = [
                event
                for event in events
                if event.seq >= start
                and (end is None or event.seq < end)
                and matches(event, tenant=tenant, job_id=job_id)
            ]
            if wanted:
                yield wanted


async def history(reader: Reader, last_seq: int, *, most: int | None = None) -> list[Event]:
    """The newest events of one job, up to so many, oldest first, given the newest: a walk along `prev`."""
    events: list[Event] = []
    seq = last_seq
    record: dict[int, Event] = {}
    while seq and (most is None or len(events) < most):
        if seq not in record:
            record = await _read_record(reader, seq)
        event = record[seq]
        events.append(event)
        seq = event.prev if isinstance(event, JobEvent) else 0
    return events[::-1]


async def require_event(reader: Reader, seq: int) -> None:
    """Raise Corrupt if the log does not have this event (0: there need be none).  Rows that stand for more than the log has
    were made from a log that is lost."""
    if seq:
        await _read_record(reader, seq)


async def _read_record(reader: Reader, seq: int) -> dict[int, Event]:
    """The events of the record that holds this one."""
    found = await reader.scan(LOG_PREFIX, record_key(seq + 1), limit=1, reverse=True)
    if found:
        events = codec.decode(first_seq_of(found[0][0]), found[0][1])
        if seq <= events[-1].seq:
            return {event.seq: event for event in events}
    raise Corrupt(f"event {seq} is missing from the log")


async def _record_of(reader: Reader, seq: int) -> int:
    """The first sequence number of the record that holds this one, or would."""
    found = await reader.scan(LOG_PREFIX, record_key(seq + 1), limit=1, reverse=True)
    return first_seq_of(found[0][0]) if found else seq


def matches(event: Event, *, tenant: str | None = None, job_id: str | None = None) -> bool:
    """Whether an event is about this tenant, and about this job; None stands for any."""
    if tenant is not None and not (isinstance(event, TenantEvent) and event.tenant == tenant):
        return False
    return job_id is None or (isinstance(event, JobEvent) and event.job_id == job_id)
