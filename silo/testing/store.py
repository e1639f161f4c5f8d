"""Databases with the contract of SlateDB (silo/storage/database.py), and the faults of the store below them.

A `Disk` is what the object store has of one database; it outlives every process.  A `ModelDatabase` is one opening of it.
Its writes reach the disk one after the other, in the order of the calls, each as a whole; until then a crash may lose them,
from some point in that order on.  Its reads see a write from somewhere on that way.  An opening takes the disk from the one
before: whatever that one still had on its way is refused.

What can go wrong is said by `StoreFaults`, which anybody may change at any time; whether it does is up to chance.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum
from itertools import islice

import attrs
from sortedcontainers import SortedDict

from silo.errors import Fenced, SiloError, StoreFailed, again
from silo.storage.database import Batch, Row, StorageInfo
from silo.storage.memory import MemoryBatch, MemorySnapshot
from silo.testing.loop import Process

DURABILITY_TIMEOUT_S = 10.0
"""After so long the one who writes is told that the write failed, as by the real one; it may still arrive."""


@attrs.define
class StoreFaults:
    """How a store behaves just now.  The numbers without a unit are chances between 0 and 1, for each call.

    Attributes:
        write_s, read_s: how long a call takes, between these two.
        fail: a write that is refused, and is not there.
        unknown: a write that is there, though the one who wrote it is told that it failed.
        stuck: a write that is not answered for longer than anybody waits; it may be there in the end.
        read_fail, open_fail: a read, or an opening, that is refused.
        is_down: every call is refused.
    """

    write_s: tuple[float, float] = (0.001, 0.006)
    read_s: tuple[float, float] = (0.0, 0.002)
    fail: float = 0.0
    unknown: float = 0.0
    stuck: float = 0.0
    read_fail: float = 0.0
    open_fail: float = 0.0
    is_down: bool = False


class _Fate(Enum):
    """What becomes of a write."""

    DONE = "done"
    FAILED = "write refused"
    UNKNOWN = "write with unknown outcome"
    STUCK = "write stuck"


@attrs.define
class _Write:
    """A batch on its way to the disk."""

    changes: Sequence[tuple[bytes, bytes | None]]
    fate: _Fate
    takes_s: float
    seen_early: bool
    done: asyncio.Future[None]


Heard = Callable[[Sequence[tuple[bytes, bytes | None]]], None]
"""Told each batch at the moment in which it is durable."""


class Disk:
    """What the store has of one database.

    Args:
        store: the process in which the store itself works: it goes on when those who use it crash.
        faults: shared with all disks of the same store.
        happened: counts the faults that came to pass, by kind.
        heard: told each batch when it is durable.
    """

    def __init__(
        self,
        store: Process,
        faults: StoreFaults,
        chance: random.Random,
        *,
        happened: Counter[str],
        heard: Heard = lambda _: None,
    ) -> None:
        self.rows: SortedDict[bytes, bytes] = SortedDict()
        self.epoch = 0
        self.store = store
        self.faults = faults
        self.chance = chance
        self.happened = happened
        self.heard = heard
        self._openings: list[tuple[Process | None, ModelDatabase]] = []

    async def open(self, process: Process | None = None) -> ModelDatabase:
        """Take the database over from whoever has it.

        Args:
            process: who opens it, for `crashed`.

        Raises:
            StoreFailed: the store refused; then nobody has lost it, or nobody knows.
        """
        await self.wait(self.faults.read_s)
        refused = self.faults.is_down or self._strikes(self.faults.open_fail)
        if refused and self.chance.random() < 0.5:
            raise self._refusal("opening refused")
        self.epoch += 1
        if refused:
            # It fenced the one before, and then came to nothing.
            raise self._refusal("opening refused")
        database = ModelDatabase(self)
        self._openings.append((process, database))
        await self.wait(self.faults.read_s)
        return database

    def crashed(self, process: Process) -> None:
        """The process is gone: of what it had on its way, some may arrive in order, and the rest never does."""
        for owner, database in self._openings:
            if owner is process:
                database.lose_some()
        self._openings = [(owner, database) for owner, database in self._openings if owner is not process]

    def write(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Make a batch durable."""
        for key, value in changes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.heard(changes)

    def erase(self) -> None:
        """Forget everything; whoever has it open has lost it."""
        self.epoch += 1
        self.rows = SortedDict()

    def fate(self) -> _Fate:
        """What becomes of the next write."""
        faults = self.faults
        if faults.is_down or self._strikes(faults.fail):
            return _Fate.FAILED
        if self._strikes(faults.unknown):
            return _Fate.UNKNOWN
        return _Fate.STUCK if self._strikes(faults.stuck) else _Fate.DONE

    def answers_late(self) -> bool:
        """Whether the next read sees the rows as they are when it is asked, rather than when it answers."""
        return self.chance.random() < 0.5

    async def read(self) -> None:
        """Let a read take its time.  Raises StoreFailed."""
        if self.faults.is_down or self._strikes(self.faults.read_fail):
            await self.wait(self.faults.write_s)
            raise self._refusal("read refused")
        await self.wait(self.faults.read_s)

    async def wait(self, between_s: tuple[float, float]) -> None:
        await asyncio.sleep(self.chance.uniform(*between_s))

    def _strikes(self, probability: float) -> bool:
        return probability > 0 and self.chance.random() < probability

    def _refusal(self, kind: str) -> StoreFailed:
        self.happened[kind] += 1
        return StoreFailed(f"the store failed: {kind}")


