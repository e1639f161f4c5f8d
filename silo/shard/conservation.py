"""Does everything add up?  The law of conservation (I14), checked on the rows of a shard at one moment.

    each live job's chain is in exactly one place, and an ended job's in none
    each slot is held by a live chain that knows of it, and a queue counts its holders and waiters right
    each other order, counter and timer says what the rows say that it was made from

Rows follow from the log by folds that keep this law, so a violation means a bug in a fold or damage on disk; `verify` would
find it too, by making all rows anew.  This only reads them: a million jobs take a minute or so, in pages of a few hundred
rows with turns of the event loop between, and memory for one page.

For each job the entries that it must have are looked up, and all entries are counted.  As no two jobs can have the same
entry, equal numbers mean that there is none too many.  Queues and buckets are walked together with those that hold and wait,
in the same order, so that each of these is counted by somebody.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from silo.domain.jobs import JobStatus
from silo.domain.limits import Limit, RateLimit, SlotLimit
from silo.projections.concurrency import (
    QUEUES,
    REFRESHES_DUE,
    UNSETTLED,
    WAITERS,
    QueueRow,
    waiter_key,
)
from silo.projections.counters import COUNTS, NOTHING, WHOLE_SHARD_KEY, CountRow
from silo.projections.jobs import (
    HOLDERS,
    JOBS,
    JOBS_BY_METADATA,
    JOBS_BY_STATUS,
    Chain,
    JobRow,
    Place,
    is_through,
)
from silo.projections.leases import EXPIRIES, LEASES
from silo.projections.rates import (
    BUCKET_LINES,
    BUCKET_TIMERS,
    BUCKETS,
    CHECKS,
    check_key,
    line_key,
)
from silo.projections.refreshes import REFRESHES
from silo.projections.tasks import FORGETTING, READY, TIMERS, ready_key, timer_key
from silo.projections.view import Key, Row, Table
from silo.shard.disk import decoded, key_of, read_rows, read_table
from silo.storage.database import Reader

Entry = tuple[Table[Any], Key]

VIOLATIONS_MAX = 20
"""More of them say nothing new."""

COUNTED: tuple[Table[Any], ...] = (
    JOBS_BY_STATUS,
    JOBS_BY_METADATA,
    READY,
    TIMERS,
    LEASES,
    WAITERS,
    CHECKS,
    BUCKET_LINES,
    HOLDERS,
    EXPIRIES,
    FORGETTING,
    UNSETTLED,
    REFRESHES_DUE,
    REFRESHES,
    BUCKET_TIMERS,
    COUNTS,
)
"""Tables whose entries belong to jobs, queues, leases, buckets or tenants: there must be just those that are expected."""


class Violations(list[str]):
    """What does not add up, each in a sentence; the first so many."""

    def add(self, text: str) -> None:
        if len(self) < VIOLATIONS_MAX:
            self.append(text)


async def check_conservation(reader: Reader, *, progress: Callable[[int], None] | None = None) -> Violations:
    """Check the rows that a database has at one moment.

    Args:
        reader: a snapshot, if the shard is in use, taken after a checkpoint: what is in memory only is not seen.
        progress: told how many jobs have been looked at.

    Returns:
        The violations, none if everything adds up.
    """
    found, expected = Violations(), Counter[Table[Any]]()
    await _check_jobs(reader, found, expected, progress)
    await _check_queues(reader, found, expected)
    await _check_buckets(reader, found, expected)
    await _check_leases(reader, found, expected)
    for table in COUNTED:
        count = await _count(reader, table)
        if count != expected[table]:
            found.add(f"{table.name} has {count} entries, but there should be {expected[table]}")
    return found


# --- jobs ----------------------------------------------------------------------------------------------------------------


async def _check_jobs(
    reader: Reader,
    found: Violations,
    expected: Counter[Table[Any]],
    progress: Callable[[int], None] | None,
) -> None:
    tallies = _Tallies(reader, found, expected)
    jobs = 0
    async for page in _pages(reader, JOBS):
        entries: dict[Entry, Key] = {}
        for key, job in page:
            await tallies.add(str(key[0]), job.status)
            for fault in _faults(job):
                found.add(f"job {key}: {fault}")
            entries |= dict.fromkeys(_entries_of_a_job(key, job), key)
        await _require(reader, entries, found, expected)
        jobs += len(page)
        if progress is not None:
            progress(jobs)
    await tallies.end()


def _faults(job: JobRow) -> Iterator[str]:
    """What a job's row says that cannot be."""
    chain = job.chain
    # SILO-JOB-1: looked for in the rows of a shard at work.
    if job.status.is_terminal != (chain is None):
        yield f"it is {job.status.kind}, but its chain is {chain}"
    if chain is None:
        return
    if (job.status is JobStatus.RUNNING) != (chain.place is Place.LEASED):
        yield f"it is {job.status.kind}, but its chain is {chain.place.name}"
    if chain.place is Place.GATE:
        yield "its chain was left at a gate"
    if chain.place in (Place.READY, Place.LEASED) and not is_through(job, chain.gate):
        yield f"its chain is {chain.place.name}, but has passed {chain.gate} of {len(job.spec.limits)} gates"
    if chain.place is Place.WAITING and not isinstance(_limit(job, chain), SlotLimit):
        yield f"its chain is {chain.place.name} at gate {chain.gate}, which is no queue"
    if chain.place in (Place.CHECKING, Place.THROTTLED) and not isinstance(_limit(job, chain), RateLimit):
        yield f"its chain is {chain.place.name} at gate {chain.gate}, which is no rate limit"


