"""From where rows are made anew: an image in the archive, or the first event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeVar

import attrs

from silo.archive.archive import Archive
from silo.archive.database import ArchivedReader
from silo.archive.files import Image
from silo.projections.fold import ROWS_FORMAT
from silo.shard.checkpoint import Note, load_rows, write_note
from silo.storage.database import Database, Reader

T = TypeVar("T")


@attrs.frozen
class Base:
    """All rows as they stood after an event."""

    archive: Archive
    image: Image

    @property
    def note(self) -> Note:
        return Note(self.image.seq, self.image.time_ms)

    async def load(self, database: Database, *, go_on: Callable[[], None] = lambda: None) -> Note:
        """Write them into a database without rows.  Returns what they stand for.

        Args:
            go_on: called for each page; what it raises ends the work.
        """
        pages = self.archive.rows(self.image)
        while (page := await asyncio.to_thread(_next, pages)) is not None:
            go_on()
            await load_rows(database, page)
        await write_note(database, self.note)
        return self.note


def _next(pages: Iterator[T]) -> T | None:
    return next(pages, None)


async def base_of(reader: Reader, upto_seq: int) -> Base | None:
    """The oldest image from which the log by itself leads to an event, if the log was cut.

    None: begin with the first event, which is in the archive if it is not in the log.
    """
    if not isinstance(reader, ArchivedReader) or reader.live_seq == 1:
        return None
    archive = reader.archive
    usable = [image for image in archive.images if reader.live_seq - 1 <= image.seq <= upto_seq]
    for image in usable:
        if await asyncio.to_thread(archive.has_format, image, ROWS_FORMAT):
            return Base(archive, image)
    return None


async def newest_base(archive: Archive, upto_seq: int) -> Base | None:
    """The newest image that stands for no later event than this one, if there is any."""
    image = await asyncio.to_thread(archive.image_before, upto_seq, rows_format=ROWS_FORMAT)
    return Base(archive, image) if image is not None else None
