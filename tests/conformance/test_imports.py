"""ImportJobs: jobs that come with a history, each answered in its place."""

from __future__ import annotations

import time
from typing import Any

import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import LATER_MS, NIL, data, is_data

SCHEDULED, SUCCEEDED, FAILED, CANCELLED = (
    pb.JOB_STATUS_SCHEDULED,
    pb.JOB_STATUS_SUCCEEDED,
    pb.JOB_STATUS_FAILED,
    pb.JOB_STATUS_CANCELLED,
)
ONE_RETRY = pb.RetryPolicy(
    retry_count=1, initial_interval_ms=3_600_000, max_interval_ms=3_600_000, backoff_factor=1
)


def attempt(
    status: str, started_at_ms: int = 100, finished_at_ms: int = 200, **fields: Any
) -> pb.ImportAttempt:
    return pb.ImportAttempt(
        status=f"ATTEMPT_STATUS_{status}",
        started_at_ms=started_at_ms,
        finished_at_ms=finished_at_ms,
        **fields,
    )


def failed(number: int = 1) -> pb.ImportAttempt:
    return attempt(
        "FAILED", 100 * number, 100 * number + 50, error_code=f"E{number}", error_data=data(b"\x01")
    )


def succeeded() -> pb.ImportAttempt:
    return attempt("SUCCEEDED", 900, 950, result=data(b"\x02"))


def cancelled() -> pb.ImportAttempt:
    return attempt("CANCELLED", 900, 950)


def import_one(silo, **fields):
    """The result; a success has no error, and a failure the status that stands for one."""
    [result] = silo.import_jobs(fields)
    assert result.success == (not result.HasField("error"))
    assert result.success or result.status == FAILED
    return result


# --- jobs that are new -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempts", "policy", "status"),
    [
        pytest.param([], None, SCHEDULED, id="no attempts"),
        pytest.param([succeeded()], None, SUCCEEDED, id="a success"),
        pytest.param([failed(1), failed(2), succeeded()], None, SUCCEEDED, id="a success after failures"),
        pytest.param([cancelled()], ONE_RETRY, CANCELLED, id="cancelled"),
        pytest.param([failed(1), cancelled()], ONE_RETRY, CANCELLED, id="cancelled after a failure"),
        pytest.param([failed()], None, FAILED, id="a failure without a policy"),
        pytest.param([failed()], ONE_RETRY, SCHEDULED, id="a failure with a retry left"),
        pytest.param([failed(1), failed(2)], ONE_RETRY, FAILED, id="as many failures as there were tries"),
    ],
)
def test_the_status_of_a_new_job_follows_from_its_attempts(silo, attempts, policy, status):
    result = import_one(silo, attempts=attempts, retry_policy=policy)
    job = silo.job(result.id)

    assert (result.success, result.status, job.status) == (True, status, status)
    assert len(job.attempts) == len(attempts)
    if status == SCHEDULED:
        task = silo.lease_one()
        assert (task.attempt_number, task.relative_attempt_number) == (len(attempts) + 1, len(attempts) + 1)
        assert task.is_last_attempt
    else:
        assert job.status_changed_at_ms == attempts[-1].finished_at_ms
        assert not job.HasField("next_attempt_starts_after_ms")
        assert silo.lease() == []


def test_attempts_are_stored_as_they_were_told_with_new_task_ids(silo):
    told = [failed(1), failed(2), succeeded()]
    job_id = import_one(silo, attempts=told).id
    attempts = list(silo.job(job_id).attempts)
    ids = [found.task_id for found in attempts]

    assert len({*ids, ""}) == 4
    assert attempts == [
        pb.JobAttempt(
            job_id=job_id,
            attempt_number=number,
            task_id=ids[number - 1],
            status=source.status,
            started_at_ms=source.started_at_ms,
            finished_at_ms=source.finished_at_ms,
            **(
                {"result": source.result}
                if source.HasField("result")
                else {"error_code": source.error_code, "error_data": source.error_data}
            ),
        )
        for number, source in enumerate(told, start=1)
    ]
    assert is_data(silo.call("GetJobResult", id=job_id).success_data, b"\x02")


def test_of_an_attempt_only_what_fits_its_status_is_taken(silo):
    everything = {"result": data(b"r"), "error_code": "E", "error_data": data(b"e")}
    statuses = ("SUCCEEDED", "FAILED", "CANCELLED")
    ids = [import_one(silo, attempts=[attempt(status, **everything)]).id for status in statuses]
    [won], [lost], [given_up] = (silo.job(job_id).attempts for job_id in ids)

    assert (is_data(won.result, b"r"), won.HasField("error_code"), won.HasField("error_data")) == (
        True,
        False,
        False,
    )
    assert (lost.HasField("result"), lost.error_code, is_data(lost.error_data, b"e")) == (False, "E", True)
    assert not any(given_up.HasField(name) for name in everything)