def _limit(job: JobRow, chain: Chain) -> Limit | None:
    """The limit that a chain comes to next."""
    return job.spec.limits[chain.gate] if chain.gate < len(job.spec.limits) else None


def _entries_of_a_job(key: Key, job: JobRow) -> Iterator[Entry]:
    """Where a job must be found."""
    tenant = str(key[0])
    if job.forget_ms is not None:
        yield FORGETTING, (job.forget_ms, *key)
    if job.chain is not None:
        yield from _places(tenant, job, job.chain)
    if JOBS.entries is not None:
        yield from JOBS.entries(key, job)


# SILO-CHAIN-2: looked for in the rows of a shard at work.
def _places(tenant: str, job: JobRow, chain: Chain) -> Iterator[Entry]:
    limit = _limit(job, chain)
    match chain.place:
        case Place.READY:
            yield READY, ready_key(job.spec.task_group, chain)
        case Place.TIMER:
            yield TIMERS, timer_key(chain)
        case Place.LEASED:
            yield LEASES, (chain.task_id,)
        case Place.WAITING if isinstance(limit, SlotLimit):
            yield WAITERS, waiter_key(tenant, limit, chain)
        case Place.CHECKING:
            yield CHECKS, check_key(chain)
        case Place.THROTTLED if isinstance(limit, RateLimit):
            yield BUCKET_LINES, line_key(tenant, limit, chain)


class _Tallies:
    """Jobs by status, counted tenant by tenant as they come, and compared with what is on record."""

    def __init__(self, reader: Reader, found: Violations, expected: Counter[Table[Any]]) -> None:
        self._reader = reader
        self._found = found
        self._expected = expected
        self._tenant: str | None = None
        self._counts: Counter[JobStatus] = Counter()
        self._all: Counter[JobStatus] = Counter()

    async def add(self, tenant: str, status: JobStatus) -> None:
        if tenant != self._tenant:
            await self._compare()
            self._tenant, self._counts = tenant, Counter()
        self._counts[status] += 1
        self._all[status] += 1

    async def _compare(self) -> None:
        if self._tenant is not None:
            await self._compare_one((self._tenant,), self._counts)

    async def _compare_one(self, key: Key, counts: Counter[JobStatus]) -> None:
        ((_, row),) = await read_rows(self._reader, COUNTS, [key])
        self._expected[COUNTS] += row is not None
        counted = CountRow(tuple(counts[status] for status in JobStatus))
        if (row or NOTHING) != counted:
            self._found.add(f"counts of {key}: {row} is on record, but there are {counted}")

    async def end(self) -> None:
        await self._compare()
        await self._compare_one(WHOLE_SHARD_KEY, self._all)


# --- queues and buckets --------------------------------------------------------------------------------------------------


# SILO-SLOT-2: looked for in the rows of a shard at work.
async def _check_queues(reader: Reader, found: Violations, expected: Counter[Table[Any]]) -> None:
    """Each queue counts right.  The three tables are in the order of tenants and queues, so one walk over them will do."""
    holders, waiters = _Groups(reader, HOLDERS, 2, found), _Groups(reader, WAITERS, 3, found)
    async for page in _pages(reader, QUEUES):
        entries: dict[Entry, Key] = {}
        for key, queue in page:
            held = sum([count async for _, count in holders.of(key)])
            if held != queue.holders:
                found.add(f"queue {key} counts {queue.holders} holders, but there are {held}")
            lines = tuple([(int(group[2]), count) async for group, count in waiters.of(key)])
            if lines != queue.lines:
                found.add(f"queue {key} counts {queue.lines} waiters, but there are {lines}")
            for fault in _faults_of_a_queue(queue):
                found.add(f"queue {key}: {fault}")
            entries |= dict.fromkeys(_entries_of_a_queue(key, queue), key)
        await _require(reader, entries, found, expected)
    await holders.end()
    await waiters.end()


