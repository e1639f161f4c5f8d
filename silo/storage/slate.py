"""A database in SlateDB.

A write takes three steps: apply the batch in memory, flush the write-ahead log (WAL), wait until that is
durable.  Waiting for SlateDB's own flush interval instead would cost each write about its length (6 ms at 5
ms; an explicit flush takes 0.4). One task does this for all writes: those that arrive while it is busy become
the next group, with one flush for all.  The task belongs to no caller, so a cancelled caller cannot stop a
write half-way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from silo.errors import ConfigError, Corrupt, Fenced, SiloError, StoreFailed, again
from silo.storage.database import Batch, Row, SortedRun, StorageInfo
from silo.storage.ffi import calls, generated
from silo.storage.fsync import Syncing

_log = logging.getLogger(__name__)

# What a call of SlateDB may fail with; TimeoutError is an OSError.
Failures = (generated.Error, generated.InternalError, OSError)

# More rows in one call would hold up the event loop for more than about 2 ms.
_ROWS_A_CALL = 500
_FLUSH_TIMEOUT_S = 120
_ABANDON_TIMEOUT_S = 2

_FLUSH_MEMTABLE = generated.FlushOptions(flush_type=generated.FlushType.MEM_TABLE)
_CLOSE_FLUSHING_WAL = generated.CloseOptions(flush_type=generated.FlushType.WAL)
_CLOSE_AT_ONCE = generated.CloseOptions(flush_type=None)


def _scan_options(
    *, reverse: bool = False, read_ahead_bytes: int, cache_blocks: bool, max_fetch_tasks: int
) -> Any:
    order = generated.IterationOrder.DESCENDING if reverse else generated.IterationOrder.ASCENDING
    return generated.ScanOptions(
        durability_filter=generated.DurabilityLevel.MEMORY,
        dirty=False,
        read_ahead_bytes=read_ahead_bytes,
        cache_blocks=cache_blocks,
        max_fetch_tasks=max_fetch_tasks,
        order=order,
    )


_SCAN = {
    reverse: _scan_options(reverse=reverse, read_ahead_bytes=64 << 10, cache_blocks=True, max_fetch_tasks=1)
    for reverse in (False, True)
}
# A long scan would push everything else out of the cache, and without reading ahead it fetches block by
# block.
_PAGES = _scan_options(read_ahead_bytes=1 << 20, cache_blocks=False, max_fetch_tasks=2)


class SlateBatch:
    """Changes gathered in SlateDB's own batch."""

    def __init__(self) -> None:
        self._inner = generated.WriteBatch()
        self._changes = 0

    def put(self, key: bytes, value: bytes) -> None:
        if not key:
            raise ValueError("a key has at least one byte")
        calls.put(self._inner, key, value)
        self._changes += 1

    def delete(self, key: bytes) -> None:
        if not key:
            raise ValueError("a key has at least one byte")
        calls.delete(self._inner, key)
        self._changes += 1

    def change(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        if not all(key for key, _ in changes):
            raise ValueError("a key has at least one byte")
        calls.change(self._inner, changes)
        self._changes += len(changes)

    def taken(self) -> Any:
        """SlateDB's batch, which can be written once."""
        if self._inner is None:
            raise ValueError("the batch has been written already")
        inner, self._inner = self._inner, None
        return inner

    def __len__(self) -> int:
        return self._changes


class _SlateReader:
    """Reads from a Db or a DbSnapshot."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._failure: SiloError | None = None

    async def get(self, key: bytes) -> bytes | None:
        if self._failure is not None:
            raise again(self._failure)
        try:
            return await calls.get(self._source, key)
        except Failures as reason:
            raise self._failed_read(reason) from reason

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        rows: list[Row] = []
        if limit > 0:
            async for page in self._scanned(first, end, min(limit, _ROWS_A_CALL), _SCAN[reverse]):
                rows += page
                if len(rows) >= limit:
                    break
        return rows[:limit]

    async def pages(self, first: bytes, end: bytes, *, rows: int = _ROWS_A_CALL) -> AsyncIterator[list[Row]]:
        async for page in self._scanned(first, end, rows, _PAGES):
            yield page

    async def _scanned(self, first: bytes, end: bytes, rows: int, options: Any) -> AsyncIterator[list[Row]]:
        if self._failure is not None:
            raise again(self._failure)
        if first >= end:
            return
        try:
            iterator = await calls.scan(self._source, first, end, options)
            page = await calls.next_rows(iterator, rows)
            while len(page) == rows:
                yield page
                # Calls that Rust answers at once take no turn of the loop by themselves.
                await asyncio.sleep(0)
                page = await calls.next_rows(iterator, rows)
        except Failures as reason:
            raise self._failed_read(reason) from reason
        if page:
            yield page

    def _failed_read(self, reason: BaseException) -> Exception:
        return named(reason)


class SlateSnapshot(_SlateReader):
    def release(self) -> None:
        self._source = None


class SlateDatabase(_SlateReader):
    """`Database` over an open slatedb Db.  Made by `silo.storage.stores.open_database`."""

    def __init__(self, db: Any, admin: Any, *, durability_timeout_ms: int, syncing: Syncing) -> None:
        super().__init__(db)
        self._db = db
        self._admin = admin
        self._durability_timeout_ms = durability_timeout_ms
        self._syncing = syncing
        self._waiting: list[tuple[Any, asyncio.Future[None]]] = []
        self._in_flight: list[asyncio.Future[None]] = []
        self._committer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Before the first use: make durable what was found."""
        await self._administer(self._syncing.start())

    def batch(self) -> SlateBatch:
        return SlateBatch()

    async def write(self, batch: Batch) -> None:
        if self._failure is not None:
            raise again(self._failure)
        if not isinstance(batch, SlateBatch):
            raise TypeError("a batch is written to the database that made it")
        if not batch:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((batch.taken(), done))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit(), name="storage commits")
        await done

    async def _commit(self) -> None:
        """Write what is waiting, group by group, until nothing waits."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                self._in_flight = [done for _, done in group]
                await self._make_durable([batch for batch, _ in group])
                for done in self._in_flight:
                    if not done.done():
                        done.set_result(None)
        except BaseException as reason:
            # What was applied in memory may become durable or not: only opening anew can tell.  That holds for
            # errors that nobody expects too (no thread can be started), and the callers must hear of them.
            if isinstance(reason, (*Failures, asyncio.CancelledError)):
                failure = named(reason)
            else:
                _log.error("a commit failed in a way that was not expected", exc_info=reason)
                failure = StoreFailed(f"the store failed: {type(reason).__name__}: {reason}")
            self._refuse_waiting(self._break(failure))
            if isinstance(reason, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                # These end the loop; anything else would be lost in a task that nobody awaits.
                raise
        finally:
            self._committer = None

    def _refuse_waiting(self, failure: SiloError) -> None:
        for done in (*self._in_flight, *(done for _, done in self._waiting)):
            if not done.done():
                done.set_exception(again(failure))
        self._waiting = []

    async def _make_durable(self, batches: list[Any]) -> None:
        try:
            async with asyncio.timeout(self._durability_timeout_ms / 1_000):
                for batch in batches:
                    handle = await calls.write(self._db, batch)
                await calls.flush_wal(self._db)
                # The log is written in order, so the last batch is durable only after the others.
                await calls.await_durable(handle)
                await self._syncing.wal()
        except TimeoutError:
            raise OSError(f"a write was not durable within {self._durability_timeout_ms} ms") from None

    def check(self) -> None:
        if self._failure is not None:
            raise again(self._failure)
        closed = self._db.status().close_reason
        if closed is generated.CloseReason.FENCED:
            # SILO-OWN-2: SlateDB refuses the writes of whoever was fenced; from here on so do we.
            raise again(self._break(Fenced()))
        if closed is not None:
            raise again(
                self._break(StoreFailed(f"the store failed: the database closed itself ({closed.name})"))
            )

    async def snapshot(self) -> SlateSnapshot:
        if self._failure is not None:
            raise again(self._failure)
        try:
            return SlateSnapshot(await self._db.snapshot())
        except Failures as reason:
            raise self._failed_read(reason) from reason

    async def flush(self) -> None:
        await self._administer(self._db.flush_with_options(_FLUSH_MEMTABLE))
        await self._administer(self._syncing.rest())

    async def compact(self) -> None:
        manifest = await self._administer(self._admin.read_manifest(None))
        files = [generated.SourceId.SST_VIEW(view.id) for view in manifest.l0]
        runs = [generated.SourceId.SORTED_RUN(run.id) for run in manifest.compacted]
        if len(files) + len(runs) < 2:
            return
        # The merged run takes the place of the oldest one.
        destination = min((run.id for run in manifest.compacted), default=0)
        spec = generated.CompactionSpec.TIERED(segment=b"", sources=files + runs, destination=destination)
        await self._administer(self._admin.submit_compaction(spec))

    async def storage_info(self) -> StorageInfo:
        manifest = await self._administer(self._admin.read_manifest(None))
        return StorageInfo(
            l0_sst_count=len(manifest.l0),
            total_l0_size=sum(view.estimated_size_bytes for view in manifest.l0),
            sorted_runs=tuple(
                SortedRun(id=run.id, sst_count=len(run.sst_views), estimated_size=run.estimated_size_bytes)
                for run in manifest.compacted
            ),
        )

    async def _administer(self, call: Any) -> Any:
        if self._failure is not None:
            call.close()
            raise again(self._failure)
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                return await call
        except Fenced as fenced:
            raise again(self._break(fenced)) from fenced
        except Failures as reason:
            raise self._failed_read(reason) from reason

    async def close(self) -> None:
        if self._committer is not None:
            await asyncio.wait([self._committer])
        if self._failure is not None:
            await self.abandon()
            return
        self._break(StoreFailed("the database is closed"))
        await self._syncing.stop()
        try:
            async with asyncio.timeout(self._durability_timeout_ms / 1_000):
                await self._db.shutdown_with_options(_CLOSE_FLUSHING_WAL)
        except Failures as reason:
            # All that was acknowledged is durable: what failed is only the parting.
            _log.warning("a database did not close well: %s", reason)

    async def abandon(self) -> None:
        failure = self._break(StoreFailed("the database was abandoned"))
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.wait([self._committer])
        # A task that is cancelled before its first step never gets to do this itself.
        self._refuse_waiting(failure)
        await self._syncing.stop()
        try:
            async with asyncio.timeout(_ABANDON_TIMEOUT_S):
                await self._db.shutdown_with_options(_CLOSE_AT_ONCE)
        except Failures as reason:
            _log.info("an abandoned database did not close: %s", reason)

    def _break(self, failure: SiloError) -> SiloError:
        """Refuse every later call.  The first failure is the one that explains the others."""
        if self._failure is None:
            self._failure = failure
        return self._failure

    def _failed_read(self, reason: BaseException) -> Exception:
        failure = named(reason)
        if isinstance(reason, generated.Error.Closed):
            self._break(failure)
        return failure


def named(reason: BaseException) -> SiloError:
    """What an error of SlateDB or of the operating system means to us."""
    text = str(getattr(reason, "message", reason)) or type(reason).__name__
    match reason:
        case generated.Error.Closed(reason=generated.CloseReason.FENCED):
            return Fenced()
        case generated.Error.Invalid():
            return ConfigError(text)
        case generated.Error.Data() if "not found" not in text.lower():
            return Corrupt(f"the database cannot be read: {text}")
        case _:
            return StoreFailed(f"the store failed: {text}")
