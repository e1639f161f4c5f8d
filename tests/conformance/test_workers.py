"""A worker's day: tasks are leased, kept alive, and reported."""

from __future__ import annotations

import msgpack
import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import LATER_MS, data

NOT_FOUND = StatusCode.NOT_FOUND
WRONG_STATE = StatusCode.FAILED_PRECONDITION
INVALID = StatusCode.INVALID_ARGUMENT
NO_LEASE = (NOT_FOUND, "lease not found")


# --- LeaseTasks ------------------------------------------------------------------------------------------------------


def test_a_task_tells_all_that_its_worker_needs(silo):
    job_id = silo.enqueue(priority=42, payload=data(b"\xa1p"), metadata={"k": "v", "日": "本"})
    task = silo.lease_one()

    assert task == pb.Task(
        id=task.id,
        job_id=job_id,
        attempt_number=1,
        relative_attempt_number=1,
        is_last_attempt=True,
        metadata={"k": "v", "日": "本"},
        payload=data(b"\xa1p"),
        priority=42,
        shard=silo.node.shard,
        task_group=silo.group,
        lease_ms=10_000,
    )
    assert task.id != job_id
    assert not task.HasField("tenant_id")


@pytest.mark.parametrize("retries", [None, 0, 1, 3])
def test_the_last_attempt_is_the_one_after_which_no_retry_is_left(silo, retries):
    policy = None if retries is None else pb.RetryPolicy(retry_count=retries)
    job_id = silo.enqueue(retry_policy=policy)
    told = []
    while tasks := silo.lease():
        told.append((tasks[0].attempt_number, tasks[0].relative_attempt_number, tasks[0].is_last_attempt))
        silo.report(tasks[0], failure=("E", b""))

    last = (retries or 0) + 1
    assert told == [(number, number, number == last) for number in range(1, last + 1)]
    assert silo.job(job_id).status == pb.JOB_STATUS_FAILED


@pytest.mark.parametrize("filtered", [False, True])
def test_a_server_without_work_answers_at_once_with_nothing(silo, filtered):
    fields = {"shard": silo.node.shard} if filtered else {}
    reply = silo.call("LeaseTasks", worker_id="w", task_group=silo.group, max_tasks=100, **fields)

    assert reply == pb.LeaseTasksResponse()


def test_who_asks_for_no_tasks_gets_none(silo):
    silo.enqueue()

    assert silo.lease(max_tasks=0) == []
    assert silo.lease(max_tasks=0, shard=silo.node.shard) == []
    assert len(silo.lease()) == 1


def test_nobody_gets_more_tasks_than_he_asked_for_nor_the_same_twice(silo):
    # A180, A182
    made = [silo.enqueue() for _ in range(7)]
    leased = [silo.lease(max_tasks=3), silo.lease(max_tasks=3), silo.lease(max_tasks=2**32 - 1), silo.lease()]

    assert [len(tasks) for tasks in leased] == [3, 3, 1, 0]
    assert [task.job_id for tasks in leased for task in tasks] == made


def test_work_of_another_group_is_left_to_others(silo):
    silo.enqueue()
    other = silo.enqueue(task_group=f"{silo.group} and more")

    assert [task.job_id for task in silo.lease(task_group=f"{silo.group} and more")] == [other]
    assert len(silo.lease()) == 1


def test_a_job_for_later_is_not_leased_before_its_time(silo):
    # A181
    silo.enqueue(start_at_ms=LATER_MS)

    assert silo.lease() == []


def test_work_is_handed_out_by_start_and_each_step_of_priority_counts_as_ten_seconds(silo):
    jobs = {
        "urgent, but eleven seconds later": {"priority": 0, "start_at_ms": 12_000},
        "first": {"priority": 0, "start_at_ms": 500},
        "less urgent": {"priority": 1, "start_at_ms": 1_000},
        "as urgent, a second later": {"priority": 0, "start_at_ms": 1_500},
        "least urgent": {"priority": 99, "start_at_ms": 1},
    }
    for job_id, fields in jobs.items():
        silo.enqueue(id=f"{silo.group} {job_id}", **fields)

    assert [task.job_id.removeprefix(f"{silo.group} ") for task in silo.lease()] == [
        "first",
        "as urgent, a second later",
        "less urgent",
        "urgent, but eleven seconds later",
        "least urgent",
    ]


def test_the_workers_of_all_shards_are_served_by_one_call(tenants):
    for tenant in ("tenant-a", "tenant-b"):
        for _ in range(3):
            tenants.enqueue(tenant=tenant)
    tasks = tenants.lease(max_tasks=4)
    rest = tenants.lease(max_tasks=4)

    assert (len(tasks), len(rest)) == (4, 2)
    assert {task.tenant_id: task.shard for task in [*tasks, *rest]} == {
        tenant: tenants.node.shard_of(tenant) for tenant in ("tenant-a", "tenant-b")
    }


