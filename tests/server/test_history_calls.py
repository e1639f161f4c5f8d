from __future__ import annotations

import asyncio

import pytest

from silo.pb import silo_ext_pb2 as ext
from silo.pb.silo_ext_pb2_grpc import HistoryStub
from silo.server import history_calls
from tests.server.running import running_node
from tests.serving import IN_S, run


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(history_calls, "REPORT_EVERY_S", 0.01)


def verify(node):
    return HistoryStub(node.channel).VerifyProjections(
        ext.VerifyProjectionsRequest(shard=node.shard), timeout=IN_S
    )


def test_who_makes_rows_anew_waits_for_its_turn_and_says_so(soon):
    async def story():
        async with running_node() as node:
            async with node.node.broker.turn:
                reports = aiter(verify(node))
                first = await anext(reports)
                assert (first.waiting, first.done) == (True, False)
            *_, last = [report async for report in reports]
            assert (last.waiting, last.done) == (False, True)

    run(story())


def test_who_goes_away_while_it_waits_takes_no_turn(soon):
    def waiting():
        return [task for task in asyncio.all_tasks() if task.get_name() == "rows made anew"]

    async def story():
        async with running_node() as node:
            async with node.node.broker.turn:
                reports = verify(node)
                assert (await reports.read()).waiting
                [work] = waiting()
                reports.cancel()
                await asyncio.wait([work])
                assert work.cancelled()
            *_, last = [report async for report in verify(node)]
            assert last.done

    run(story())