def test_what_an_attempt_does_not_say_is_empty(silo):
    ids = [import_one(silo, attempts=[attempt(status)]).id for status in ("SUCCEEDED", "FAILED")]
    [won], [lost] = (silo.job(job_id).attempts for job_id in ids)

    assert is_data(won.result, b"")
    assert (lost.HasField("error_code"), lost.error_code, is_data(lost.error_data, b"")) == (True, "", True)


def test_an_imported_job_keeps_the_time_at_which_it_was_enqueued_elsewhere(silo):
    result = import_one(silo, enqueue_time_ms=123, start_at_ms=LATER_MS, priority=5, metadata={"k": "v"})
    job = silo.job(result.id)

    assert (job.enqueue_time_ms, job.next_attempt_starts_after_ms) == (123, LATER_MS)
    assert (job.priority, dict(job.metadata), job.task_group) == (5, {"k": "v"}, silo.group)
    assert silo.lease() == []


def test_without_times_a_job_was_enqueued_now_and_starts_now(silo):
    before_ms = time.time_ns() // 1_000_000
    job = silo.job(import_one(silo, attempts=[failed()], retry_policy=ONE_RETRY).id)

    # The next try does not wait for its turn: how long it would have, the request tells by its start.
    assert before_ms <= job.enqueue_time_ms <= job.next_attempt_starts_after_ms <= time.time_ns() // 1_000_000


def test_an_imported_job_that_was_cancelled_was_not_asked_to_be(silo):
    job_id = import_one(silo, attempts=[cancelled()]).id
    result = silo.call("GetJobResult", id=job_id)

    assert (result.status, result.finished_at_ms, result.cancelled.cancelled_at_ms) == (CANCELLED, 950, 950)
    silo.call("CancelJob", id=job_id)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param(
            {"attempts": [succeeded(), failed()]},
            "invalid argument: import attempt 0 must be Failed (only the last attempt may be non-Failed)",
            id="a success that is not the last",
        ),
        pytest.param(
            {"attempts": [failed(), cancelled(), succeeded()]},
            "invalid argument: import attempt 1 must be Failed (only the last attempt may be non-Failed)",
            id="given up before the last",
        ),
        pytest.param(
            {"attempts": [attempt("RUNNING")]},
            'status: InvalidArgument, message: "import attempts must be terminal (not Running)"',
            id="an attempt that runs",
        ),
        pytest.param(
            {"attempts": [pb.ImportAttempt(status=9)]},
            'status: InvalidArgument, message: "invalid attempt status"',
            id="an attempt of unknown status",
        ),
        pytest.param(
            {"id": ""}, 'status: InvalidArgument, message: "job id is required for import"', id="no id"
        ),
        pytest.param(
            {"shard": "x"}, 'status: InvalidArgument, message: "invalid shard ID: x"', id="no shard id"
        ),
        pytest.param(
            {"id": "", "task_group": "", "priority": 100},
            'status: InvalidArgument, message: "job id is required for import"',
            id="the id is missed first",
        ),
        pytest.param(
            {"task_group": "", "priority": 100},
            'status: InvalidArgument, message: "task_group is required"',
            id="then the task group",
        ),
        pytest.param(
            {"priority": 100, "attempts": [attempt("RUNNING")]},
            'status: InvalidArgument, message: "priority must be between 0 and 99"',
            id="then the priority",
        ),
    ],
)
def test_a_job_that_cannot_be_imported_says_why(silo, fields, text):
    result = import_one(silo, **fields)

    assert (result.success, result.error) == (False, text)
    assert not result.id or not silo.has(result.id)


# --- jobs that are known ---------------------------------------------------------------------------------------------


def test_a_job_goes_on_where_its_source_left_it(silo):
    job_id = silo.enqueue(priority=3, start_at_ms=LATER_MS, payload=data(b"old"))
    more = {"priority": 9, "payload": data(b"new"), "metadata": {"new": ""}, "task_group": "new"}
    result = import_one(silo, id=job_id, attempts=[failed(1)], retry_policy=ONE_RETRY, **more)
    job = silo.job(job_id)

    assert (result.success, result.status) == (True, SCHEDULED)
    assert job.retry_policy == ONE_RETRY
    assert (job.priority, job.payload.msgpack, dict(job.metadata), job.task_group) == (
        3,
        b"old",
        {},
        silo.group,
    )
    [task] = silo.lease()
    assert (task.attempt_number, task.relative_attempt_number, task.is_last_attempt) == (2, 2, True)