# --- LeaseTask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_at_ms", [0, LATER_MS], ids=["due", "for later"])
def test_one_particular_job_can_be_leased_due_or_not(silo, start_at_ms):
    job_id = silo.enqueue(start_at_ms=start_at_ms, priority=9, payload=data(b"\x05"))
    task = silo.call("LeaseTask", id=job_id, worker_id="w").task

    assert (task.job_id, task.attempt_number, task.relative_attempt_number, task.lease_ms) == (
        job_id,
        1,
        1,
        10_000,
    )
    assert (task.priority, task.payload.msgpack, task.is_last_attempt) == (9, b"\x05", True)
    assert silo.job(job_id).status == pb.JOB_STATUS_RUNNING
    assert silo.lease() == []
    silo.report(task, success=b"")
    assert silo.job(job_id).status == pb.JOB_STATUS_SUCCEEDED


def test_lease_task_names_the_shard_as_it_was_asked(silo):
    spelling = silo.node.shard.upper()
    job_id = silo.enqueue()

    assert silo.call("LeaseTask", id=job_id, worker_id="w", shard=spelling).task.shard == spelling


def test_an_attempt_leased_by_name_counts_from_the_restart(silo):
    job_id = silo.enqueue(retry_policy=pb.RetryPolicy(retry_count=1))
    for _ in range(2):
        silo.report(silo.lease_one(), failure=("E", b""))
    silo.call("RestartJob", id=job_id)
    task = silo.call("LeaseTask", id=job_id, worker_id="w").task

    assert (task.attempt_number, task.relative_attempt_number, task.is_last_attempt) == (3, 1, False)


def test_a_job_that_cannot_be_leased_by_name_says_why(silo):
    def refusal(job_id: str) -> tuple[StatusCode, str]:
        code, text = silo.refusal("LeaseTask", id=job_id, worker_id="w")
        return code, text.replace(job_id, "<id>")

    def refused(reason: str, kind: str) -> tuple[StatusCode, str]:
        return WRONG_STATE, f"cannot lease job <id>: {reason} (status: {kind})"

    job_id = silo.enqueue()
    assert refusal("no such job") == (NOT_FOUND, "job not found")
    task = silo.lease_one()
    assert refusal(job_id) == refused("job is currently running", "Running")
    silo.call("CancelJob", id=job_id)
    assert refusal(job_id) == refused("job is currently running", "Running")
    silo.report(task, success=b"")
    assert refusal(job_id) == refused("job is already in terminal state", "Succeeded")

    job_id = silo.enqueue()
    silo.report(silo.lease_one(), cancelled=True)
    assert refusal(job_id) == refused("job has no pending task", "Cancelled")
    silo.call("CancelJob", id=job_id)
    assert refusal(job_id) == refused("job is cancelled", "Cancelled")


# --- ReportOutcome ---------------------------------------------------------------------------------------------------


def test_a_task_can_be_reported_once_by_whoever_knows_it(silo):
    job_id = silo.enqueue()
    task = silo.lease_one()
    silo.report(task, success=b"\x01")
    before = silo.job(job_id)

    for outcome in ({"success": b"\x02"}, {"failure": ("E", b"")}, {"cancelled": True}):
        assert silo.refusal("ReportOutcome", **silo.report_fields(task, **outcome)) == NO_LEASE
    assert silo.job(job_id) == before


def test_a_report_without_an_outcome_leaves_the_lease_as_it_is(silo):
    silo.enqueue()
    task = silo.lease_one()

    assert silo.refusal("ReportOutcome", **silo.report_fields(task)) == (INVALID, "missing outcome")
    silo.report(task, success=b"")


def test_a_report_goes_to_the_shard_of_the_task(tenants):
    tenants.enqueue(tenant="tenant-a")
    task = tenants.lease_one()
    elsewhere = tenants.report_fields(task, success=b"") | {
        "shard": tenants.node.shard_of("tenant-b"),
        "tenant_id": "tenant-b",
    }

    assert tenants.refusal("ReportOutcome", **elsewhere) == NO_LEASE
    tenants.report(task, success=b"")


@pytest.mark.parametrize(
    ("policy", "delays_ms"),
    [
        pytest.param(
            {"initial_interval_ms": 1_000_000, "max_interval_ms": 2**62, "backoff_factor": 2},
            [2_000_000, 4_000_000, 8_000_000],
            id="the first retry waits the first interval times the factor",
        ),
        pytest.param(
            {"initial_interval_ms": 1_000_000, "max_interval_ms": 3_000_000, "backoff_factor": 2},
            [2_000_000, 3_000_000, 3_000_000],
            id="nobody waits longer than the greatest interval",
        ),
        pytest.param(
            {"initial_interval_ms": 1_000_000, "max_interval_ms": 0, "backoff_factor": 2},
            [0, 0, 0],
            id="a greatest interval of zero means no wait at all",
        ),
        pytest.param(
            {"initial_interval_ms": 1_000_000, "max_interval_ms": 2**62, "backoff_factor": 0},
            [0, 0, 0],
            id="a factor of zero means no wait at all",
        ),
        pytest.param(
            {"initial_interval_ms": 3_000_001, "max_interval_ms": 2**62, "backoff_factor": 1.5},
            [4_500_002, 6_750_002, 10_125_003],
            id="halves are rounded away from zero",
        ),
    ],
)
def test_a_failed_attempt_is_tried_again_after_a_wait_that_grows(silo, policy, delays_ms):
    job_id = silo.enqueue(retry_policy=pb.RetryPolicy(retry_count=len(delays_ms), **policy))
    for number, delay_ms in enumerate(delays_ms, start=1):
        task = silo.call("LeaseTask", id=job_id, worker_id="w").task
        silo.report(task, failure=("E", b""))
        job = silo.job(job_id)
        finished_ms = job.attempts[-1].finished_at_ms

        assert (job.status, len(job.attempts)) == (pb.JOB_STATUS_SCHEDULED, number)
        assert job.status_changed_at_ms == finished_ms
        assert job.next_attempt_starts_after_ms - finished_ms == delay_ms