def _faults_of_a_queue(queue: QueueRow) -> Iterator[str]:
    has_room = any(queue.has_room(line) for line, _ in queue.lines)
    if has_room != queue.is_unsettled:
        yield f"it has {'room' if has_room else 'no room'} beside a waiter, but says otherwise"
    if not (queue.holders or queue.lines or queue.floating):
        yield "nothing is left of it"


def _entries_of_a_queue(key: Key, queue: QueueRow) -> Iterator[Entry]:
    if queue.unsettled_seq:
        yield UNSETTLED, (queue.unsettled_seq, *key)
    if queue.refresh_due_ms is not None:
        yield REFRESHES_DUE, (queue.refresh_due_ms, *key)
    refresh = queue.floating.refresh if queue.floating is not None else None
    if refresh is not None and refresh.leased:
        yield LEASES, (refresh.task_id,)
    elif refresh is not None:
        yield REFRESHES, (refresh.task_group, refresh.scheduled_ms, refresh.seq)


async def _check_buckets(reader: Reader, found: Violations, expected: Counter[Table[Any]]) -> None:
    lines = _Groups(reader, BUCKET_LINES, 3, found)
    async for page in _pages(reader, BUCKETS):
        for key, bucket in page:
            waiting = sum([count async for _, count in lines.of(key)])
            if waiting != bucket.waiting:
                found.add(f"bucket {key} counts {bucket.waiting} in its line, but there are {waiting}")
        timers: dict[Entry, Key] = {(BUCKET_TIMERS, (bucket.timer_ms, *key)): key for key, bucket in page}
        await _require(reader, timers, found, expected)
    await lines.end()


class _Groups:
    """The entries of a table, counted by the first so many parts of their keys, in their order.

    Whoever counts them asks for his own, in the same order.  What nobody asks for is a violation.
    """

    def __init__(self, reader: Reader, table: Table[Any], parts: int, found: Violations) -> None:
        self._table = table
        self._found = found
        self._groups = _grouped(reader, table, parts)
        self._next: tuple[Key, int] | None = None
        self._begun = False

    async def of(self, prefix: Key) -> AsyncIterator[tuple[Key, int]]:
        """The groups below a key."""
        await self._begin()
        while self._next is not None and self._next[0][: len(prefix)] <= prefix:
            group = self._next
            await self._advance()
            if group[0][: len(prefix)] == prefix:
                yield group
            else:
                self._add_stray(*group)

    async def end(self) -> None:
        """Everybody has asked."""
        await self._begin()
        while self._next is not None:
            self._add_stray(*self._next)
            await self._advance()

    def _add_stray(self, group: Key, count: int) -> None:
        self._found.add(f"{self._table.name} has {count} entries of {group}, which nobody counts")

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._advance()

    async def _advance(self) -> None:
        self._next = await anext(self._groups, None)


async def _grouped(reader: Reader, table: Table[Any], parts: int) -> AsyncIterator[tuple[Key, int]]:
    group, count = None, 0
    async for page in read_table(reader, table):
        for raw, _ in page:
            key = key_of(raw)[:parts]
            if key != group:
                if group is not None:
                    yield group, count
                group, count = key, 0
            count += 1
    if group is not None:
        yield group, count


# --- leases ----------------------------------------------------------------------------------------------------------------


async def _check_leases(reader: Reader, found: Violations, expected: Counter[Table[Any]]) -> None:
    async for page in _pages(reader, LEASES):
        expiries: dict[Entry, Key] = {(EXPIRIES, (lease.expires_ms, *key)): key for key, lease in page}
        await _require(reader, expiries, found, expected)


# --- reading -------------------------------------------------------------------------------------------------------------


async def _pages(reader: Reader, table: Table[Row]) -> AsyncIterator[list[tuple[Key, Row]]]:
    async for page in read_table(reader, table):
        yield [
            (key, decoded(table, key, value)) for key, value in ((key_of(raw), value) for raw, value in page)
        ]
        await asyncio.sleep(0)


async def _require(
    reader: Reader, entries: dict[Entry, Key], found: Violations, expected: Counter[Table[Any]]
) -> None:
    """Each of these entries is there; its value says to whom it belongs."""
    by_table: dict[Table[Any], list[Key]] = {}
    for table, key in entries:
        by_table.setdefault(table, []).append(key)
    for table, keys in by_table.items():
        expected[table] += len(keys)
        for key, row in await read_rows(reader, table, keys):
            if row is None:
                found.add(f"{table.name} {key} is missing, which belongs to {entries[table, key]}")


async def _count(reader: Reader, table: Table[Any]) -> int:
    count = 0
    async for page in read_table(reader, table):
        count += len(page)
    return count