def test_the_attempts_of_a_job_grow_from_import_to_import(silo):
    policy = pb.RetryPolicy(retry_count=5)
    job_id = import_one(silo, attempts=[failed(1)], retry_policy=policy).id
    first_task = silo.job(job_id).attempts[0].task_id
    result = import_one(silo, id=job_id, attempts=[failed(1), failed(2), succeeded()], retry_policy=policy)
    job = silo.job(job_id)

    assert (result.status, job.status, job.status_changed_at_ms) == (SUCCEEDED, SUCCEEDED, 950)
    assert [found.attempt_number for found in job.attempts] == [1, 2, 3]
    assert job.attempts[0].task_id == first_task
    assert silo.lease() == []


def test_an_import_undoes_a_cancellation(silo):
    job_id = silo.enqueue()
    silo.call("CancelJob", id=job_id)
    result = import_one(silo, id=job_id, attempts=[failed(1)], retry_policy=ONE_RETRY)

    assert (result.status, silo.job(job_id).status) == (SCHEDULED, SCHEDULED)
    silo.call("CancelJob", id=job_id)


def test_attempts_that_ran_here_are_compared_like_any_others(silo):
    job_id = silo.enqueue(retry_policy=ONE_RETRY)
    silo.report(silo.lease_one(), failure=("HERE", b"\x03"))
    [ran] = silo.job(job_id).attempts
    told = attempt(
        "FAILED", ran.started_at_ms, ran.finished_at_ms, error_code="HERE", error_data=data(b"\x03")
    )

    assert import_one(silo, id=job_id, attempts=[told, succeeded()]).status == SUCCEEDED


def changed(**but: Any) -> list[pb.ImportAttempt]:
    one = failed(1)
    one.MergeFrom(pb.ImportAttempt(**but))
    return [one, failed(2)]


@pytest.mark.parametrize(
    ("attempts", "reason"),
    [
        pytest.param(
            [], "reimport has 0 attempts but job has 1 existing attempts", id="fewer than on record"
        ),
        pytest.param([failed(1)], "reimport must include at least one new attempt", id="none that is new"),
        pytest.param(
            [succeeded(), failed(2)], "existing attempt 0 does not match reimport data", id="another end"
        ),
        pytest.param(
            changed(started_at_ms=1), "existing attempt 0 does not match reimport data", id="another start"
        ),
        pytest.param(
            changed(finished_at_ms=1), "existing attempt 0 does not match reimport data", id="another time"
        ),
        pytest.param(
            changed(error_code="X"), "existing attempt 0 does not match reimport data", id="another code"
        ),
        pytest.param(
            changed(error_data=data(b"X")),
            "existing attempt 0 does not match reimport data",
            id="other bytes",
        ),
    ],
)
def test_a_job_that_tells_another_story_than_before_is_left_as_it_is(silo, attempts, reason):
    job_id = import_one(silo, attempts=[failed(1)]).id
    before = silo.job(job_id)
    result = import_one(silo, id=job_id, attempts=attempts)

    assert result.error == f"cannot reimport job: cannot reimport job {job_id}: {reason} (status: Failed)"
    assert (result.id, silo.job(job_id)) == (job_id, before)


def test_new_attempts_obey_the_rule_and_are_counted_by_themselves(silo):
    job_id = import_one(silo, attempts=[failed(1)]).id
    result = import_one(silo, id=job_id, attempts=[failed(1), failed(2), succeeded(), failed(3)])

    text = "invalid argument: import attempt 1 must be Failed (only the last attempt may be non-Failed)"
    assert result.error == text


def test_a_job_that_succeeded_takes_no_more_attempts(silo):
    job_id = import_one(silo, attempts=[succeeded()]).id
    result = import_one(silo, id=job_id, attempts=[succeeded(), succeeded()])

    assert result.error == (
        f"cannot reimport job: cannot reimport job {job_id}: job already succeeded (status: Succeeded)"
    )


# --- batches ---------------------------------------------------------------------------------------------------------


def test_an_import_of_nothing_is_answered_with_nothing(silo, tenants):
    assert silo.import_jobs() == []
    assert tenants.import_jobs() == []


