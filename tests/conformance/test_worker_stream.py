"""silo.ext.v1.Workers over gRPC: tasks come when they are ready, and what a worker says is answered on the same stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import msgpack
import pytest

from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.pb.silo_ext_pb2_grpc import WorkersStub
from tests.server.running import RunningNode, running_node
from tests.serving import IN_S

OK = pb.SerializedBytes(msgpack=msgpack.packb("ok"))
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]


class Stream:
    """A worker's side of a stream."""

    def __init__(self, node: RunningNode) -> None:
        self.node = node
        self.call = WorkersStub(node.channel).Work(timeout=IN_S)

    async def say(self, **fields) -> None:
        await self.call.write(ext.FromWorker(**fields))

    async def begin(self, *, group: str = "g", worker: str = "w", **fields) -> None:
        await self.say(worker_id=worker, task_group=group, **{"credits": 10, **fields})

    async def hear(self) -> ext.ToWorker:
        return await self.call.read()

    async def tasks(self, count: int) -> list[pb.Task]:
        """The next so many tasks; nothing else comes before them."""
        found: list[pb.Task] = []
        while len(found) < count:
            message = await self.hear()
            assert not message.reports
            found += message.tasks
        return found

    async def succeed(self, task: pb.Task) -> None:
        report = pb.ReportOutcomeRequest(
            shard=task.shard, task_id=task.id, tenant_id=task.tenant_id, success=OK
        )
        await self.say(reports=[report])


@asynccontextmanager
async def stream_of(node: RunningNode, **fields) -> AsyncIterator[Stream]:
    stream = Stream(node)
    await stream.begin(**fields)
    try:
        yield stream
    finally:
        stream.call.cancel()


async def enqueue(node: RunningNode, job_id: str, *, group: str = "g", tenant: str | None = None, **fields):
    await node.call(
        "Enqueue",
        pb.EnqueueRequest(
            shard=node.shard_of(tenant or "-"), id=job_id, task_group=group, tenant=tenant, **fields
        ),
    )


async def status(node: RunningNode, job_id: str) -> int:
    return (await node.call("GetJob", pb.GetJobRequest(shard=node.shard, id=job_id))).status


def running(test):
    """Run an async test with a node of two shards, whose data is in memory."""

    async def with_node() -> None:
        async with running_node(shards=2) as node, asyncio.timeout(IN_S):
            await test(node)

    def run() -> None:
        asyncio.run(with_node())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@running
async def test_a_task_comes_when_its_job_is_enqueued_and_its_report_is_answered(node):
    async with stream_of(node) as stream:
        await enqueue(node, "a")
        [task] = await stream.tasks(1)
        assert (task.job_id, task.attempt_number) == ("a", 1)

        await stream.succeed(task)
        [reply] = (await stream.hear()).reports
        assert reply.task_id == task.id
        assert not reply.HasField("refusal")
        assert await status(node, "a") == pb.JOB_STATUS_SUCCEEDED


@running
async def test_no_more_tasks_come_than_there_are_credits(node):
    for number in range(5):
        await enqueue(node, f"job-{number}")
    async with stream_of(node, credits=2) as stream:
        first = await stream.tasks(2)
        await stream.say(credits=1)
        third = await stream.tasks(1)
        assert [task.job_id for task in first + third] == ["job-0", "job-1", "job-2"]
        waiting = await node.call(
            "LeaseTasks",
            pb.LeaseTasksRequest(shard=node.shard, worker_id="x", task_group="g", max_tasks=9),
        )
        assert [task.job_id for task in waiting.tasks] == ["job-3", "job-4"]


@running
async def test_a_cancellation_is_pushed_without_a_heartbeat(node):
    async with stream_of(node) as stream:
        await enqueue(node, "a")
        [task] = await stream.tasks(1)
        await node.call("CancelJob", pb.CancelJobRequest(shard=node.shard, id="a"))
        [news] = (await stream.hear()).heartbeats
        assert news.task_id == task.id
        assert news.heartbeat.cancelled
        asked = await node.call(
            "Heartbeat", pb.HeartbeatRequest(shard=node.shard, worker_id="w", task_id=task.id)
        )
        assert asked.cancelled_at_ms == news.heartbeat.cancelled_at_ms


@running
async def test_heartbeats_are_answered_as_in_calls_of_their_own(node):
    async with stream_of(node) as stream:
        await enqueue(node, "a")
        [task] = await stream.tasks(1)
        beats = [
            pb.HeartbeatRequest(shard=node.shard, worker_id="w", task_id=task.id),
            pb.HeartbeatRequest(shard=node.shard, worker_id="w", task_id="none"),
        ]
        await stream.say(heartbeats=beats)
        mine, lost = (await stream.hear()).heartbeats
        assert (mine.task_id, mine.heartbeat.cancelled) == (task.id, False)
        assert (lost.refusal.code, lost.refusal.message) == (NOT_FOUND, "lease not found")


@running
async def test_a_report_of_a_lease_that_is_gone_is_refused_and_the_stream_goes_on(node):
    async with stream_of(node) as stream:
        report = pb.ReportOutcomeRequest(shard=node.shard, task_id="none", success=OK)
        await stream.say(reports=[report])
        [reply] = (await stream.hear()).reports
        assert (reply.task_id, reply.refusal.code) == ("none", NOT_FOUND)
        await enqueue(node, "a")
        assert len(await stream.tasks(1)) == 1


