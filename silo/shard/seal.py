"""Putting a shard's history into its archive: events, and verified images of the rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain

from silo.archive.archive import Archive
from silo.archive.files import Image, Stretch
from silo.errors import Corrupt
from silo.events import codec
from silo.events.catalogue import Event
from silo.events.log import LOG_PREFIX, first_seq_of, record_key
from silo.projections.fold import ROWS_FORMAT, TABLES
from silo.shard.base import newest_base
from silo.shard.beside import Progress, verified
from silo.shard.checkpoint import read_note
from silo.shard.disk import read_table
from silo.shard.elsewhere import Bridge, Home, elsewhere
from silo.shard.replay import Difference
from silo.storage.database import Reader, Row

EVENTS_PER_FILE = 1_000_000
RECORDS_PER_PAGE = 16


async def seal_events(
    archive: Archive, snapshot: Reader, upto_seq: int, *, per_file: int = EVENTS_PER_FILE
) -> None:
    """Put the events that the archive does not have yet into it, up to this one."""
    home = Home()
    while (first := archive.last_seq + 1) <= upto_seq:
        stretch = Stretch(first, min(first + per_file - 1, upto_seq))
        holds_first = await snapshot.scan(LOG_PREFIX, record_key(first + 1), limit=1, reverse=True)
        pages = snapshot.pages(holds_first[0][0], record_key(stretch.last + 1), rows=RECORDS_PER_PAGE)
        await asyncio.to_thread(archive.add_events, stretch, _events(home.pulled(pages), stretch))


def _events(pages: Iterator[list[Row]], stretch: Stretch) -> Iterator[list[Event]]:
    """The events of a stretch.  Raises Corrupt if one is missing."""
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


async def seal_rows(archive: Archive, snapshot: Reader, progress: Progress) -> Difference | None:
    """Make an image of the rows, if they are those that the log gives.

    They are made anew from the newest image, or from the first event, and compared; then the file is compared with them.

    Returns:
        The first difference, in which case there is no image.
    """
    home, note = Home(), await read_note(snapshot)
    progress.total = note.seq
    base = await newest_base(archive, note.seq)
    difference = await elsewhere(verified(Bridge(home, snapshot), base, progress))
    if difference is None:
        image = Image(note.seq, note.time_ms)
        rows = home.pulled(_all_rows(snapshot))
        await asyncio.to_thread(archive.add_image, image, rows, rows_format=ROWS_FORMAT)
        rows = home.pulled(_all_rows(snapshot))
        await asyncio.to_thread(_require_same, archive, image, rows)
    return difference


async def _all_rows(reader: Reader) -> AsyncIterator[list[Row]]:
    for table in sorted(TABLES, key=lambda table: table.tag):
        async for page in read_table(reader, table):
            yield page


def _require_same(archive: Archive, image: Image, rows: Iterator[Sequence[Row]]) -> None:
    """Raise Corrupt if the file does not have these rows."""
    written = chain.from_iterable(archive.rows(image))
    for row in chain.from_iterable(rows):
        if next(written, None) != row:
            archive.drop(image)
            raise Corrupt(f"archive file {image.name} does not have the rows that were written")
    if next(written, None) is not None:
        archive.drop(image)
        raise Corrupt(f"archive file {image.name} has more rows than were written")