class _Rows(MemorySnapshot):
    """Reads of rows in memory that take the time of a store, and fail as one."""

    def __init__(self, rows: SortedDict[bytes, bytes], disk: Disk) -> None:
        super().__init__(rows)
        self._disk = disk

    def check(self) -> None:
        """Raise what makes reading impossible."""

    async def get(self, key: bytes) -> bytes | None:
        self.check()
        if self._disk.answers_late():
            value = await super().get(key)
            await self._disk.read()
            return value
        await self._disk.read()
        return await super().get(key)

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        self.check()
        if self._disk.answers_late():
            rows = await super().scan(first, end, limit=limit, reverse=reverse)
            await self._disk.read()
            return rows
        await self._disk.read()
        return await super().scan(first, end, limit=limit, reverse=reverse)

    async def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        self.check()
        await self._disk.read()
        # As it is at the first page.
        keys = self._rows.irange(first, end, inclusive=(True, False)) if first < end else ()
        found = [(key, self._rows[key]) for key in keys]
        for at in range(0, len(found), rows):
            yield found[at : at + rows]
            await self._disk.read()


class ModelDatabase(_Rows):
    """One opening of a database."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.rows.copy(), disk)
        self._epoch = disk.epoch
        self._failure: SiloError | None = None
        self._queue: deque[_Write] = deque()
        self._more = asyncio.Event()
        self._moved = asyncio.Event()
        self._writer = disk.store.start(self._write_on(), name="store")

    def check(self) -> None:
        if self._failure is None and self._epoch != self._disk.epoch and not self._queue:
            # A fenced owner hears of it when it asks for anything; how soon, nobody promises.
            self._failure = Fenced("another process has opened the shard")
        if self._failure is not None:
            raise again(self._failure)

    def batch(self) -> MemoryBatch:
        return MemoryBatch()

    async def write(self, batch: Batch) -> None:
        if self._failure is not None:
            raise again(self._failure)
        if not isinstance(batch, MemoryBatch):
            raise TypeError("a batch is written to the database that made it")
        if not batch:
            return
        disk, done = self._disk, asyncio.get_running_loop().create_future()
        takes_s, seen_early = disk.chance.uniform(*disk.faults.write_s), disk.chance.random() < 0.5
        self._queue.append(_Write(batch.changes, disk.fate(), takes_s, seen_early, done))
        self._more.set()
        await done

    async def _write_on(self) -> None:
        """Bring what is queued to the disk, one after the other."""
        while self._failure is None:
            await self._more.wait()
            self._more.clear()
            while self._queue and self._failure is None:
                await self._write_one(self._queue[0])

    async def _write_one(self, write: _Write) -> None:
        disk = self._disk
        if write.seen_early:
            self._see(write)
        if write.fate is not _Fate.DONE:
            disk.happened[write.fate.value] += 1
        if write.fate is _Fate.STUCK:
            await asyncio.sleep(DURABILITY_TIMEOUT_S)
            self._break(StoreFailed("the store did not answer in time"))
            # Whether and when it arrives after all is up to the store, unless somebody else has the disk by then.
            await asyncio.sleep(disk.chance.uniform(0, 2 * DURABILITY_TIMEOUT_S))
            if disk.chance.random() < 0.5 and self._epoch == disk.epoch and self._queue:
                disk.write(write.changes)
            return
        await asyncio.sleep(write.takes_s)
        if not self._queue or self._queue[0] is not write:
            # Lost in a crash in the meantime.
            return
        if self._epoch != disk.epoch:
            self._break(Fenced("another process has opened the shard"))
            return
        if write.fate is not _Fate.FAILED:
            disk.write(write.changes)
        self._see(write)
        self._queue.popleft()
        self._moved.set()
        if write.fate is _Fate.DONE:
            if not write.done.done():
                write.done.set_result(None)
        else:
            self._break(StoreFailed(f"the store failed: {write.fate.value}"), write)

    def _see(self, write: _Write) -> None:
        """From now on reads see what is written."""
        for key, value in write.changes:
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value

    def _break(self, failure: SiloError, *also: _Write) -> None:
        """Refuse everything from now on, and what is on its way."""
        if self._failure is None:
            self._failure = failure
        self._moved.set()
        for write in (*also, *self._queue):
            if not write.done.done():
                write.done.set_exception(again(self._failure))
                write.done.exception()

    def lose_some(self) -> None:
        """Whoever wrote is gone: what is queued arrives up to some point."""
        for _ in range(self._disk.chance.randint(0, len(self._queue))):
            write = self._queue.popleft()
            if self._failure is None and self._epoch == self._disk.epoch:
                self._disk.write(write.changes)
        self._queue.clear()
        self._failure = StoreFailed("the process has crashed")

    # --- the rest of the contract ----------------------------------------------------------------------------------------

    async def snapshot(self) -> _Rows:
        self.check()
        return _Rows(self._rows.copy(), self._disk)

    async def flush(self) -> None:
        self.check()

    async def compact(self) -> None:
        self.check()

    async def storage_info(self) -> StorageInfo:
        self.check()
        return StorageInfo(l0_sst_count=0, total_l0_size=0, sorted_runs=())

    async def close(self) -> None:
        while self._queue and self._failure is None:
            self._moved.clear()
            await self._moved.wait()
        await self.abandon()

    async def abandon(self) -> None:
        """What is on its way may arrive, as with a real store that nobody can call back."""
        arrive = list(islice(self._queue, self._disk.chance.randint(0, len(self._queue))))
        if self._failure is None:
            for write in arrive:
                if self._epoch == self._disk.epoch:
                    self._disk.write(write.changes)
        self._break(StoreFailed("the database was closed"))
        self._queue.clear()
        self._more.set()
