"""Keeps a shard's archive: seals what is new, cuts the log where it is old.

    seal    all events that the archive does not have yet, and, once a day, an image of the rows, if the log gives them
    cut     the log up to an image that is older than the retention: first an event says so, then the records go
    thin    images that nobody needs

Each step can be done twice, so a crash between two of them only means that it begins anew.
"""

from __future__ import annotations

import asyncio
import logging

import attrs

from silo.archive.archive import Archive
from silo.archive.database import ArchivedDatabase
from silo.archive.files import Image
from silo.broker.archive_process import InChild
from silo.errors import Corrupt, ShardNotReady, SiloError
from silo.events import codec
from silo.shard.beside import Progress
from silo.shard.checkpoint import read_note
from silo.shard.cut import cut_log, last_cut
from silo.shard.seal import EVENTS_PER_FILE, Maker, seal_events, seal_rows
from silo.shard.shard import Shard

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
LOOK_EVERY_S = 60.0
RETRY_S = 1_800.0
"""After a failure, as it may take many minutes to find out that nothing has changed."""

EVENTS_WORTH_AN_IMAGE = 1_000
"""A shard in which less than that has happened since the last image needs no other."""

IMAGES_KEPT = 6
"""About so many, spread over the time since the log was cut."""


@attrs.frozen
class Sealed:
    """What the archive and the log have.

    Attributes:
        last_seq: the archive has all events up to this one.
        image_seq: of its newest image; 0: it has none.
        live_seq: where the log begins.
    """

    last_seq: int
    image_seq: int
    live_seq: int


async def run_archive(shard: Shard, retention_ms: int | None, turn: asyncio.Lock) -> None:
    """Keep the archive of one shard, until cancelled.  A shard in memory has none.

    Args:
        turn: of those who make rows anew, which is much work: one at a time does that.
    """
    while True:
        wait_s = LOOK_EVERY_S
        try:
            database = shard.database
            if not isinstance(database, ArchivedDatabase):
                return
            if await is_due(shard, database.archive):
                async with turn:
                    await keep_archive(shard, retention_ms)
        except ShardNotReady:
            # It is opening.
            pass
        except SiloError as error:
            # What is not archived now stays in the log, and is archived later.
            logger.warning("shard %s: the archive: %s", shard.shard_id, error)
            wait_s = RETRY_S
        await asyncio.sleep(wait_s)


async def is_due(shard: Shard, archive: Archive) -> bool:
    """Whether there is something to be sealed."""
    if shard.log.durable_seq - archive.last_seq >= EVENTS_PER_FILE:
        return True
    return await _image_is_due(shard, archive)


async def _image_is_due(shard: Shard, archive: Archive) -> bool:
    """A day after the last one; the first, a day after the shard was made."""
    newest = archive.images[-1] if archive.images else Image(0, await _made_ms(shard))
    enough = shard.log.durable_seq - newest.seq >= EVENTS_WORTH_AN_IMAGE
    return enough and shard.now_ms() - newest.time_ms >= DAY_MS


async def _made_ms(shard: Shard) -> int:
    """When the shard was made."""
    async for events in shard.log.read(1, end=2):
        return events[0].time_ms
    return shard.now_ms()


async def keep_archive(
    shard: Shard,
    retention_ms: int | None,
    *,
    progress: Progress | None = None,
    image: bool | None = None,
    maker: Maker | None = None,
) -> Sealed:
    """Seal, cut and thin once.

    Args:
        retention_ms: how long events stay in the log at least; None: for ever.
        image: whether an image is made; None: if it is due.
        maker: what makes the files; None: a process of its own for each.

    Raises:
        Corrupt: the rows are not those that the log gives, or a file cannot be read; the log is not cut.
        StoreFailed: as it says.
    """
    database = shard.database
    assert isinstance(database, ArchivedDatabase)
    archive, maker, progress = database.archive, maker or InChild(), progress or Progress()

    def check() -> None:
        database.check()
        if shard.database is not database:
            raise ShardNotReady(f"shard {shard.shard_id} was opened anew meanwhile")

    async with shard.archive_lock:
        check()
        await asyncio.to_thread(archive.look)
        await shard.checkpoint()
        snapshot = await database.snapshot()
        try:
            note = await read_note(snapshot)
            await seal_events(archive, snapshot, note.seq, progress, maker, check)
            image_seq = archive.images[-1].seq if archive.images else 0
            if image is None:
                image = await _image_is_due(shard, archive)
            if image and image_seq < note.seq:
                difference = await seal_rows(archive, snapshot, progress, maker, check)
                if difference is not None:
                    raise Corrupt(
                        "no image is made, and the log not cut, as the rows are not those that the log gives: "
                        f"{difference}; `siloctl shard rebuild {shard.shard_id}` puts that right"
                    )
        finally:
            snapshot.release()
        await _cut(shard, database, retention_ms)
        await _thin(shard, archive)
        image_seq = archive.images[-1].seq if archive.images else 0
        return Sealed(archive.last_seq, image_seq, database.live_seq)


async def _cut(shard: Shard, database: ArchivedDatabase, retention_ms: int | None) -> None:
    archive = database.archive
    if retention_ms is not None and archive.images:
        old = await asyncio.to_thread(_last_before, archive, shard.now_ms() - retention_ms)
        # An image of the rows is there that the log leads on from.
        if old and old <= archive.images[-1].seq:
            await shard.execute(cut_log, old)
    # Also what an earlier broker has begun.
    upto_seq = await shard.execute(last_cut, None)
    if upto_seq and (deleted := await database.cut(upto_seq)):
        logger.info(
            "shard %s: the log begins with event %d now; %d records are in the archive alone",
            shard.shard_id,
            database.live_seq,
            deleted,
        )


def _last_before(archive: Archive, time_ms: int) -> int:
    """The last event of the files of which all events are as old; 0: there are none."""
    last_seq = 0
    for stretch in archive.stretches:
        record = archive.record(stretch.last)
        if record is None or codec.decode(stretch.last, record[1])[0].time_ms > time_ms:
            break
        last_seq = stretch.last
    return last_seq


async def _thin(shard: Shard, archive: Archive) -> None:
    """Keep the image at which the log was cut, the newest, and some in between."""
    cut_seq = await shard.execute(last_cut, None)
    usable = [image for image in archive.images if image.seq >= cut_seq]
    apart_ms = (usable[-1].time_ms - usable[0].time_ms) // IMAGES_KEPT if usable else 0
    kept_ms: int | None = None
    for image in archive.images[:-1]:
        if image.seq < cut_seq or (kept_ms is not None and image.time_ms - kept_ms < apart_ms):
            await asyncio.to_thread(archive.drop, image)
        else:
            kept_ms = image.time_ms