def test_results_stand_in_the_order_of_the_request_whatever_became_of_each(tenants):
    known = tenants.import_jobs({"tenant": "tenant-a", "attempts": [succeeded()]})[0].id
    batch: list[dict[str, Any]] = [
        {"tenant": "tenant-b", "attempts": [succeeded()]},
        {"tenant": "tenant-a", "priority": 100},
        {"tenant": "tenant-a", "attempts": [failed()]},
        {"tenant": "tenant-a", "shard": NIL},
        {"tenant": "tenant-a", "id": known, "attempts": [succeeded()]},
        {"tenant": ""},
        {"tenant": "tenant-b", "attempts": [cancelled()]},
        {"tenant": "tenant-a", "attempts": [succeeded(), failed()]},
    ]
    batch = [{"id": f"{tenants.group} {place}", **job} for place, job in enumerate(batch)]
    results = tenants.import_jobs(*batch)

    assert [result.id for result in results] == [job["id"] for job in batch]
    assert [result.success for result in results] == [True, False, True, False, False, False, True, False]
    assert [result.status for result in results] == [SUCCEEDED, *[FAILED] * 5, CANCELLED, FAILED]
    for job, result in zip(batch, results, strict=True):
        if result.success:
            assert tenants.job(job["id"], tenant=job["tenant"]).status == result.status


def test_a_large_batch_is_answered_entry_by_entry(silo):
    ids = [silo.new_id() for _ in range(501)]
    results = silo.import_jobs(*({"id": job_id, "attempts": [succeeded()]} for job_id in ids))

    assert [result.id for result in results] == ids
    assert all(result.success for result in results)


def test_the_same_job_twice_in_one_batch_is_a_job_and_its_continuation(silo):
    job_id = silo.new_id()
    results = silo.import_jobs(
        {"id": job_id, "attempts": [failed(1)]},
        {"id": job_id, "attempts": [failed(1), succeeded()]},
        {"id": job_id, "attempts": [failed(1), succeeded()]},
    )

    assert [(result.id, result.success, result.status) for result in results] == [
        (job_id, True, FAILED),
        (job_id, True, SUCCEEDED),
        (job_id, False, FAILED),
    ]
    assert "job already succeeded" in results[2].error
    assert len(silo.job(job_id).attempts) == 2


def test_the_same_import_sent_twice_is_refused_the_second_time(silo):
    batch = [{"id": silo.new_id(), "attempts": [failed(1)]}, {"id": silo.new_id()}]
    first, second = silo.import_jobs(*batch), silo.import_jobs(*batch)

    assert [result.success for result in first] == [True, True]
    assert [result.success for result in second] == [False, False]
    assert all("reimport must include at least one new attempt" in result.error for result in second)


def test_one_running_job_refuses_the_whole_call_before_anything_is_imported(tenants):
    tenant_of_other_shard, tenant = "tenant-b", "tenant-a"
    running = tenants.enqueue(tenant=tenant)
    task = tenants.lease_one()
    others = [
        {"id": tenants.new_id(), "tenant": tenant_of_other_shard, "attempts": [succeeded()]},
        {"id": tenants.new_id(), "tenant": tenant, "attempts": [succeeded()]},
    ]
    batch = [*others, {"id": running, "tenant": tenant, "attempts": [failed(1)]}]
    refusal = tenants.refusal("ImportJobs", jobs=[tenants.import_entry(**job) for job in batch])

    text = f"cannot reimport job {running}: job is currently running (status: Running)"
    assert refusal == (StatusCode.FAILED_PRECONDITION, text)
    assert not any(tenants.has(job["id"], tenant=job["tenant"]) for job in others)
    tenants.report(task, success=b"")


def test_an_entry_that_is_malformed_is_answered_in_its_place_also_if_its_job_runs(silo):
    running = silo.enqueue()
    silo.lease_one()
    malformed, fine = silo.import_jobs({"id": running, "priority": 100}, {"attempts": [succeeded()]})

    assert (malformed.success, fine.success) == (False, True)


def test_imported_jobs_are_counted(nodes):
    alone = nodes.start()

    def counts() -> tuple[int, int]:
        [shard] = alone.call("GetNodeInfo").owned_shards
        return shard.total_jobs, shard.completed_jobs

    alone.import_jobs(
        {"id": "done", "attempts": [succeeded()]}, {"id": "open"}, {"id": "lost", "priority": 100}
    )
    assert counts() == (2, 1)
    alone.import_jobs({"id": "open", "attempts": [failed(1)]})
    assert counts() == (2, 2)
    alone.import_jobs(
        {"id": "open", "attempts": [failed(1), failed(2)], "retry_policy": pb.RetryPolicy(retry_count=2)}
    )
    assert counts() == (2, 1)
