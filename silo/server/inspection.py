"""silo.ext.v1.Inspection: looks inside, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from silo.domain.limits import RateLimit
from silo.events.catalogue import RateChecked
from silo.pb import silo_ext_pb2 as ext
from silo.projections.jobs import JobRow, Place
from silo.server.explaining import explanation
from silo.server.interceptors import Context
from silo.server.shards import Shards
from silo.shard.conservation import Violations, check_conservation
from silo.shard.explain import Explanation, explain
from silo.shard.holders import Holder, holders_of
from silo.shard.jobs import JobName
from silo.shard.reading import get_counts
from silo.shard.shard import Shard

HOLDERS_TOLD_MAX = 10
REPORT_EVERY_S = 0.5

SERVICE = ext.DESCRIPTOR.services_by_name["Inspection"]


class Inspection:
    """The service."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    async def ExplainJob(self, request: ext.ExplainJobRequest, context: Context) -> ext.ExplainJobResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        told = await shard.execute(explain, JobName(tenant, request.id))
        holders = await _holders(shard, tenant, told)
        return explanation(request.id, told, holders, await _last_error(shard, told.row))

    async def CheckShard(
        self, request: ext.CheckShardRequest, context: Context
    ) -> AsyncIterator[ext.CheckShardReport]:
        shard = self.shards.open_here(request.shard)
        total = (await shard.execute(get_counts, "")).total
        check = _Check(shard)
        work = asyncio.create_task(check.run(), name=f"check {shard.shard_id}")
        try:
            while not (await asyncio.wait([work], timeout=REPORT_EVERY_S))[0]:
                yield ext.CheckShardReport(jobs=check.jobs, jobs_total=total)
        finally:
            # A caller that goes away ends the check.
            work.cancel()
            await asyncio.wait([work])
        yield ext.CheckShardReport(
            jobs=check.jobs, jobs_total=max(total, check.jobs), done=True, violations=work.result()
        )


class _Check:
    """One check under way; `jobs` is how many it has looked at."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.jobs = 0

    async def run(self) -> Violations:
        await self._shard.checkpoint()
        snapshot = await self._shard.database.snapshot()
        try:
            return await check_conservation(snapshot, progress=self._note)
        finally:
            snapshot.release()

    def _note(self, jobs: int) -> None:
        self.jobs = jobs


async def _holders(shard: Shard, tenant: str, told: Explanation) -> list[Holder]:
    """Who holds the slots that the job waits for."""
    gate = told.gate
    if gate is None or isinstance(gate.limit, RateLimit):
        return []
    return await holders_of(shard, tenant, gate.limit.key, most=HOLDERS_TOLD_MAX)


async def _last_error(shard: Shard, row: JobRow) -> str:
    """Why the last check of a rate limit had no answer; empty if it had."""
    if row.chain is None or row.chain.place is not Place.CHECKING:
        return ""
    events = await shard.log.history(row.last_seq, most=1)
    return events[-1].error if events and isinstance(events[-1], RateChecked) else ""