def test_a_wait_with_chance_in_it_is_up_to_twice_as_long(silo):
    policy = pb.RetryPolicy(
        retry_count=1,
        initial_interval_ms=1_000_000,
        max_interval_ms=2**62,
        backoff_factor=1,
        randomize_interval=True,
    )
    job_id = silo.enqueue(retry_policy=policy)
    silo.report(silo.lease_one(), failure=("E", b""))
    job = silo.job(job_id)

    assert 1_000_000 <= job.next_attempt_starts_after_ms - job.attempts[0].finished_at_ms <= 2_000_000


# --- ReportRefreshOutcome --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        {"success": pb.RefreshSuccess(new_max_concurrency=1)},
        {"failure": pb.RefreshFailure(code="E", message="m")},
    ],
    ids=["success", "failure"],
)
def test_nobody_was_given_a_limit_to_refresh(silo, outcome):
    assert silo.refusal("ReportRefreshOutcome", task_id="no such task", **outcome) == NO_LEASE


# --- Heartbeat -------------------------------------------------------------------------------------------------------


def test_only_the_worker_that_has_the_lease_can_renew_it(silo):
    silo.enqueue()
    task = silo.lease_one(worker_id="mine")
    beat = {"shard": task.shard, "task_id": task.id}

    assert silo.refusal("Heartbeat", worker_id="yours", **beat) == (WRONG_STATE, "lease owner mismatch")
    assert silo.refusal("Heartbeat", **beat) == (WRONG_STATE, "lease owner mismatch")
    assert silo.call("Heartbeat", worker_id="mine", **beat) == pb.HeartbeatResponse()


@pytest.mark.parametrize("outcome", [{"success": b""}, {"failure": ("E", b"")}, {"cancelled": True}])
def test_a_task_that_was_reported_has_no_lease(silo, outcome):
    silo.enqueue()
    task = silo.lease_one()
    silo.report(task, **outcome)

    assert silo.refusal("Heartbeat", shard=task.shard, task_id=task.id, worker_id="w") == NO_LEASE


@pytest.mark.slow
def test_a_worker_that_is_silent_for_ten_seconds_loses_its_lease(tenants):
    # A19, A20, A72
    """Four jobs at once, as this one waits for the real clock."""
    names = ("silent", "silent once", "heard", "cancelled")
    policies = {"silent once": pb.RetryPolicy(retry_count=1)}
    fields = {"tenant": "tenant-b"}
    ids = {
        name: tenants.enqueue(id=f"{tenants.group} {name}", retry_policy=policies.get(name), **fields)
        for name in names
    }
    tasks = {task.job_id: task for task in tenants.lease()}
    tenants.call("CancelJob", id=ids["cancelled"], **fields)
    heard = tasks[ids["heard"]]

    def is_over() -> bool:
        beat = {"shard": heard.shard, "task_id": heard.id, "tenant_id": "tenant-b"}
        tenants.call("Heartbeat", worker_id="w", **beat)
        return all(
            tenants.job(ids[name], **fields).status != pb.JOB_STATUS_RUNNING
            for name in names
            if name != "heard"
        )

    tenants.wait_until(is_over)
    jobs = {name: tenants.job(ids[name], **fields) for name in names}
    [attempt] = jobs["silent"].attempts
    [tried] = jobs["silent once"].attempts
    [cancelled] = jobs["cancelled"].attempts

    assert {name: job.status for name, job in jobs.items()} == {
        "silent": pb.JOB_STATUS_FAILED,
        "silent once": pb.JOB_STATUS_SCHEDULED,
        "heard": pb.JOB_STATUS_RUNNING,
        "cancelled": pb.JOB_STATUS_CANCELLED,
    }
    assert attempt.error_code == tried.error_code == "WORKER_CRASHED"
    expires_ms = attempt.started_at_ms + 10_000
    text = f"lease expired at {expires_ms} (now {attempt.finished_at_ms}), worker=w"
    assert msgpack.unpackb(attempt.error_data.msgpack) == text
    assert attempt.finished_at_ms >= expires_ms
    assert cancelled.status == pb.ATTEMPT_STATUS_CANCELLED
    late = tenants.report_fields(tasks[ids["silent"]], success=b"")
    assert tenants.refusal("ReportOutcome", **late) == NO_LEASE
    again = tenants.lease_one()
    assert (again.job_id, again.attempt_number) == (ids["silent once"], 2)
    tenants.report(heard, success=b"")
