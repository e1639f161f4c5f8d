"""A shard's database whose log goes on in its archive: whoever reads the log need not know where it was cut.

Records of the archive begin where one likes.  Everything else is the database's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from silo.archive.archive import Archive
from silo.archive.folder import Folder, folder_of
from silo.errors import Corrupt
from silo.events import codec
from silo.events.log import LOG_END, LOG_PREFIX, first_seq_of, record_key
from silo.storage.database import Batch, Database, Reader, Row, Snapshot, StorageInfo
from silo.storage.stores import StoreSpec, delete_database, open_database

T = TypeVar("T")

RECORDS_READ_AT_ONCE = 4
RECORDS_DELETED_AT_ONCE = 500


async def open_with_archive(spec: StoreSpec, shard: str) -> Database:
    """Open a shard's database, as `open_database` does, with its archive.  What is in memory has none."""
    database = await open_database(spec, shard)
    try:
        folder = folder_of(spec, shard)
        return await with_archive(database, Archive(folder)) if folder is not None else database
    except BaseException:
        await database.abandon()
        raise


async def delete_with_archive(spec: StoreSpec, shard: str) -> None:
    """Delete a shard's database, as `delete_database` does, and its archive."""
    if (folder := folder_of(spec, shard)) is not None:
        await asyncio.to_thread(_empty, folder)
    await delete_database(spec, shard)


def _empty(folder: Folder) -> None:
    for name in folder.names():
        folder.delete(name)


async def with_archive(database: Database, archive: Archive) -> ArchivedDatabase:
    """The two as one.  Raises StoreFailed, and Corrupt if they cannot belong together."""
    await asyncio.to_thread(archive.look)
    first = await database.scan(LOG_PREFIX, LOG_END, limit=1)
    live_seq = first_seq_of(first[0][0]) if first else 1
    if live_seq > archive.last_seq + 1:
        raise Corrupt(
            f"the log begins with event {live_seq}, but the archive beside it ends with {archive.last_seq}: "
            "files of it are missing, bring them back"
        )
    if archive.newest_seq:
        last = await database.scan(LOG_PREFIX, LOG_END, limit=1, reverse=True)
        last_seq = codec.decode(first_seq_of(last[0][0]), last[0][1])[-1].seq if last else 0
        if archive.newest_seq > last_seq:
            raise Corrupt(
                f"the archive beside the database has files up to event {archive.newest_seq}, the log ends with {last_seq}: "
                "they do not belong together; bring back the database that it was made from, or move those files away "
                "that go further"
            )
    return ArchivedDatabase(database, archive, live_seq)


class ArchivedReader:
    """Reads.

    Attributes:
        archive: what was cut off the log is there.
        live_seq: where the database's own log begins.
    """

    def __init__(self, inner: Reader, archive: Archive, live_seq: int) -> None:
        self.archive = archive
        self.live_seq = live_seq
        self._reader = inner
        # These are called for every command.
        self.get = inner.get

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        """In the log only for one record, the last of the range."""
        if reverse and first == LOG_PREFIX and end <= record_key(self.live_seq):
            # Not by way of the database, which would walk through all that was deleted.
            record = await _read(self.archive.record, first_seq_of(end) - 1)
            return [record] if record is not None else []
        return await self._reader.scan(first, end, limit=limit, reverse=reverse)

    async def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        live_from = record_key(self.live_seq)
        if LOG_PREFIX <= first < live_from:
            upto = self.live_seq if end >= live_from else first_seq_of(end)
            archived = self.archive.records(first_seq_of(first), upto)
            while (page := await _read(_next, archived)) is not None:
                yield page
            first = live_from
        if first < end:
            async for page in self._reader.pages(first, end, rows=rows):
                yield page


_readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="archive")
"""Not those of the event loops, which may all be taken by work that waits for what is read here."""


async def _read(call: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_readers, call, *args)


def _next(pages: Iterator[T]) -> T | None:
    return next(pages, None)


async def require_archive(reader: Reader) -> None:
    """Raise Corrupt if what was cut off the log cannot all be read in the archive."""
    if isinstance(reader, ArchivedReader) and reader.live_seq > 1:
        seq = 1
        async for page in reader.pages(record_key(1), record_key(reader.live_seq)):
            for key, record in page:
                if first_seq_of(key) != seq:
                    raise Corrupt(f"event {seq} is missing from the archive")
                seq = codec.decode(seq, record)[-1].seq + 1
        if seq != reader.live_seq:
            raise Corrupt(f"event {seq} is missing from the archive")


class ArchivedSnapshot(ArchivedReader):
    """`Snapshot`.

    Attributes:
        archived_seq: the archive had all events up to this one when it was taken.
    """

    def __init__(self, inner: Snapshot, archive: Archive, live_seq: int) -> None:
        super().__init__(inner, archive, live_seq)
        self.archived_seq = archive.last_seq
        self.release = inner.release


class ArchivedDatabase(ArchivedReader):
    """`Database`.

    Attributes:
        inner: the database by itself.
    """

    def __init__(self, inner: Database, archive: Archive, live_seq: int) -> None:
        super().__init__(inner, archive, live_seq)
        self.inner = inner
        self.batch, self.write, self.check = inner.batch, inner.write, inner.check

    async def snapshot(self) -> ArchivedSnapshot:
        return ArchivedSnapshot(await self.inner.snapshot(), self.archive, self.live_seq)

    async def cut(self, upto_seq: int) -> int:
        """Delete the records that have no event beyond this one.  Raises Corrupt if the archive does not have them all.

        Doing it again does no harm.  Returns how many records that were.
        """
        if upto_seq > self.archive.last_seq:
            raise Corrupt(
                f"the log is to be cut behind event {upto_seq}, but the archive ends with {self.archive.last_seq}: "
                "files of it are missing, bring them back"
            )
        kept = await self.inner.scan(LOG_PREFIX, record_key(upto_seq + 2), limit=1, reverse=True)
        if not kept:
            return 0
        end = kept[0][0]
        # First nobody reads them any more.
        self.live_seq = max(self.live_seq, first_seq_of(end))
        deleted, keys = 0, list[bytes]()
        # Few at a time, as their values come along.
        async for page in self.inner.pages(LOG_PREFIX, end, rows=RECORDS_READ_AT_ONCE):
            keys += [key for key, _ in page]
            if len(keys) >= RECORDS_DELETED_AT_ONCE:
                deleted += await self._delete(keys)
                keys = []
        deleted += await self._delete(keys)
        if deleted:
            # What is deleted is walked through until the files are merged.
            await self.flush()
            await self.compact()
        return deleted

    async def _delete(self, keys: list[bytes]) -> int:
        if keys:
            batch: Batch = self.batch()
            batch.change([(key, None) for key in keys])
            await self.write(batch)
        return len(keys)

    async def flush(self) -> None:
        await self.inner.flush()

    async def compact(self) -> None:
        await self.inner.compact()

    async def storage_info(self) -> StorageInfo:
        return await self.inner.storage_info()

    async def close(self) -> None:
        await self.inner.close()

    async def abandon(self) -> None:
        await self.inner.abandon()
