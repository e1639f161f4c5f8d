"""A broker is killed while it archives, again and again: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from silo.pb import silo_ext_pb2 as ext
from silo.pb.silo_ext_pb2_grpc import HistoryStub
from tests.crash.broker import WAIT_S, broker, run
from tests.crash.ledger import Ledger
from tests.crash.load import load_on

ROUNDS = 6
JOBS = 80


@pytest.mark.slow
def test_a_kill_while_a_shard_is_archived_loses_nothing(tmp_path):
    ledger, chance, data = Ledger(), random.Random(5), tmp_path / "data"
    logs: dict[str, list[tuple[int, str, str]]] = {}

    async def archive(history: HistoryStub, shard: str) -> ext.ArchiveReport:
        reports = history.ArchiveShard(ext.ArchiveShardRequest(shard=shard), timeout=WAIT_S)
        return [report async for report in reports][-1]

    async def events(history: HistoryStub, shard: str) -> list[tuple[int, str, str]]:
        batches = history.ReadEvents(ext.ReadEventsRequest(shard=shard), timeout=WAIT_S)
        return [(event.seq, event.type, event.job_id) async for batch in batches for event in batch.events]

    async def one_round(last: bool) -> None:
        with broker(data) as running:
            async with (
                load_on(running, ledger, chance) as load,
                grpc.aio.insecure_channel(running.address) as channel,
            ):
                history = HistoryStub(channel)
                for job in ledger.jobs.values():
                    ledger.check(
                        job, await load.client.call("GetJob", shard=job.shard, id=job.id, tenant=job.tenant)
                    )
                for owner in load.client.owners:
                    told = await events(history, owner.shard_id)
                    assert [seq for seq, _, _ in told] == list(range(1, len(told) + 1))
                    before = logs.get(owner.shard_id, [])
                    assert told[: len(before)] == before
                for _ in range(JOBS):
                    await load.enqueue()
                for owner in load.client.owners:
                    logs[owner.shard_id] = await events(history, owner.shard_id)
                work = [asyncio.create_task(archive(history, owner.shard_id)) for owner in load.client.owners]
                if last:
                    reports = await asyncio.gather(*work, return_exceptions=True)
                    assert not any(isinstance(report, Exception) for report in reports), running.said
                    for report, owner in zip(reports, load.client.owners, strict=True):
                        assert report.archived_seq >= len(logs[owner.shard_id])
                        assert report.image_seq == report.archived_seq
                    return
                await asyncio.wait(work, timeout=chance.uniform(0, 0.3))
                running.kill()
                await asyncio.wait(work, timeout=WAIT_S)
                for each in work:
                    each.exception() if not each.cancelled() else None

    for number in range(ROUNDS):
        run(one_round(last=number == ROUNDS - 1))