@running
async def test_one_stream_gets_the_tasks_of_all_shards(node):
    tenants = {node.shard_of(f"t{number}"): f"t{number}" for number in range(50)}
    assert len(tenants) == 2
    # Without tenancy all jobs are in one shard, so the other one is asked directly and has nothing.
    async with stream_of(node) as stream:
        await enqueue(node, "a")
        assert [task.job_id for task in await stream.tasks(1)] == ["a"]
    other = next(shard for shard in tenants if shard != node.shard)
    async with stream_of(node, shard=other, worker="of the other") as stream:
        await enqueue(node, "b")
        await stream.say(heartbeats=[pb.HeartbeatRequest(shard=node.shard, task_id="x", worker_id="w")])
        heard = await stream.hear()
        assert not heard.tasks
        assert heard.heartbeats


@running
async def test_a_job_that_comes_due_is_pushed(node):
    async with stream_of(node) as stream:
        retry = pb.RetryPolicy(retry_count=1, initial_interval_ms=20, max_interval_ms=20, backoff_factor=1)
        await enqueue(node, "a", retry_policy=retry)
        [task] = await stream.tasks(1)
        failure = pb.Failure(code="NO", data=OK)
        await stream.say(
            reports=[pb.ReportOutcomeRequest(shard=task.shard, task_id=task.id, failure=failure)]
        )
        again: list[pb.Task] = []
        while not again:
            again += (await stream.hear()).tasks
        assert (again[0].job_id, again[0].relative_attempt_number) == ("a", 2)


@running
async def test_a_refresh_of_a_floating_limit_comes_on_the_stream_and_its_report_is_answered(node):
    limit = pb.Limit(
        floating_concurrency=pb.FloatingConcurrencyLimit(
            key="api", default_max_concurrency=1, refresh_interval_ms=1, metadata={"k": "v"}
        )
    )
    async with stream_of(node) as stream:
        await enqueue(node, "a", limits=[limit])
        await enqueue(node, "b", limits=[limit])
        refreshes: list[pb.RefreshFloatingLimitTask] = []
        while not refreshes:
            refreshes += (await stream.hear()).refresh_tasks
        [refresh] = refreshes
        assert (refresh.queue_key, dict(refresh.metadata)) == ("api", {"k": "v"})
        report = pb.ReportRefreshOutcomeRequest(
            shard=refresh.shard, task_id=refresh.id, success=pb.RefreshSuccess(new_max_concurrency=7)
        )
        await stream.say(refresh_reports=[report])
        replies: list[ext.ReportReply] = []
        while not replies:
            replies += (await stream.hear()).reports
        assert (replies[0].task_id, replies[0].HasField("refusal")) == (refresh.id, False)


@running
async def test_a_worker_that_closes_its_side_gets_its_answers_first(node):
    async with stream_of(node) as stream:
        await enqueue(node, "a")
        [task] = await stream.tasks(1)
        await stream.succeed(task)
        await stream.call.done_writing()
        heard: list[ext.ToWorker] = []
        while (message := await stream.hear()) is not grpc.aio.EOF:
            heard.append(message)
        assert [reply.task_id for message in heard for reply in message.reports] == [task.id]
        assert await stream.call.code() is grpc.StatusCode.OK


@running
async def test_what_is_leased_when_a_worker_closes_its_side_is_sent_all_the_same(node):
    for number in range(20):
        async with stream_of(node, worker=f"w{number}") as stream:
            await enqueue(node, f"job-{number}")
            await stream.call.done_writing()
            heard: list[pb.Task] = []
            while (message := await stream.hear()) is not grpc.aio.EOF:
                heard += message.tasks
        leases = pb.QueryRequest(shard=node.shard, sql=f"SELECT 1 FROM leases WHERE worker_id = 'w{number}'")
        assert (await node.call("Query", leases)).row_count == len(heard)


@running
async def test_a_server_that_stops_answers_what_it_was_told_and_sends_the_worker_away(node):
    async with stream_of(node) as stream:
        await enqueue(node, "a")
        [task] = await stream.tasks(1)
        await stream.succeed(task)
        [reply] = (await stream.hear()).reports
        assert not reply.HasField("refusal")
        node.node.broker.turn_away()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.hear()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the server is stopping; try again"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"group": ""}, "task_group is required"),
        ({"worker": ""}, "worker_id is required"),
        ({"shard": "x"}, "invalid shard id"),
    ],
)
def test_a_stream_that_does_not_say_who_asks_for_what_is_refused(fields, text):
    @running
    async def refused(node):
        async with stream_of(node, **fields) as stream:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.hear()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert text in (caught.value.details() or "").lower()

    refused()


@running
async def test_a_job_is_pushed_that_came_while_another_shard_had_taken_the_credits_for_nothing(node):
    [other] = [each for each in node.node.broker.shards if each.shard.shard_id != node.shard]
    asked, may_go_on = asyncio.Event(), asyncio.Event()
    execute = other.shard.execute

    async def held_up(*command, **options):
        asked.set()
        await may_go_on.wait()
        return await execute(*command, **options)

    other.shard.execute = held_up
    async with stream_of(node) as stream:
        await asked.wait()
        await enqueue(node, "a")
        may_go_on.set()
        [task] = await stream.tasks(1)
        assert task.job_id == "a"
