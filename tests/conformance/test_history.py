"""silo.ext.v1.History over gRPC."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from silo.pb import silo_ext_pb2 as ext
from silo.pb.silo_ext_pb2_grpc import HistoryStub
from tests.conformance.client import NIL, Refusal, Silo, data
from tests.serving import IN_S

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def read(silo: Silo, **fields) -> list[ext.EventBatch] | Refusal:
    async def go():
        request = ext.ReadEventsRequest(**{"shard": silo.node.shard_of(silo.tenant or "-"), **fields})
        try:
            return [batch async for batch in HistoryStub(silo.node.channel).ReadEvents(request, timeout=IN_S)]
        except grpc.aio.AioRpcError as error:
            return Refusal(error.code(), error.details() or "")

    return silo.nodes.run(go())


def events(silo: Silo, **fields) -> list[ext.Event]:
    return [event for batch in read(silo, **fields) for event in batch.events]


def life(silo: Silo, request: ext.GetJobHistoryRequest) -> list[ext.Event]:
    async def go():
        return await HistoryStub(silo.node.channel).GetJobHistory(request, timeout=IN_S)

    return list(silo.nodes.run(go()).events)


def test_a_job_s_life_is_told_with_who_did_what(limited):
    job_id = limited.enqueue(payload=data(b"\x81\xa1n\x05"))
    task = limited.lease_one(worker_id="ann")
    limited.report(task, failure=("E", b"\x91\x01"))
    request = ext.GetJobHistoryRequest(shard=task.shard, id=job_id, tenant=limited.tenant)
    told = life(limited, request)

    assert [event.type for event in told] == [
        "JobEnqueued",
        "ChainStarted",
        "TaskLeased",
        "AttemptFailed",
        "JobFailed",
    ]
    enqueued, _, leased, failed, _ = told
    assert (enqueued.method, enqueued.job_id, enqueued.tenant) == ("Enqueue", job_id, limited.tenant)
    assert json.loads(enqueued.data)["payload"] == {"n": 5}
    assert (leased.worker_id, leased.actor, leased.task_id, leased.attempt) == ("ann", "ann", task.id, 1)
    assert json.loads(failed.data) == {"error_code": "E", "error_data": [1]}
    request.most = 2
    newest = life(limited, request)
    assert [event.type for event in newest] == ["AttemptFailed", "JobFailed"]


def test_the_log_is_read_from_where_to_where_one_likes(limited):
    for _ in range(3):
        limited.enqueue()
    everything = events(limited)
    assert [event.seq for event in everything] == list(range(1, len(everything) + 1))
    assert everything[0].type == "ShardCreated"

    some = events(limited, from_seq=3, to_seq=5)
    assert [event.seq for event in some] == [3, 4, 5]
    assert read(limited, from_seq=3, to_seq=5)[-1].seq == 5
    assert read(limited)[-1].seq == len(everything)
    assert events(limited, from_seq=len(everything) + 1) == []


def test_only_what_is_asked_for_is_told(limited):
    first, second = limited.enqueue(), limited.enqueue()
    mine = events(limited, filter=ext.EventFilter(tenant=limited.tenant))
    assert {event.job_id for event in mine} == {first, second}
    one = events(
        limited, filter=ext.EventFilter(tenant=limited.tenant, job_id=second, types=["ChainStarted"])
    )
    assert [(event.type, event.job_id) for event in one] == [("ChainStarted", second)]
    assert events(limited, filter=ext.EventFilter(tenant="nobody")) == []


def test_a_subscriber_is_told_what_was_and_then_what_comes(limited):
    first = limited.enqueue()
    wanted = ext.EventFilter(tenant=limited.tenant, types=["JobEnqueued"])
    request = ext.SubscribeRequest(shard=limited.node.shard_of(limited.tenant), from_seq=1, filter=wanted)

    async def story() -> list[str]:
        told: list[str] = []
        call = HistoryStub(limited.node.channel).Subscribe(request, timeout=IN_S)
        async for batch in call:
            told += [event.job_id for event in batch.events]
            if told == [first]:
                told.append("now")
                await limited._send(
                    "Enqueue", limited.request("Enqueue", **limited.job_fields(id="second")), ()
                )
            if "second" in told:
                call.cancel()
                return told
        return told

    assert limited.nodes.run(story()) == [first, "now", "second"]


def test_a_subscriber_may_want_only_what_comes(limited):
    limited.enqueue()
    wanted = ext.EventFilter(tenant=limited.tenant, types=["JobEnqueued"])
    request = ext.SubscribeRequest(shard=limited.node.shard_of(limited.tenant), filter=wanted)

    async def story() -> list[str]:
        call = HistoryStub(limited.node.channel).Subscribe(request, timeout=IN_S)
        here = await call.read()
        assert not here.events
        await limited._send("Enqueue", limited.request("Enqueue", **limited.job_fields(id="later")), ())
        async with asyncio.timeout(IN_S):
            while not (batch := await call.read()).events:
                assert batch.seq >= here.seq
        call.cancel()
        return [event.job_id for event in batch.events]

    assert limited.nodes.run(story()) == ["later"]


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"shard": "no uuid"}, (INVALID, "invalid shard ID: no uuid")),
        ({"shard": NIL}, (grpc.StatusCode.NOT_FOUND, "shard not found")),
        (
            {"filter": ext.EventFilter(types=["JobLost"])},
            (INVALID, "there is no type of event called JobLost; docs/events.md has them all"),
        ),
    ],
)
def test_what_cannot_be_read_is_named(silo, fields, refusal):
    assert read(silo, **fields) == refusal
