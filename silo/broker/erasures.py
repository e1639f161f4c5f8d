"""Carries out what was asked to be erased: the rows of a tenant's jobs, then the log behind them.

Each step can be done twice, so a crash in the middle only means that it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from silo.archive.database import ArchivedDatabase
from silo.broker.archive_process import InChild
from silo.errors import SiloError, Unavailable
from silo.events.erasing import Target, Targets, erase_log
from silo.projections.jobs import JOBS
from silo.shard.disk import decoded, key_of, read_table
from silo.shard.erase import Erasure, erase_rows, finish_erasures, next_erasures
from silo.shard.jobs import JobName
from silo.shard.seal import Maker, erase_archive
from silo.shard.shard import Shard

logger = logging.getLogger(__name__)

JOBS_PER_COMMAND = 200
AT_ONCE = 100
"""So many requests are carried out together: the log and the archive are read once for all of them."""

LOOK_AGAIN_S = 0.5
RETRY_S = 1.0
RETRY_MOST_S = 60.0
"""After as many failures in a row; the wait doubles with each."""

RETRY_LATER_S = 600.0


async def run_erasures(shard: Shard) -> None:
    """Erase what is to be erased in one shard, until cancelled."""
    wait_s = RETRY_S
    with shard.listening() as decided:
        while True:
            await decided.wait()
            decided.clear()
            try:
                while erasures := await shard.execute(next_erasures, AT_ONCE):
                    await carry_out(shard, erasures)
            except Unavailable as error:
                # The shard is opening again, or for good somebody else's; or the archive cannot be reached.
                logger.info("shard %s: erasing: %s; it is tried again", shard.shard_id, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MOST_S)
                decided.set()
                continue
            except SiloError as error:
                # A file of the archive that cannot be read, say.  What is asked for stays asked for.
                logger.warning("shard %s: erasing: %s", shard.shard_id, error)
                await asyncio.sleep(RETRY_LATER_S)
                decided.set()
                continue
            wait_s = RETRY_S
            await asyncio.sleep(LOOK_AGAIN_S)


async def carry_out(shard: Shard, erasures: Sequence[Erasure], *, maker: Maker | None = None) -> None:
    """Erase the rows of whole tenants, if that is asked for, then the log.  Raises what the shard and its store raise.

    Args:
        maker: what writes the files of the archive anew; None: a process of its own.
    """
    for erasure in erasures:
        if erasure.row.job_id is None:
            await _erase_tenant_rows(shard, erasure)
    # `silo verify` makes the rows of the checkpoint from the log: there must be none left that stands for what was there.
    await shard.checkpoint()
    targets = Targets(Target(each.row.tenant, each.row.job_id, each.seq) for each in erasures)
    count = await _erase_events(shard, targets, maker or InChild())
    await shard.execute(finish_erasures, erasures)
    for erasure in erasures:
        row = erasure.row
        about = f"job {row.job_id}" if row.job_id is not None else "all jobs"
        logger.info("shard %s: erased %s of tenant %s", shard.shard_id, about, row.tenant)
    logger.info("shard %s: %d events carry less for it", shard.shard_id, count)


async def _erase_events(shard: Shard, targets: Targets, maker: Maker) -> int:
    """Take the data out of the log, and of the archive.  Returns of how many events."""
    database = shard.database
    if not isinstance(database, ArchivedDatabase):
        async with shard.archive_lock:
            return await erase_log(database, targets)
    archive = database.archive
    # Nobody makes a file of what was read before.
    async with shard.archive_lock:
        await asyncio.to_thread(archive.look)
        count = await erase_log(database.inner, targets)
        if any(stretch.first < targets.before for stretch in archive.stretches):
            count = max(count, await erase_archive(archive, targets, maker))
        # They have the data, too; the next one will not.
        for image in archive.images:
            await asyncio.to_thread(archive.drop, image)
    if count:
        # What the store keeps of the old records goes when its files are next merged.
        await database.flush()
        await database.compact()
    return count


async def _erase_tenant_rows(shard: Shard, erasure: Erasure) -> None:
    await shard.checkpoint()
    tenant = erasure.row.tenant
    snapshot = await shard.database.snapshot()
    try:
        async for page in read_table(snapshot, JOBS, (tenant,), rows=JOBS_PER_COMMAND):
            names = []
            for raw_key, raw in page:
                key = key_of(raw_key)
                job = decoded(JOBS, key, raw)
                name = JobName(tenant, str(key[1]))
                if job.enqueued_ms < erasure.row.time_ms or (
                    job.enqueued_ms == erasure.row.time_ms
                    and await _came_before(shard, job.last_seq, erasure)
                ):
                    names.append(name)
            await shard.execute(erase_rows, names)
    finally:
        snapshot.release()


async def _came_before(shard: Shard, last_seq: int, erasure: Erasure) -> bool:
    """Whether a job that arrived in the same millisecond did so before the request."""
    return (await shard.log.history(last_seq))[0].seq < erasure.seq
