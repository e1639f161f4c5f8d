"""A job as its owner sees it: what was enqueued, where it stands, and how it ended."""

from __future__ import annotations

import time

import grpc
import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import LATER_MS, data, is_data

SCHEDULED, RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    pb.JOB_STATUS_SCHEDULED,
    pb.JOB_STATUS_RUNNING,
    pb.JOB_STATUS_SUCCEEDED,
    pb.JOB_STATUS_FAILED,
    pb.JOB_STATUS_CANCELLED,
)
WRONG_STATE = StatusCode.FAILED_PRECONDITION
TRY_AGAIN_LATER = pb.RetryPolicy(
    retry_count=3, initial_interval_ms=3_600_000, max_interval_ms=36_000_000, backoff_factor=2
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- Enqueue and GetJob ----------------------------------------------------------------------------------------------


def test_a_job_is_told_as_it_was_enqueued(silo):
    policy = pb.RetryPolicy(
        retry_count=7, initial_interval_ms=-3, max_interval_ms=9, randomize_interval=True, backoff_factor=0.5
    )
    metadata = {"z": "1", "a": "", "": "日本"}
    before_ms = now_ms()
    job_id = silo.enqueue(
        priority=99, start_at_ms=LATER_MS, retry_policy=policy, payload=data(b"\xa1p"), metadata=metadata
    )
    job = silo.call("GetJob", id=job_id)

    assert (job.id, job.priority, job.task_group) == (job_id, 99, silo.group)
    assert (job.retry_policy, dict(job.metadata), list(job.limits)) == (policy, metadata, [])
    assert is_data(job.payload, b"\xa1p")
    assert job.status == SCHEDULED
    assert before_ms <= job.status_changed_at_ms <= now_ms()
    assert job.enqueue_time_ms == job.next_attempt_starts_after_ms == LATER_MS
    assert not job.HasField("result")


def test_no_retry_policy_stays_none_and_an_empty_one_stays_empty(silo):
    assert not silo.job(silo.enqueue()).HasField("retry_policy")
    assert silo.job(silo.enqueue(retry_policy=pb.RetryPolicy())).HasField("retry_policy")


@pytest.mark.parametrize("start_at_ms", [0, -1, -(2**63)])
def test_a_start_of_zero_or_less_means_now_and_is_told_as_it_was_sent(silo, start_at_ms):
    before_ms = now_ms()
    job = silo.job(silo.enqueue(start_at_ms=start_at_ms))

    assert job.enqueue_time_ms == start_at_ms
    assert before_ms <= job.next_attempt_starts_after_ms <= now_ms()


def test_a_start_in_the_past_is_kept(silo):
    job = silo.job(silo.enqueue(start_at_ms=1))

    assert job.enqueue_time_ms == job.next_attempt_starts_after_ms == 1


def test_attempts_are_told_only_to_whom_asks(silo):
    job_id = silo.enqueue()
    task = silo.lease_one()

    assert list(silo.call("GetJob", id=job_id).attempts) == []
    assert [attempt.task_id for attempt in silo.job(job_id).attempts] == [task.id]


def test_a_job_that_nobody_leased_has_no_attempts(silo):
    assert list(silo.job(silo.enqueue()).attempts) == []


def test_a_running_job_has_no_next_start_and_an_attempt_without_an_end(silo):
    # A172
    job_id = silo.enqueue()
    before_ms = now_ms()
    task = silo.lease_one()
    job = silo.job(job_id)
    [attempt] = job.attempts

    assert job.status == RUNNING
    assert not job.HasField("next_attempt_starts_after_ms")
    assert not job.HasField("result")
    assert before_ms <= job.status_changed_at_ms == attempt.started_at_ms <= now_ms()
    assert attempt == pb.JobAttempt(
        job_id=job_id,
        attempt_number=1,
        task_id=task.id,
        status=pb.ATTEMPT_STATUS_RUNNING,
        started_at_ms=attempt.started_at_ms,
    )


@pytest.mark.parametrize(
    ("outcome", "status", "fields"),
    [
        pytest.param(
            {"success": b"\x01"}, pb.ATTEMPT_STATUS_SUCCEEDED, {"result": data(b"\x01")}, id="success"
        ),
        pytest.param(
            {"failure": ("E", b"\x02")},
            pb.ATTEMPT_STATUS_FAILED,
            {"error_code": "E", "error_data": data(b"\x02")},
            id="failure",
        ),
        pytest.param({"cancelled": True}, pb.ATTEMPT_STATUS_CANCELLED, {}, id="cancelled"),
    ],
)
def test_an_attempt_that_ended_tells_how_and_nothing_else(silo, outcome, status, fields):
    job_id = silo.enqueue()
    task = silo.lease_one()
    silo.report(task, **outcome)
    job = silo.job(job_id)
    [attempt] = job.attempts

    assert attempt == pb.JobAttempt(
        job_id=job_id,
        attempt_number=1,
        task_id=task.id,
        status=status,
        started_at_ms=attempt.started_at_ms,
        finished_at_ms=attempt.finished_at_ms,
        **fields,
    )
    assert attempt.started_at_ms <= attempt.finished_at_ms == job.status_changed_at_ms
    assert not job.HasField("next_attempt_starts_after_ms")
    assert job.HasField("result") == ("success" in outcome)


def test_the_result_of_a_job_is_that_of_its_last_attempt_with_attempts_and_without(silo):
    job_id = silo.enqueue(retry_policy=pb.RetryPolicy(retry_count=1))
    silo.report(silo.lease_one(), failure=("E", b"\x05"))
    silo.report(silo.lease_one(), success=b"\x06")

    assert is_data(silo.call("GetJob", id=job_id).result, b"\x06")
    assert is_data(silo.job(job_id).result, b"\x06")


@pytest.mark.parametrize("state", ["scheduled", "running", "succeeded", "failed", "cancelled"])
def test_an_id_is_taken_in_every_state_and_its_job_stays_as_it_is(silo, state):
    job_id = silo.enqueue(priority=3)
    if state == "cancelled":
        silo.call("CancelJob", id=job_id)
    elif state != "scheduled":
        task = silo.lease_one()
        if state != "running":
            silo.report(task, **({"success": b""} if state == "succeeded" else {"failure": ("E", b"")}))
    before = silo.job(job_id)
    refusal = silo.refusal("Enqueue", **silo.job_fields(id=job_id, priority=4))

    assert refusal == (StatusCode.ALREADY_EXISTS, f"job already exists with id {job_id}")
    assert silo.job(job_id) == before


# --- GetJobResult ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc", ["GetJob", "GetJobResult", "CancelJob", "RestartJob", "ExpediteJob"])
def test_a_job_that_does_not_exist_is_not_found(silo, rpc):
    assert silo.refusal(rpc, id="no such job") == (StatusCode.NOT_FOUND, "job not found")


def test_a_job_that_has_not_ended_has_no_result(silo):
    job_id = silo.enqueue()
    assert silo.refusal("GetJobResult", id=job_id) == (
        WRONG_STATE,
        "job is not complete: status is Scheduled",
    )

    silo.lease_one()
    assert silo.refusal("GetJobResult", id=job_id) == (WRONG_STATE, "job is not complete: status is Running")


def result_of(silo, job_id):
    result = silo.call("GetJobResult", id=job_id)
    assert result.id == job_id
    return result


def test_the_result_of_a_success(silo):
    job_id = silo.enqueue()
    silo.report(silo.lease_one(), success=b"\xa2ok")
    result = result_of(silo, job_id)

    assert (result.status, result.WhichOneof("result")) == (SUCCEEDED, "success_data")
    assert result.finished_at_ms == silo.job(job_id).attempts[0].finished_at_ms
    assert is_data(result.success_data, b"\xa2ok")


def test_the_result_of_a_failure(silo):
    job_id = silo.enqueue()
    silo.report(silo.lease_one(), failure=("NO_LUCK", b"\xa1x"))
    result = result_of(silo, job_id)

    assert (result.status, result.WhichOneof("result")) == (FAILED, "failure")
    assert result.finished_at_ms == silo.job(job_id).attempts[0].finished_at_ms
    assert result.failure.error_code == "NO_LUCK"
    assert is_data(result.failure.error_data, b"\xa1x")


def expect_cancelled(silo, job_id, at_ms):
    result = result_of(silo, job_id)

    assert (result.status, result.WhichOneof("result")) == (CANCELLED, "cancelled")
    assert result.cancelled.cancelled_at_ms == result.finished_at_ms == at_ms


def test_the_result_of_a_job_cancelled_before_any_start(silo):
    job_id = silo.enqueue()
    silo.call("CancelJob", id=job_id)

    expect_cancelled(silo, job_id, silo.job(job_id).status_changed_at_ms)


def test_the_result_of_a_job_cancelled_by_its_worker(silo):
    job_id = silo.enqueue()
    silo.report(silo.lease_one(), cancelled=True)

    expect_cancelled(silo, job_id, silo.job(job_id).attempts[0].finished_at_ms)


def test_the_result_of_a_job_cancelled_while_it_waited_for_its_next_try_is_that_it_was_cancelled(silo):
    job_id = silo.enqueue(retry_policy=TRY_AGAIN_LATER)
    silo.report(silo.lease_one(), failure=("E", b""))
    silo.call("CancelJob", id=job_id)
    job = silo.job(job_id)

    assert (job.status, job.attempts[0].status) == (CANCELLED, pb.ATTEMPT_STATUS_FAILED)
    expect_cancelled(silo, job_id, job.status_changed_at_ms)


def test_a_failure_after_its_cancellation_was_requested_ends_a_job_as_cancelled_though_tries_are_left(silo):
    job_id = silo.enqueue(retry_policy=TRY_AGAIN_LATER)
    task = silo.lease_one()
    silo.call("CancelJob", id=job_id)
    silo.report(task, failure=("E", b"\x07"))
    job = silo.job(job_id)
    [attempt] = job.attempts

    assert job.status == CANCELLED
    assert (attempt.status, attempt.error_code, attempt.error_data.msgpack) == (
        pb.ATTEMPT_STATUS_FAILED,
        "E",
        b"\x07",
    )
    expect_cancelled(silo, job_id, job.status_changed_at_ms)


def test_a_success_counts_though_the_cancellation_was_requested(silo):
    job_id = silo.enqueue()
    task = silo.lease_one()
    silo.call("CancelJob", id=job_id)
    silo.report(task, success=b"\x01")

    assert result_of(silo, job_id).status == silo.job(job_id).status == SUCCEEDED
    assert silo.refusal("CancelJob", id=job_id) == (WRONG_STATE, "job is already cancelled")


# --- CancelJob -------------------------------------------------------------------------------------------------------


def test_a_job_cancelled_before_its_start_keeps_that_start_and_is_never_leased(silo):
    # A70
    job_id = silo.enqueue(start_at_ms=LATER_MS)
    due_id = silo.enqueue()
    silo.call("CancelJob", id=job_id)
    silo.call("CancelJob", id=due_id)
    job = silo.job(job_id)

    assert (job.status, job.next_attempt_starts_after_ms) == (CANCELLED, LATER_MS)
    assert silo.job(due_id).HasField("next_attempt_starts_after_ms")
    assert list(job.attempts) == []
    assert silo.lease() == []


def test_a_running_job_goes_on_until_its_worker_hears_of_the_cancellation(silo):
    # A71
    job_id = silo.enqueue()
    task = silo.lease_one()
    beat = {"shard": task.shard, "task_id": task.id, "worker_id": "w"}
    assert silo.call("Heartbeat", **beat) == pb.HeartbeatResponse()

    before_ms = now_ms()
    silo.call("CancelJob", id=job_id)
    reply = silo.call("Heartbeat", **beat)
    assert reply.cancelled
    assert before_ms <= reply.cancelled_at_ms <= now_ms()
    assert silo.job(job_id).status == RUNNING

    silo.report(task, cancelled=True)
    job = silo.job(job_id)
    assert (job.status, job.attempts[0].status) == (CANCELLED, pb.ATTEMPT_STATUS_CANCELLED)
    assert silo.refusal("CancelJob", id=job_id) == (WRONG_STATE, "job is already cancelled")


def test_a_job_that_its_worker_gave_up_can_be_cancelled_once_which_changes_nothing_else(silo):
    job_id = silo.enqueue()
    silo.report(silo.lease_one(), cancelled=True)
    before = silo.job(job_id)
    silo.call("CancelJob", id=job_id)

    assert silo.job(job_id) == before
    assert silo.refusal("CancelJob", id=job_id) == (WRONG_STATE, "job is already cancelled")


@pytest.mark.parametrize("outcome", [{"success": b""}, {"failure": ("E", b"")}], ids=["success", "failure"])
def test_a_finished_job_cannot_be_cancelled(silo, outcome):
    # A73
    job_id = silo.enqueue()
    silo.report(silo.lease_one(), **outcome)

    assert silo.refusal("CancelJob", id=job_id) == (WRONG_STATE, "job is already in terminal state")


# --- RestartJob ------------------------------------------------------------------------------------------------------


def test_a_restarted_job_runs_again_with_a_number_of_its_own_and_all_its_tries(silo):
    # A173
    job_id = silo.enqueue(retry_policy=pb.RetryPolicy(retry_count=1))
    numbers = []
    for run in range(2):
        for _ in range(2):
            task = silo.lease_one()
            numbers.append((task.attempt_number, task.relative_attempt_number, task.is_last_attempt))
            silo.report(task, failure=("E", b""))
        assert silo.job(job_id).status == FAILED
        if run == 0:
            silo.call("RestartJob", id=job_id)

    assert numbers == [(1, 1, False), (2, 2, True), (3, 1, False), (4, 2, True)]
    assert [attempt.attempt_number for attempt in silo.job(job_id).attempts] == [1, 2, 3, 4]


def test_a_restart_forgets_the_cancellation(silo):
    job_id = silo.enqueue()
    silo.call("CancelJob", id=job_id)
    silo.call("RestartJob", id=job_id)
    assert silo.job(job_id).status == SCHEDULED

    task = silo.lease_one()
    assert (task.attempt_number, task.relative_attempt_number) == (1, 1)
    assert not silo.call("Heartbeat", shard=task.shard, task_id=task.id, worker_id="w").cancelled


def test_a_job_cancelled_before_a_start_in_the_future_keeps_that_start_when_it_is_restarted(silo):
    job_id = silo.enqueue(start_at_ms=LATER_MS)
    silo.call("CancelJob", id=job_id)
    silo.call("RestartJob", id=job_id)
    job = silo.job(job_id)

    assert (job.status, job.next_attempt_starts_after_ms) == (SCHEDULED, LATER_MS)


@pytest.mark.parametrize(
    ("state", "reason", "kind"),
    [
        ("scheduled", "job is still in progress", "Scheduled"),
        ("running", "job is still in progress", "Running"),
        ("succeeded", "job already succeeded", "Succeeded"),
    ],
)
def test_only_a_job_that_failed_or_was_cancelled_can_be_restarted(silo, state, reason, kind):
    job_id = silo.enqueue()
    if state != "scheduled":
        task = silo.lease_one()
        if state == "succeeded":
            silo.report(task, success=b"")

    text = f"cannot restart job {job_id}: {reason} (status: {kind})"
    assert silo.refusal("RestartJob", id=job_id) == (WRONG_STATE, text)


# --- ExpediteJob -----------------------------------------------------------------------------------------------------


def test_a_job_for_later_starts_at_once_when_it_is_expedited(silo):
    # A170
    job_id = silo.enqueue(start_at_ms=LATER_MS)
    assert silo.lease() == []
    before_ms = now_ms()
    silo.call("ExpediteJob", id=job_id)
    job = silo.job(job_id)

    assert job.status == SCHEDULED
    assert before_ms <= job.next_attempt_starts_after_ms == job.status_changed_at_ms <= now_ms()
    assert job.enqueue_time_ms == LATER_MS
    assert (silo.lease_one().job_id, silo.job(job_id).status) == (job_id, RUNNING)


def test_a_job_that_waits_for_its_next_try_starts_at_once_when_it_is_expedited(silo):
    # A170
    job_id = silo.enqueue(retry_policy=TRY_AGAIN_LATER)
    silo.report(silo.lease_one(), failure=("E", b""))
    assert silo.lease() == []
    silo.call("ExpediteJob", id=job_id)

    assert silo.lease_one().attempt_number == 2


def cannot_expedite(job_id, reason, kind):
    return WRONG_STATE, f"cannot expedite job {job_id}: {reason} (status: {kind})"


def test_what_does_not_wait_for_a_time_cannot_be_expedited(silo):
    # A171
    job_id = silo.enqueue()
    ready = "task is already ready to run (not future-scheduled)"
    assert silo.refusal("ExpediteJob", id=job_id) == cannot_expedite(job_id, ready, "Scheduled")

    task = silo.lease_one()
    running = "job is currently running"
    assert silo.refusal("ExpediteJob", id=job_id) == cannot_expedite(job_id, running, "Running")

    silo.call("CancelJob", id=job_id)
    assert silo.refusal("ExpediteJob", id=job_id) == cannot_expedite(job_id, "job is cancelled", "Running")

    silo.report(task, success=b"")
    terminal = "job is already in terminal state"
    assert silo.refusal("ExpediteJob", id=job_id) == cannot_expedite(job_id, terminal, "Succeeded")


# --- DeleteJob and DropTenantHolders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["scheduled", "running"])
def test_a_job_that_has_not_ended_cannot_be_deleted(silo, state):
    job_id = silo.enqueue()
    if state == "running":
        silo.lease_one()

    text = f"cannot delete job {job_id}: job is currently running or has pending requests"
    assert silo.refusal("DeleteJob", id=job_id) == (StatusCode.INTERNAL, text)
    assert silo.has(job_id)


def test_to_delete_what_is_not_there_is_fine(silo):
    silo.call("DeleteJob", id="no such job")


def test_the_id_of_a_deleted_job_is_free_and_nothing_of_the_job_is_left(silo):
    job_id = silo.enqueue(metadata={"old": "1"})
    silo.report(silo.lease_one(), failure=("E", b"old"))
    silo.call("CancelJob", id=silo.enqueue())
    silo.call("DeleteJob", id=job_id)
    assert not silo.has(job_id)

    silo.enqueue(id=job_id)
    job = silo.job(job_id)
    assert (job.status, dict(job.metadata), list(job.attempts)) == (SCHEDULED, {}, [])
    assert silo.lease_one().attempt_number == 1


def test_where_no_job_has_limits_nobody_holds_slots(silo):
    assert silo.call("DropTenantHolders").holders_dropped == 0


# --- lost replies ----------------------------------------------------------------------------------------------------


def test_a_call_whose_reply_was_lost_is_answered_as_the_contract_says(silo):
    job_id = silo.enqueue(start_at_ms=LATER_MS)

    def again(rpc: str, **fields: object) -> tuple[StatusCode, str] | None:
        silo.call(rpc, **fields)
        try:
            silo.call(rpc, **fields)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()
        return None

    ready = "task is already ready to run (not future-scheduled)"
    assert again("ExpediteJob", id=job_id) == cannot_expedite(job_id, ready, "Scheduled")
    task = silo.lease_one()
    assert again("Heartbeat", shard=task.shard, task_id=task.id, worker_id="w") is None
    report = silo.report_fields(task, failure=("E", b""))
    assert again("ReportOutcome", **report) == (StatusCode.NOT_FOUND, "lease not found")
    progress = f"cannot restart job {job_id}: job is still in progress (status: Scheduled)"
    assert again("RestartJob", id=job_id) == (WRONG_STATE, progress)
    assert again("CancelJob", id=job_id) == (WRONG_STATE, "job is already cancelled")
    assert again("DeleteJob", id=job_id) is None
