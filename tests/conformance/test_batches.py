"""silo.ext.v1.Batches over gRPC: each item is answered as it would be in a call of its own."""

from __future__ import annotations

import grpc
import pytest

from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.pb.silo_ext_pb2_grpc import BatchesStub
from tests.conformance.client import LATER_MS, NIL, Refusal, Silo, data
from tests.serving import IN_S

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def batch(silo: Silo, rpc: str, request):
    return silo.nodes.run(_batch(silo, rpc, request))


async def _batch(silo: Silo, rpc: str, request):
    call = getattr(BatchesStub(silo.node.channel), rpc)
    try:
        return await call(request, timeout=IN_S)
    except grpc.aio.AioRpcError as error:
        return Refusal(error.code(), error.details() or "")


def job(silo: Silo, **but) -> pb.EnqueueRequest:
    return pb.EnqueueRequest(**silo.job_fields(**{"tenant": silo.tenant, **but}))


def enqueue(silo: Silo, *jobs: pb.EnqueueRequest, shard: str | None = None):
    where = shard or silo.node.shard_of(silo.tenant or "-")
    return batch(silo, "EnqueueBatch", ext.EnqueueBatchRequest(shard=where, jobs=jobs))


def told(result) -> object:
    """A result as one value: the refusal, or what was done."""
    if result.HasField("refusal"):
        return (result.refusal.code, result.refusal.message)
    return getattr(result, "id", None)


def code(status: grpc.StatusCode) -> int:
    return int(status.value[0])


# --- enqueue -------------------------------------------------------------------------------------------------------------


def test_jobs_of_a_batch_are_in_the_order_of_the_batch_and_with_the_ids_that_it_gives(silo):
    jobs = [job(silo), job(silo, id=""), job(silo, start_at_ms=LATER_MS)]
    results = enqueue(silo, *jobs).results

    assert [result.id for result in results][::2] == [jobs[0].id, jobs[2].id]
    assert results[1].id
    assert [task.job_id for task in silo.lease()] == [jobs[0].id, results[1].id]
    assert silo.job(jobs[2].id).status == pb.JOB_STATUS_SCHEDULED


def test_a_job_that_is_refused_takes_no_other_with_it(silo):
    good, twin = job(silo), job(silo)
    silo.enqueue(id=twin.id)
    refused = [
        (twin, grpc.StatusCode.ALREADY_EXISTS, f"job already exists with id {twin.id}"),
        (job(silo, task_group=""), INVALID, "task_group is required"),
        (job(silo, priority=100), INVALID, "priority must be between 0 and 99"),
        (
            job(silo, tenant="t"),
            grpc.StatusCode.FAILED_PRECONDITION,
            "tenant must not be provided when tenancy is disabled on the server",
        ),
        (good, grpc.StatusCode.ALREADY_EXISTS, f"job already exists with id {good.id}"),
    ]
    results = enqueue(silo, good, *(each for each, _, _ in refused)).results

    assert told(results[0]) == good.id
    assert [told(result) for result in results[1:]] == [(code(status), text) for _, status, text in refused]
    assert silo.has(good.id)


def test_limits_hold_within_a_batch(limited):
    one = [pb.Limit(concurrency=pb.ConcurrencyLimit(key="one", max_concurrency=1))]
    jobs = [job(limited, limits=one) for _ in range(3)]
    enqueue(limited, *jobs)

    for expected in jobs:
        task = limited.lease_one()
        assert task.job_id == expected.id
        limited.report(task, success=b"\x01")


def test_a_large_batch_is_one_commit(silo):
    jobs = [job(silo) for _ in range(600)]
    results = enqueue(silo, *jobs).results

    assert [result.id for result in results] == [each.id for each in jobs]
    assert len(silo.lease(max_tasks=1000)) == 600


def test_tenants_may_share_a_batch_if_they_share_its_shard(tenants):
    one, other, far = "tenant-a", "env-10", "tenant-b"
    here = tenants.node.shard_of(one)
    assert here == tenants.node.shard_of(other) != tenants.node.shard_of(far)
    results = enqueue(
        tenants, *(job(tenants, tenant=each, id="x") for each in (one, other, far)), shard=here
    ).results

    assert [told(result) for result in results[:2]] == ["x", "x"]
    status, text = told(results[2])
    assert status == code(grpc.StatusCode.FAILED_PRECONDITION)
    assert text.startswith("tenant 'tenant-b' is not within shard")


