"""Putting a shard's history into its archive: events, and verified images of the rows; and taking out what is erased."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Protocol

from silo.archive.archive import Archive
from silo.archive.database import ArchivedReader
from silo.archive.files import Image, Stretch, read_rows, write_events, write_jobs, write_rows
from silo.errors import Corrupt
from silo.events import codec
from silo.events.catalogue import Event
from silo.events.erasing import Targets
from silo.events.log import LOG_PREFIX, first_seq_of, record_key
from silo.projections.fold import ROWS_FORMAT, TABLES
from silo.projections.jobs import JOBS, JobRow
from silo.projections.view import Key
from silo.shard.base import newest_base
from silo.shard.beside import Progress, scratch
from silo.shard.checkpoint import read_note
from silo.shard.disk import key_of, read_table
from silo.shard.elsewhere import Home
from silo.shard.replay import Difference, rebuild
from silo.storage.database import Reader, Row
from silo.storage.memory import MemoryDatabase
from silo.storage.scratch import scratch_directory

EVENTS_PER_FILE = 1_000_000
RECORDS_PER_PAGE = 16

EVENTS, ROWS, JOBS_FILE = "events.parquet", "rows.parquet", "jobs.parquet"


Check = Callable[[], None]
"""Raises SiloError if the database is somebody else's by now."""


class Maker(Protocol):
    """Makes files, here or in another process."""

    async def events(
        self, archive: Archive, stretch: Stretch, pages: AsyncIterator[list[Row]], file: Path
    ) -> None:
        """`write_stretch`."""
        ...

    async def image(self, archive: Archive, image: Image, directory: Path, progress: Progress) -> None:
        """`make_image`."""
        ...

    async def erase(self, archive: Archive, targets: Targets, directory: Path) -> int:
        """`Archive.erase`, with room for new files in a directory; afterwards `Archive.look_anew` is needed."""
        ...


async def seal_events(
    archive: Archive,
    snapshot: Reader,
    upto_seq: int,
    progress: Progress,
    maker: Maker,
    check: Check,
    *,
    per_file: int = EVENTS_PER_FILE,
) -> None:
    """Put the events that the archive does not have yet into it, up to this one."""
    progress.total = upto_seq
    while (first := archive.last_seq + 1) <= upto_seq:
        stretch = Stretch(first, min(first + per_file - 1, upto_seq))
        holds_first = await snapshot.scan(LOG_PREFIX, record_key(first + 1), limit=1, reverse=True)
        pages = snapshot.pages(holds_first[0][0], record_key(stretch.last + 1), rows=RECORDS_PER_PAGE)
        with scratch_directory() as directory:
            file = directory / EVENTS
            await maker.events(archive, stretch, _told(pages, progress), file)
            # Whoever has let go of the database puts nothing beside it any more.
            check()
            await asyncio.to_thread(archive.add_stretch, stretch, file)


async def _told(pages: AsyncIterator[list[Row]], progress: Progress) -> AsyncIterator[list[Row]]:
    async for page in pages:
        progress(first_seq_of(page[0][0]))
        yield page


def write_stretch(stretch: Stretch, pages: Iterator[list[Row]], file: Path) -> None:
    """Write the events of a stretch from these records of the log.  Raises Corrupt if one is missing."""
    write_events(file, _events(pages, stretch))


def _events(pages: Iterator[list[Row]], stretch: Stretch) -> Iterator[list[Event]]:
    expected = stretch.first
    for page in pages:
        for key, record in page:
            events = [
                event
                for event in codec.decode(first_seq_of(key), record)
                if stretch.first <= event.seq <= stretch.last
            ]
            if events and events[0].seq != expected:
                raise Corrupt(f"event {expected} is missing from the log")
            expected += len(events)
            yield events
    if expected != stretch.last + 1:
        raise Corrupt(f"event {expected} is missing from the log")


async def seal_rows(
    archive: Archive, snapshot: Reader, progress: Progress, maker: Maker, check: Check
) -> Difference | None:
    """Make an image of the rows, from the archive alone, and take it in if the stored rows are the same.

    Returns:
        The first difference, in which case there is no image.
    """
    note = await read_note(snapshot)
    progress.total = note.seq
    image = Image(note.seq, note.time_ms)
    with scratch_directory() as directory:
        await maker.image(archive, image, directory, progress)
        check()
        stored = Home().pulled(_all_rows(snapshot))
        difference = await asyncio.to_thread(_first_difference, directory / ROWS, stored)
        if difference is None:
            await asyncio.to_thread(archive.add_image, image, directory / ROWS, directory / JOBS_FILE)
    return difference


async def make_image(archive: Archive, image: Image, directory: Path, progress: Progress) -> None:
    """Make the files of an image: from the newest image before, or from the first event."""
    base = await newest_base(archive, image.seq)
    log = ArchivedReader(MemoryDatabase(), archive, image.seq + 1)
    async with scratch() as database:
        await rebuild(log, database, base=base, upto=image.seq, progress=progress)
        home = Home()
        rows, jobs = home.pulled(_all_rows(database)), home.pulled(_jobs(database))
        await asyncio.to_thread(write_rows, directory / ROWS, rows, rows_format=ROWS_FORMAT)
        await asyncio.to_thread(write_jobs, directory / JOBS_FILE, jobs, rows_format=ROWS_FORMAT)


async def erase_archive(archive: Archive, targets: Targets, maker: Maker) -> int:
    """Take data out of the archived events.  Returns of how many."""
    with scratch_directory() as directory:
        try:
            return await maker.erase(archive, targets, directory)
        finally:
            # Some files may be new, also if it failed.
            await asyncio.to_thread(archive.look_anew)


async def _jobs(reader: Reader) -> AsyncIterator[list[tuple[Key, JobRow]]]:
    async for page in read_table(reader, JOBS):
        yield [(key_of(key), JOBS.decode(value)) for key, value in page]


async def _all_rows(reader: Reader) -> AsyncIterator[list[Row]]:
    """In the order of the keys."""
    for table in sorted(TABLES, key=lambda table: table.tag):
        async for page in read_table(reader, table):
            yield page


def _first_difference(file: Path, stored: Iterator[list[Row]]) -> Difference | None:
    for made, found in zip_longest(chain.from_iterable(read_rows(file)), chain.from_iterable(stored)):
        if made != found:
            key = min(row[0] for row in (made, found) if row is not None)
            expected = made[1] if made is not None and made[0] == key else None
            value = found[1] if found is not None and found[0] == key else None
            table = next(table for table in TABLES if table.tag == key[0])
            return Difference(table.name, key_of(key), expected, value)
    return None
