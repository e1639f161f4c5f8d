"""silo.ext.v1.History over gRPC."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from silo.events import codec
from silo.events.catalogue import ERASED, JobEnqueued
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


def test_who_replays_events_gets_them_as_the_log_has_them_without_what_jobs_carried(limited):
    job_id = limited.enqueue(payload=data(b"\xa6secret"), priority=7)
    told = events(limited, as_records=True)
    [enqueued] = [
        event
        for part in told
        for event in codec.decode(part.seq, part.record)
        if isinstance(event, JobEnqueued) and event.job_id == job_id
    ]
    assert (enqueued.spec.priority, enqueued.payload, enqueued.method) == (7, ERASED, "Enqueue")
    assert [event.seq for event in told] == [event.seq for event in events(limited)]


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


def call(silo: Silo, rpc: str, **fields):
    """The reply of a call of this service, the last one if it streams them; or its refusal."""

    async def go():
        shard = silo.node.shard_of(silo.tenant or "-")
        request = getattr(ext, f"{rpc}Request")(**{"shard": shard, **fields})
        reply = getattr(HistoryStub(silo.node.channel), rpc)(request, timeout=IN_S)
        try:
            return [part async for part in reply][-1] if hasattr(reply, "__aiter__") else await reply
        except grpc.aio.AioRpcError as error:
            return Refusal(error.code(), error.details() or "")

    return silo.nodes.run(go())


def first_batch(silo: Silo, **fields) -> ext.EventBatch:
    """Where a subscriber begins."""

    async def go():
        request = ext.SubscribeRequest(shard=silo.node.shard_of(silo.tenant or "-"), **fields)
        reply = HistoryStub(silo.node.channel).Subscribe(request, timeout=IN_S)
        batch = await reply.read()
        reply.cancel()
        return batch

    return silo.nodes.run(go())


def cursor(silo: Silo, name: str) -> ext.Cursor | None:
    listed = call(silo, "ListCursors").cursors
    return next((cursor for cursor in listed if cursor.name == name), None)


def test_a_cursor_stands_where_it_was_put_until_it_is_deleted(limited):
    name = limited.tenant
    limited.enqueue()
    last = read(limited)[-1].seq
    assert first_batch(limited, cursor=name).seq == last
    call(limited, "MoveCursor", name=name, seq=3)
    assert first_batch(limited, cursor=name).seq == 3
    assert first_batch(limited, cursor=name, from_seq=2).seq == 1
    here = cursor(limited, name)
    # The log has the move, too.
    assert (here.seq, here.behind) == (3, last + 1 - 3)

    call(limited, "MoveCursor", name=name, seq=0)
    assert first_batch(limited, cursor=name).seq == 0
    call(limited, "DeleteCursor", name=name)
    assert cursor(limited, name) is None
    assert call(limited, "DeleteCursor", name=name) == (
        grpc.StatusCode.NOT_FOUND,
        f"there is no cursor called {name}",
    )


def test_who_reads_is_not_told_of_the_moves_of_cursors_unless_he_asks(limited):
    call(limited, "MoveCursor", name=limited.tenant, seq=1)
    assert "CursorMoved" not in {event.type for event in events(limited)}
    moves = events(limited, filter=ext.EventFilter(types=["CursorMoved"]))
    assert json.loads(moves[-1].data) == {"name": limited.tenant, "done_seq": 1}


def test_a_cursor_that_cannot_be_is_refused(limited):
    refused = call(limited, "MoveCursor", name="x", seq=1 << 40)
    assert refused.code is INVALID
    assert refused.details.startswith("a cursor of this shard stands between 0 and ")
    name = (INVALID, "a cursor's name has 1 to 128 characters")
    assert call(limited, "MoveCursor", name="", seq=1) == name
    assert call(limited, "DeleteCursor", name="x" * 129) == name


def test_what_a_job_carried_is_erased(limited):
    job_id = limited.enqueue(payload=data(b"\xa6secret"))
    refused = call(limited, "Erase", tenant=limited.tenant, id=job_id)
    assert refused == (
        grpc.StatusCode.FAILED_PRECONDITION,
        f"cannot erase job {job_id}: job is still in progress; cancel it first (status: Scheduled)",
    )
    limited.report(limited.lease_one(), success=b"\xa6secret")
    asked = call(limited, "Erase", tenant=limited.tenant, id=job_id)
    assert limited.call("GetJob", id=job_id).payload == data(b"\xc0")

    wanted = ext.EventFilter(tenant=limited.tenant, types=["ErasureFinished"])
    finished = following(limited, asked.seq, wanted)
    assert json.loads(finished.data)["requested_seq"] == asked.seq
    mine = events(limited, filter=ext.EventFilter(tenant=limited.tenant))
    assert b"secret" not in b"".join(event.SerializeToString() for event in mine)


def test_what_a_tenant_s_jobs_carried_is_erased(limited):
    job_id = limited.enqueue(payload=data(b"\xa6secret"))
    refused = call(limited, "Erase", tenant=limited.tenant, all_jobs=True)
    assert refused.details.startswith(f"cannot erase tenant {limited.tenant}: 1 of its jobs have not ended")
    limited.report(limited.lease_one(), success=b"\xa6secret")
    asked = call(limited, "Erase", tenant=limited.tenant, all_jobs=True)
    following(limited, asked.seq, ext.EventFilter(tenant=limited.tenant, types=["ErasureFinished"]))
    assert limited.call("GetJob", id=job_id).payload == data(b"\xc0")
    mine = events(limited, filter=ext.EventFilter(tenant=limited.tenant))
    assert b"secret" not in b"".join(event.SerializeToString() for event in mine)


def following(silo: Silo, seq: int, wanted: ext.EventFilter) -> ext.Event:
    """The first such event from there on, as soon as there is one."""

    async def go():
        shard = silo.node.shard_of(silo.tenant or "-")
        request = ext.SubscribeRequest(shard=shard, from_seq=seq, filter=wanted)
        reply = HistoryStub(silo.node.channel).Subscribe(request, timeout=IN_S)
        async for batch in reply:
            if batch.events:
                reply.cancel()
                return batch.events[0]
        raise AssertionError("no such event")

    return silo.nodes.run(go())


@pytest.mark.parametrize("fields", [{"id": "x", "all_jobs": True}, {}])
def test_it_must_be_said_what_to_erase(limited, fields):
    text = "say which job by its id, or set all_jobs for all of the tenant's, and not both"
    assert call(limited, "Erase", tenant=limited.tenant, **fields) == (INVALID, text)


def test_a_shard_is_verified_and_rebuilt_while_it_serves(limited):
    limited.enqueue()
    verified = call(limited, "VerifyProjections")
    assert verified.done
    assert verified.seq == verified.seq_total >= 3
    assert verified.difference == ""

    rebuilt = call(limited, "RebuildProjections", projections=["jobs", "counters"])
    assert rebuilt.done
    assert (rebuilt.rows_changed, rebuilt.difference) == (0, "")
    limited.enqueue()


def test_a_projection_that_there_is_not_is_named(limited):
    refused = call(limited, "RebuildProjections", projections=["indexes"])
    assert refused.code is INVALID
    assert refused.details.startswith("there is no projection called indexes; there are jobs, attempts,")


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
