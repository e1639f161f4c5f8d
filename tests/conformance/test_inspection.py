"""silo.ext.v1.Inspection over gRPC."""

from __future__ import annotations

import grpc
import pytest

from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.server.inspection import SERVICE
from tests.conformance.client import LATER_MS, NIL, Silo, data


def slots(key: str, maximum: int) -> pb.Limit:
    return pb.Limit(concurrency=pb.ConcurrencyLimit(key=key, max_concurrency=maximum))


def floating(key: str, default: int) -> pb.Limit:
    return pb.Limit(
        floating_concurrency=pb.FloatingConcurrencyLimit(
            key=key, default_max_concurrency=default, refresh_interval_ms=60_000
        )
    )


def rate(key: str, **but) -> pb.Limit:
    usual = {"name": "calls", "unique_key": key, "limit": 1, "duration_ms": 60_000, "hits": 1}
    return pb.Limit(rate_limit=pb.GubernatorRateLimit(**usual | but))


def inspect(silo: Silo, rpc: str, request) -> list:
    """All replies of a call."""
    return silo.nodes.run(_inspect(silo, rpc, request))


async def _inspect(silo: Silo, rpc: str, request) -> list:
    method = SERVICE.methods_by_name[rpc]
    reply = getattr(ext, method.output_type.name)
    open_call = silo.node.channel.unary_stream if method.server_streaming else silo.node.channel.unary_unary
    call = open_call(f"/{SERVICE.full_name}/{rpc}", type(request).SerializeToString, reply.FromString)(
        request
    )
    return [one async for one in call] if method.server_streaming else [await call]


def explained(silo: Silo, job_id: str) -> ext.ExplainJobResponse:
    [reply] = inspect(silo, "ExplainJob", ext.ExplainJobRequest(shard=silo.node.shard, id=job_id))
    return reply


def test_a_job_that_waits_for_a_slot_is_told_behind_whom(silo):
    key = silo.group
    first, second, third = (silo.enqueue(limits=[slots(key, 1)]) for _ in range(3))
    [task] = silo.lease(worker_id="w-7")

    told = explained(silo, third)
    assert told.standing == ext.STANDING_WAITS_FOR_SLOT
    assert told.summary == f"1 of 1 slots of the queue '{key}' are held; 1 is before it"
    assert told.next.startswith("one of those who hold a slot has to end")
    assert not told.HasField("next_ms")
    assert (told.line.name, told.line.ahead, list(told.line.first)) == (key, 1, [second])
    assert [(holder.job_id, holder.worker_id) for holder in told.holders] == [(first, "w-7")]
    assert told.gates[0].state == ext.Gate.STATE_HERE
    assert (told.gates[0].maximum, told.gates[0].holders, told.gates[0].waiters) == (1, 1, 2)

    silo.report(task, success=b"")
    told = explained(silo, third)
    assert [(holder.job_id, holder.worker_id) for holder in told.holders] == [(second, "")]
    assert told.summary.endswith("nobody is before it")


def test_holders_are_told_also_after_a_checkpoint(silo):
    first, second = (silo.enqueue(limits=[slots(silo.group, 1)]) for _ in range(2))
    silo.call("FlushShard")

    assert [holder.job_id for holder in explained(silo, second).holders] == [first]


def test_a_maximum_of_nothing_says_what_could_raise_it(silo):
    fixed = silo.enqueue(limits=[slots(silo.group, 0)])
    assert explained(silo, fixed).next.startswith("nothing will by itself")

    floats = silo.enqueue(limits=[floating(f"{silo.group}-f", 0)])
    told = explained(silo, floats)
    assert "has a maximum of 0, which lets nobody in" in told.summary
    assert f"a worker has to ask for work of task group '{silo.group}'" in told.next

    silo.lease()
    assert "has to report it" in explained(silo, floats).next


