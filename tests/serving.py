"""A shard at work inside a test: a clock that stands still, databases that hold, fail and count writes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from silo.domain.ids import Ids
from silo.errors import SiloError
from silo.shard.shard import Shard, ShardOptions
from silo.storage.database import Batch, Database, Row, Snapshot, StorageInfo
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec, open_database
from tests.builders import NOW

IN_S = 30
"""What a test waits for comes at once, or it hangs; the machine may be slow."""

TURNS = 50
"""So many turns of the event loop are enough for everything that needs no disk."""


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine, and fail if it hangs."""
    return asyncio.run(asyncio.wait_for(main, IN_S))


async def turns() -> None:
    """Let everything run that can run without a disk."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Clock:
    """A wall clock that moves when it is told to."""

    def __init__(self, now_ms: int = NOW) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class Watched:
    """A database whose writes can be held back and made to fail.

    Attributes:
        gate: while it is cleared, writes wait before they begin.
        arrived: a batch for each write that was called.
        failures: raised by the next writes, one each, which then write nothing; with `late`, after they have written.
        writes: how many have succeeded.
        broken: what `check` raises.
    """

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived: asyncio.Queue[Batch] = asyncio.Queue()
        self.failures: list[SiloError] = []
        self.late = False
        self.broken: SiloError | None = None
        self.writes = 0
        self.abandoned = asyncio.Event()

    def batch(self) -> Batch:
        return self.inner.batch()

    async def write(self, batch: Batch) -> None:
        self.arrived.put_nowait(batch)
        await self.gate.wait()
        failure = self.failures.pop(0) if self.failures else None
        if failure is None or self.late:
            await self.inner.write(batch)
        if failure is not None:
            raise failure
        self.writes += 1

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken
        self.inner.check()

    async def get(self, key: bytes) -> bytes | None:
        return await self.inner.get(key)

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        return await self.inner.scan(first, end, limit=limit, reverse=reverse)

    def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        return self.inner.pages(first, end, rows=rows)

    async def snapshot(self) -> Snapshot:
        return await self.inner.snapshot()

    async def flush(self) -> None:
        await self.inner.flush()

    async def compact(self) -> None:
        await self.inner.compact()

    async def storage_info(self) -> StorageInfo:
        return await self.inner.storage_info()

    async def close(self) -> None:
        await self.inner.close()

    async def abandon(self) -> None:
        self.abandoned.set()
        await self.inner.abandon()


def opens(database: Database) -> Callable[[], Awaitable[Any]]:
    """An `open_database` that gives this one, which is in memory and outlives its openings."""

    async def open_it() -> Database:
        return database

    return open_it


def opens_slate(spec: StoreSpec) -> Callable[[], Awaitable[Any]]:
    """An `open_database` that opens SlateDB, and so fences whoever had it open."""

    async def open_it() -> Database:
        return await open_database(spec, "shard")

    return open_it


def a_shard(
    open_it: Callable[[], Awaitable[Any]] | None = None,
    *,
    clock: Clock | None = None,
    seed: int = 1,
    **options: Any,
) -> Shard:
    """A shard that is not open yet.  Checkpoints are written when a test asks for one, unless it says otherwise."""
    return Shard(
        "shard",
        open_it or opens(MemoryDatabase()),
        options=ShardOptions(**{"checkpoint_interval_ms": 3_600_000} | options),
        now_ms=clock or Clock(),
        ids=Ids(random.Random(seed).randbytes),
    )


@asynccontextmanager
async def serving(
    open_it: Callable[[], Awaitable[Any]] | None = None, *, clock: Clock | None = None, **options: Any
) -> AsyncIterator[Shard]:
    """An open shard, for as long as the block lasts."""
    shard = a_shard(open_it, clock=clock, **options)
    await shard.open()
    try:
        yield shard
    finally:
        await shard.close()
