"""Work that takes long, in a thread, on what belongs to the shard's event loop.

`elsewhere` gives the work an event loop of its own, and a `Bridge` reads the shard for it; `pulled` is for work that blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

from silo.storage.database import Reader, Row

T = TypeVar("T")


class Home:
    """The shard's event loop, for whoever works in another thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done there, from another event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def pulled(self, pages: AsyncIterator[T]) -> Iterator[T]:
        """What an asynchronous iterator gives there, for a thread without a loop."""
        while (page := asyncio.run_coroutine_threadsafe(_next(pages), self._loop).result()) is not None:
            yield page


class Bridge:
    """A reader of the shard's event loop, for whoever works in another one."""

    def __init__(self, home: Home, reader: Reader) -> None:
        self._home = home
        self._reader = reader

    async def get(self, key: bytes) -> bytes | None:
        return await self._home.ask(self._reader.get(key))

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        return await self._home.ask(self._reader.scan(first, end, limit=limit, reverse=reverse))

    async def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        pages = self._reader.pages(first, end, rows=rows)
        while (page := await self._home.ask(_next(pages))) is not None:
            yield page


async def _next(pages: AsyncIterator[T]) -> T | None:
    return await anext(pages, None)


async def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Do something in a thread with an event loop of its own."""
    return await asyncio.to_thread(asyncio.run, work)
