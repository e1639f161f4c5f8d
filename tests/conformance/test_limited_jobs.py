"""What clients do with jobs that have limits: cancel, expedite, import, lease by name; and what becomes of their slots."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import LATER_MS, Silo
from tests.conformance.limits import AGAIN_IN_AN_HOUR, floating, rate, slots

SCHEDULED, RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    pb.JOB_STATUS_SCHEDULED,
    pb.JOB_STATUS_RUNNING,
    pb.JOB_STATUS_SUCCEEDED,
    pb.JOB_STATUS_FAILED,
    pb.JOB_STATUS_CANCELLED,
)
WRONG_STATE = StatusCode.FAILED_PRECONDITION


def failed(number: int = 1) -> pb.ImportAttempt:
    return pb.ImportAttempt(
        status=pb.ATTEMPT_STATUS_FAILED, started_at_ms=number, finished_at_ms=number, error_code="E"
    )


def succeeded() -> pb.ImportAttempt:
    return pb.ImportAttempt(status=pb.ATTEMPT_STATUS_SUCCEEDED, started_at_ms=8, finished_at_ms=9)


ONE_RETRY = pb.RetryPolicy(retry_count=1)
TWO_RETRIES = pb.RetryPolicy(retry_count=2)


def import_one(silo: Silo, **fields: object) -> pb.ImportJobResult:
    [result] = silo.import_jobs(fields)
    assert result.success, result.error
    return result


# --- cancelled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_at_ms", [0, 1], ids=["from now", "from long ago"])
def test_waiters_that_were_cancelled_are_passed_over(limited, start_at_ms):
    # A74
    limited.enqueue(limits=[slots()])
    holder = limited.lease_one()
    gone = [limited.enqueue(limits=[slots()], start_at_ms=start_at_ms) for _ in range(3)]
    live = limited.enqueue(limits=[slots()])
    for job_id in gone:
        limited.call("CancelJob", id=job_id)
        assert limited.job(job_id).status == CANCELLED
    limited.finish(holder)

    assert limited.finish_all() == [live]
    assert limited.drop_holders() == 0


def test_a_waiter_that_was_cancelled_can_be_deleted_and_its_id_used_again(limited):
    # A73
    limited.enqueue(limits=[slots()])
    holder = limited.lease_one()
    job_id = limited.enqueue(limits=[slots()])
    limited.call("CancelJob", id=job_id)
    limited.call("DeleteJob", id=job_id)
    limited.enqueue(id=job_id, limits=[slots()])
    assert limited.lease() == []

    limited.finish(holder)
    task = limited.lease_one()
    assert (
        limited.call("Heartbeat", shard=task.shard, task_id=task.id, worker_id="w") == pb.HeartbeatResponse()
    )


def test_a_job_that_waits_at_its_second_limit_gives_back_the_first_when_it_is_cancelled(limited):
    # A76
    limited.enqueue(limits=[slots(1, "b")])
    holder = limited.lease_one()
    gone = limited.enqueue(limits=[slots(1, "a"), slots(1, "b")])
    by_a, by_b = (limited.enqueue(limits=[slots(1, key)]) for key in "ab")
    limited.call("CancelJob", id=gone)
    assert limited.lease_one().job_id == by_a

    limited.finish(holder)
    assert limited.lease_one().job_id == by_b


def test_a_job_that_is_ready_gives_back_its_slots_when_it_is_cancelled(limited):
    gone = limited.enqueue(limits=[slots(1, "a"), floating(1, "b")])
    behind = limited.enqueue(limits=[slots(1, "a"), floating(1, "b")])
    limited.call("CancelJob", id=gone)

    assert limited.lease_one().job_id == behind


def test_a_running_job_keeps_its_slot_until_its_worker_has_heard_of_the_cancellation(limited):
    # A71
    limited.enqueue(limits=[slots()])
    task = limited.lease_one()
    waiter = limited.enqueue(limits=[slots()])
    limited.call("CancelJob", id=task.job_id)
    assert limited.lease() == []

    beat = limited.call("Heartbeat", shard=task.shard, task_id=task.id, worker_id="w")
    assert beat.cancelled
    limited.report(task, cancelled=True)
    assert limited.job(task.job_id).status == CANCELLED
    assert limited.lease_one().job_id == waiter


def test_without_cancellations_jobs_come_out_by_their_start(limited):
    # A77
    jobs = {at_ms: limited.enqueue(limits=[slots()], start_at_ms=at_ms) for at_ms in (3, 1, 5, 2, 4)}
    first = jobs.pop(3)  # it found the slot free

    assert limited.finish_all() == [first, *(jobs[at_ms] for at_ms in sorted(jobs))]


# --- expedited and leased by name ------------------------------------------------------------------------------------


def test_a_job_for_later_competes_for_its_slot_as_soon_as_it_is_expedited(limited):
    # A170
    later = limited.enqueue(limits=[slots()], start_at_ms=LATER_MS)
    limited.call("ExpediteJob", id=later)
    job = limited.job(later)
    assert (job.status, job.next_attempt_starts_after_ms) == (SCHEDULED, job.status_changed_at_ms)

    task = limited.lease_one()
    assert (task.job_id, task.attempt_number) == (later, 1)
    limited.finish(task)


def test_a_retry_that_is_expedited_competes_for_its_slot(limited):
    # A170
    job_id = limited.enqueue(limits=[slots()], retry_policy=AGAIN_IN_AN_HOUR)
    limited.report(limited.lease_one(), failure=("E", b""))
    other = limited.enqueue(limits=[slots()])
    limited.call("ExpediteJob", id=job_id)
    task = limited.lease_one()
    assert task.job_id == other

    limited.finish(task)
    task = limited.lease_one()
    assert (task.job_id, task.attempt_number) == (job_id, 2)
    limited.finish(task)
    assert limited.job(job_id).status == SUCCEEDED


def test_who_waits_for_a_slot_or_a_bucket_cannot_be_expedited(limited):
    # A171
    for limit in (slots(), rate()):
        limited.enqueue(limits=[limit])
        waits = limited.enqueue(limits=[limit])
        assert limited.refusal("ExpediteJob", id=waits) == (
            WRONG_STATE,
            f"cannot expedite job {waits}: job has no pending task to expedite (status: Scheduled)",
        )


def test_a_second_expedite_finds_the_job_in_line(limited):
    # A171
    limited.enqueue(limits=[slots()])
    later = limited.enqueue(limits=[slots()], start_at_ms=LATER_MS)
    limited.call("ExpediteJob", id=later)

    _, text = limited.refusal("ExpediteJob", id=later)
    assert "job has no pending task to expedite" in text


def test_a_job_that_is_leased_by_name_holds_nothing_and_gives_back_what_it_held(limited):
    held = limited.enqueue(limits=[slots()])
    waiter = limited.enqueue(limits=[slots()])
    assert limited.refusal("LeaseTask", id=waiter, worker_id="w") == (
        WRONG_STATE,
        f"cannot lease job {waiter}: job has no pending task in queue (status: Scheduled)",
    )
    limited.call("LeaseTask", id=held, worker_id="w")

    assert limited.lease_one().job_id == waiter
    assert limited.drop_holders() == 1


# --- imported --------------------------------------------------------------------------------------------------------


def test_an_imported_job_takes_a_slot_or_waits_for_one(limited):
    # A160
    first, second = (import_one(limited, limits=[slots()]).id for _ in range(2))
    task = limited.lease_one()
    assert (task.job_id, list(task.limits)) == (first, [slots()])
    limited.finish(task)
    assert limited.lease_one().job_id == second


def test_an_imported_job_that_has_ended_takes_none(limited):
    import_one(limited, limits=[slots()], attempts=[failed()])

    assert limited.drop_holders() == 0


def test_a_reimported_job_that_goes_on_holds_one_slot(limited):
    # A161
    job_id = limited.enqueue(limits=[slots(5)])
    import_one(limited, id=job_id, attempts=[failed()], retry_policy=ONE_RETRY)

    assert limited.lease_one().attempt_number == 2
    assert limited.drop_holders() == 1


@pytest.mark.parametrize("attempt", [failed(), succeeded()], ids=["failed", "succeeded"])
def test_a_reimported_job_that_has_ended_gives_its_slot_to_the_next_at_once(limited, attempt):
    # A161, A165
    job_id = limited.enqueue(limits=[slots()])
    waiter = limited.enqueue(limits=[slots()])
    import_one(limited, id=job_id, attempts=[attempt])

    assert limited.lease_one().job_id == waiter
    assert limited.drop_holders() == 1


def test_a_waiter_that_is_reimported_as_ended_waits_no_more(limited):
    # A162
    holder, gone = (limited.enqueue(limits=[slots()]) for _ in range(2))
    import_one(limited, id=gone, attempts=[succeeded()])
    task = limited.lease_one()
    assert task.job_id == holder
    limited.finish(task)

    assert limited.lease() == []
    assert limited.drop_holders() == 0


@pytest.mark.parametrize(
    ("attempt", "status"), [(failed(), SCHEDULED), (succeeded(), SUCCEEDED)], ids=["goes on", "has ended"]
)
def test_a_cancelled_job_that_is_reimported_is_clean(limited, attempt, status):
    # A163
    job_id = limited.enqueue(limits=[slots()])
    limited.call("CancelJob", id=job_id)
    result = import_one(limited, id=job_id, attempts=[attempt], retry_policy=ONE_RETRY)

    assert result.status == status
    assert limited.finish_all() == ([job_id] if status == SCHEDULED else [])
    assert limited.drop_holders() == 0


@pytest.mark.parametrize("keys", ["a", "ab"])
def test_a_job_that_is_reimported_as_ended_at_its_rate_limit_gives_back_all_it_held(limited, keys):
    # A164
    limited.enqueue(limits=[rate()])
    job_id = limited.enqueue(limits=[*(slots(1, key) for key in keys), rate()])
    behind = [limited.enqueue(limits=[slots(1, key)]) for key in keys]
    import_one(limited, id=job_id, attempts=[succeeded()])

    tasks = limited.lease()
    assert [task.job_id for task in tasks[1:]] == behind
    assert limited.drop_holders() == len(keys)


def test_of_a_job_that_was_reimported_while_it_waited_only_the_newest_attempt_runs(limited):
    # A166
    limited.enqueue(limits=[slots()])
    holder = limited.lease_one()
    job_id = limited.enqueue(limits=[slots()])
    import_one(limited, id=job_id, attempts=[failed(1)], retry_policy=TWO_RETRIES)
    import_one(limited, id=job_id, attempts=[failed(1), failed(2)], retry_policy=TWO_RETRIES)
    assert limited.lease() == []

    limited.finish(holder)
    task = limited.lease_one()
    assert (task.job_id, task.attempt_number) == (job_id, 3)
    limited.finish(task)
    assert limited.lease() == []


def test_a_waiter_that_is_reimported_gives_back_the_slots_it_had(limited):
    # A167
    limited.enqueue(limits=[slots(1, "b")])
    limited.lease_one()
    job_id = limited.enqueue(limits=[slots(1, "a"), slots(1, "b")])
    by_a = limited.enqueue(limits=[slots(1, "a")])
    import_one(limited, id=job_id, attempts=[succeeded()])

    assert limited.lease_one().job_id == by_a
    assert limited.drop_holders() == 2


# --- restarted -------------------------------------------------------------------------------------------------------


def test_attempts_of_a_restarted_job_with_a_limit_are_numbered_on(limited):
    # A173
    job_id = limited.enqueue(limits=[slots()], retry_policy=TWO_RETRIES)
    numbers = []
    for _ in range(2):
        while tasks := limited.lease():
            numbers.append((tasks[0].attempt_number, tasks[0].relative_attempt_number))
            limited.report(tasks[0], failure=("E", b""))
        assert limited.job(job_id).status == FAILED
        limited.call("RestartJob", id=job_id)

    assert numbers == [(1, 1), (2, 2), (3, 3), (4, 1), (5, 2), (6, 3)]
    assert [attempt.attempt_number for attempt in limited.job(job_id).attempts] == [1, 2, 3, 4, 5, 6]
    assert limited.drop_holders() == 1
