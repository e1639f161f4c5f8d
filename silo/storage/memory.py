"""A database in a dictionary, for tests of what is above storage.  It forgets everything with the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice

from sortedcontainers import SortedDict

from silo.storage.database import Batch, Row, StorageInfo


class MemoryBatch:
    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        self.changes.append((key, None))

    def change(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        self.changes += changes

    def __len__(self) -> int:
        return len(self.changes)


class MemorySnapshot:
    def __init__(self, rows: SortedDict[bytes, bytes]) -> None:
        self._rows = rows

    async def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._rows.get(key)
        return value

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        keys = self._rows.irange(first, end, inclusive=(True, False), reverse=reverse) if first < end else ()
        return [(key, self._rows[key]) for key in islice(keys, max(limit, 0))]

    async def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        found = await self.scan(first, end, limit=len(self._rows))
        for start in range(0, len(found), rows):
            yield found[start : start + rows]
            await asyncio.sleep(0)

    def release(self) -> None:
        pass


class MemoryDatabase(MemorySnapshot):
    """`Database` without durability: `close` and `abandon` keep the rows, so it can be used again as if
    opened anew."""

    def __init__(self) -> None:
        super().__init__(SortedDict())

    @classmethod
    def of(cls, rows: Mapping[bytes, bytes]) -> MemoryDatabase:
        """A database with a copy of these rows."""
        database = cls()
        database._rows.update(rows)
        return database

    def batch(self) -> MemoryBatch:
        return MemoryBatch()

    async def write(self, batch: Batch) -> None:
        if not isinstance(batch, MemoryBatch):
            raise TypeError("a batch is written to the database that made it")
        for key, value in batch.changes:
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value

    def check(self) -> None:
        pass

    async def snapshot(self) -> MemorySnapshot:
        return MemorySnapshot(self._rows.copy())

    async def flush(self) -> None:
        pass

    async def compact(self) -> None:
        pass

    async def storage_info(self) -> StorageInfo:
        return StorageInfo(l0_sst_count=0, total_l0_size=0, sorted_runs=())

    async def close(self) -> None:
        pass

    async def abandon(self) -> None:
        pass