def test_a_job_that_waits_for_a_rate_limit_is_told_when_it_goes_on(silo):
    silo.enqueue(limits=[rate(silo.group)])
    patient = silo.enqueue(limits=[rate(silo.group)])
    policy = pb.RateLimitRetryPolicy(
        initial_backoff_ms=50_000, max_backoff_ms=50_000, backoff_multiplier=1, max_retries=2
    )
    impatient = silo.enqueue(limits=[rate(silo.group, retry_policy=policy)])

    told = explained(silo, patient)
    assert told.standing == ext.STANDING_WAITS_FOR_RATE_LIMIT
    assert told.summary == f"the rate limit 'calls' of '{silo.group}' is used up; nobody is before it"
    assert told.next_ms > told.since_ms
    assert told.gates[0].remaining == 0

    told = explained(silo, impatient)
    assert told.standing == ext.STANDING_WAITS_FOR_RATE_LIMIT
    assert told.summary.endswith("asked once so far, and given up when it is refused 3 times")
    assert told.next_ms > told.since_ms


def test_a_job_that_could_run_needs_a_worker(silo):
    silo.enqueue()
    told = explained(silo, silo.enqueue())

    assert told.standing == ext.STANDING_READY
    assert (told.line.name, told.line.ahead) == (silo.group, 1)
    assert told.next == f"a worker has to ask for work of task group '{silo.group}' (LeaseTasks)"


def test_a_job_for_later_says_when(silo):
    told = explained(silo, silo.enqueue(start_at_ms=LATER_MS, limits=[slots(silo.group, 1)]))

    assert told.standing == ext.STANDING_WAITS_FOR_TIME
    assert told.next_ms == LATER_MS
    assert told.summary == "its first attempt is not to start before 2100-01-01 00:00:00.000 UTC"


def test_a_start_beyond_the_calendar_is_told_in_milliseconds(silo):
    told = explained(silo, silo.enqueue(start_at_ms=(1 << 63) - 1))

    assert told.summary.endswith(f"{(1 << 63) - 1} ms")


def test_a_running_job_says_who_has_it_and_an_ended_one_that_it_has_ended(silo):
    job_id = silo.enqueue()
    task = silo.lease_one(worker_id="w-9")
    silo.call("CancelJob", id=job_id)

    told = explained(silo, job_id)
    assert told.standing == ext.STANDING_RUNNING
    assert told.summary.startswith("worker 'w-9' runs attempt 1 of it since ")
    assert told.summary.endswith("and has been asked to stop")

    silo.report(task, cancelled=True)
    told = explained(silo, job_id)
    assert told.standing == ext.STANDING_ENDED
    assert told.summary.startswith("it was cancelled at ")
    assert "RestartJob" in told.next


def test_a_job_given_up_at_a_rate_limit_says_so(silo):
    limits = [rate(silo.group, hits=2, retry_policy=pb.RateLimitRetryPolicy(max_retries=1))]
    job_id = silo.enqueue(limits=limits)
    silo.wait_until(lambda: explained(silo, job_id).standing == ext.STANDING_ENDED)

    assert explained(silo, job_id).summary.endswith(", RATE_LIMIT_EXHAUSTED")
    result = silo.call("GetJobResult", id=job_id)
    assert result.failure.error_code == "RATE_LIMIT_EXHAUSTED"
    assert b"rate limit" in result.failure.error_data.msgpack


def test_no_such_job_and_no_such_shard_are_refused_as_everywhere(silo):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        explained(silo, "nobody")
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.NOT_FOUND, "job not found")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        inspect(silo, "ExplainJob", ext.ExplainJobRequest(shard=NIL, id="j"))
    assert refused.value.details() == "shard not found"


def test_a_live_shard_adds_up(silo):
    for number in range(20):
        silo.enqueue(limits=[slots(f"{silo.group}-{number % 3}", 2), rate(silo.group, limit=5)])
    silo.enqueue(payload=data(b"x" * 5_000), start_at_ms=LATER_MS)
    silo.lease(3)

    last = inspect(silo, "CheckShard", ext.CheckShardRequest(shard=silo.node.shard))[-1]
    assert last.done
    assert list(last.violations) == []
    assert last.jobs >= 21
    assert last.jobs == last.jobs_total


def test_a_shard_that_is_elsewhere_cannot_be_checked(silo):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        inspect(silo, "CheckShard", ext.CheckShardRequest(shard=NIL))
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.NOT_FOUND,
        f"shard {NIL} not found on this node",
    )