# --- reports and heartbeats ----------------------------------------------------------------------------------------------


def report(silo: Silo, task, **outcome) -> pb.ReportOutcomeRequest:
    return pb.ReportOutcomeRequest(**silo.report_fields(task, **outcome))


def test_outcomes_are_taken_together_and_each_by_itself(silo):
    for _ in range(3):
        silo.enqueue()
    first, second, third = silo.lease()
    reports = [
        report(silo, first, success=b"\x01"),
        report(silo, second, failure=("E", b"\x02")),
        report(silo, first, success=b"\x01"),
        pb.ReportOutcomeRequest(task_id=third.id),
        report(silo, third, cancelled=True),
    ]
    request = ext.ReportOutcomesRequest(shard=first.shard, reports=reports)
    results = batch(silo, "ReportOutcomes", request).results

    assert [told(result) for result in results] == [
        None,
        None,
        (code(NOT_FOUND), "lease not found"),
        (code(INVALID), "missing outcome"),
        None,
    ]
    assert [silo.job(task.job_id).status for task in (first, second, third)] == [
        pb.JOB_STATUS_SUCCEEDED,
        pb.JOB_STATUS_FAILED,
        pb.JOB_STATUS_CANCELLED,
    ]


def test_each_outcome_is_its_workers_in_the_log(silo):
    silo.enqueue()
    silo.enqueue()
    [one] = silo.lease(1, worker_id="ann")
    [other] = silo.lease(1, worker_id="bob")
    reports = [report(silo, task, success=b"\x01") for task in (one, other)]
    batch(silo, "ReportOutcomes", ext.ReportOutcomesRequest(shard=one.shard, reports=reports))

    sql = "SELECT actor FROM events WHERE type = 'AttemptSucceeded' AND task_id IN ($1, $2) ORDER BY seq"
    parameters = [pb.QueryParameter(string_value=task.id) for task in (one, other)]
    rows = silo.call("Query", sql=sql, parameters=parameters).rows
    assert [row.msgpack[-3:] for row in rows] == [b"ann", b"bob"]


def test_heartbeats_tell_of_cancellations_and_of_lost_leases(silo):
    kept, cancelled = silo.enqueue(), silo.enqueue()
    tasks = {task.job_id: task for task in silo.lease()}
    silo.call("CancelJob", id=cancelled)
    beats = [
        pb.HeartbeatRequest(task_id=tasks[kept].id, worker_id="w"),
        pb.HeartbeatRequest(task_id=tasks[cancelled].id, worker_id="w"),
        pb.HeartbeatRequest(task_id="nobody's", worker_id="w"),
        pb.HeartbeatRequest(task_id=tasks[kept].id, worker_id="somebody else"),
    ]
    results = batch(
        silo, "Heartbeats", ext.HeartbeatsRequest(shard=silo.node.shard, heartbeats=beats)
    ).results

    assert [result.heartbeat.cancelled for result in results[:2]] == [False, True]
    assert results[1].heartbeat.cancelled_at_ms > 0
    assert [told(result) for result in results[2:]] == [
        (code(NOT_FOUND), "lease not found"),
        (code(grpc.StatusCode.FAILED_PRECONDITION), "lease owner mismatch"),
    ]


# --- the call itself -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc", ["EnqueueBatch", "ReportOutcomes", "Heartbeats"])
def test_a_batch_without_its_shard_is_refused_as_any_call(silo, rpc):
    kind = getattr(ext, f"{rpc}Request")

    assert batch(silo, rpc, kind(shard="no uuid")) == (INVALID, "invalid shard ID: no uuid")
    assert batch(silo, rpc, kind(shard=NIL)) == (NOT_FOUND, "shard not found")
    assert not batch(silo, rpc, kind(shard=silo.node.shard)).results


def test_the_payload_is_the_one_of_the_item(silo):
    jobs = [job(silo, payload=data(bytes([0xA1, 65 + number]))) for number in range(3)]
    enqueue(silo, *jobs)

    assert [task.payload.msgpack for task in silo.lease()] == [b"\xa1A", b"\xa1B", b"\xa1C"]
