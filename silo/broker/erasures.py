"""Carries out what was asked to be erased: the rows of a tenant's jobs, then the log behind them.

Each step can be done twice, so a crash in the middle only means that it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from silo.archive.database import ArchivedDatabase
from silo.errors import SiloError, Unavailable
from silo.events.erasing import erase_log, erased
from silo.projections.jobs import JOBS
from silo.shard.disk import decoded, key_of, read_table
from silo.shard.erase import Erasure, erase_rows, finish_erasure, next_erasure
from silo.shard.jobs import JobName
from silo.shard.shard import Shard

logger = logging.getLogger(__name__)

JOBS_PER_COMMAND = 200
LOOK_AGAIN_S = 0.5
RETRY_S = 1.0
RETRY_LATER_S = 600.0


async def run_erasures(shard: Shard) -> None:
    """Erase what is to be erased in one shard, until cancelled."""
    with shard.listening() as decided:
        while True:
            await decided.wait()
            decided.clear()
            try:
                while (erasure := await shard.execute(next_erasure, None)) is not None:
                    await carry_out(shard, erasure)
            except Unavailable:
                # The shard is opening again, or for good somebody else's.
                await asyncio.sleep(RETRY_S)
                decided.set()
                continue
            except SiloError as error:
                # A file of the archive that cannot be read, say.  What is asked for stays asked for.
                logger.warning("shard %s: erasing: %s", shard.shard_id, error)
                await asyncio.sleep(RETRY_LATER_S)
                decided.set()
                continue
            await asyncio.sleep(LOOK_AGAIN_S)


async def carry_out(shard: Shard, erasure: Erasure) -> None:
    """Erase the rows of a whole tenant, if that is asked for, then the log.  Raises what the shard and its store raise."""
    row = erasure.row
    if row.job_id is None:
        await _erase_tenant_rows(shard, erasure)
    # `silo verify` makes the rows of the checkpoint from the log: there must be none left that stands for what was there.
    await shard.checkpoint()
    count = await _erase_events(shard, erasure)
    await shard.execute(finish_erasure, erasure)
    about = f"job {row.job_id}" if row.job_id is not None else "all jobs"
    logger.info("shard %s: erased %s of tenant %s from %d events", shard.shard_id, about, row.tenant, count)


async def _erase_events(shard: Shard, erasure: Erasure) -> int:
    """Take the data out of the log, and of the archive.  Returns of how many events."""
    database, row = shard.database, erasure.row
    if not isinstance(database, ArchivedDatabase):
        async with shard.archive_lock:
            return await erase_log(database, before=erasure.seq, tenant=row.tenant, job_id=row.job_id)
    archive, change = database.archive, partial(erased, tenant=row.tenant, job_id=row.job_id)
    # Nobody makes a file of what was read before.
    async with shard.archive_lock:
        await asyncio.to_thread(archive.look)
        count = await erase_log(database.inner, before=erasure.seq, tenant=row.tenant, job_id=row.job_id)
        count = max(count, await asyncio.to_thread(archive.rewrite, change, erasure.seq))
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
