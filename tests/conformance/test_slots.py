"""Limits on how many run at once: who gets a slot, who waits for one, and when it is free again."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import LATER_MS
from tests.conformance.limits import AGAIN_AT_ONCE, AGAIN_IN_AN_HOUR, slots, soon_ms

SCHEDULED, SUCCEEDED = pb.JOB_STATUS_SCHEDULED, pb.JOB_STATUS_SUCCEEDED


# --- one queue -------------------------------------------------------------------------------------------------------


def test_who_finds_a_slot_free_has_it_before_he_is_leased_and_until_he_is_done(limited):
    # A1
    job_id = limited.enqueue(limits=[slots()])
    assert limited.finish(limited.lease_one()) == job_id
    assert limited.drop_holders() == 0

    limited.enqueue(limits=[slots()])
    assert limited.drop_holders() == 1


def test_who_finds_no_slot_waits_until_one_is_given_back(limited):
    # A2
    first, second = (limited.enqueue(limits=[slots()]) for _ in range(2))
    task = limited.lease_one()
    assert (task.job_id, limited.lease()) == (first, [])
    assert limited.job(second).status == SCHEDULED

    limited.finish(task)
    assert limited.lease_one().job_id == second


def test_as_many_run_at_once_as_there_are_slots(limited):
    # A3
    jobs = [limited.enqueue(limits=[slots(3)]) for _ in range(5)]
    running = limited.lease()
    assert [task.job_id for task in running] == jobs[:3]

    limited.finish(running.pop())
    running += limited.lease()
    assert [task.job_id for task in running] == [jobs[0], jobs[1], jobs[3]]
    assert limited.lease() == []
    for task in running:
        limited.finish(task)
    assert limited.finish_all() == [jobs[4]]
    assert limited.drop_holders() == 0


def test_nobody_is_let_in_where_the_maximum_is_zero(limited):
    limited.enqueue(limits=[slots(0)])

    assert limited.lease() == []
    assert limited.drop_holders() == 0


def test_task_groups_share_a_queue(limited):
    # A4
    limited.enqueue(limits=[slots()])
    other = limited.enqueue(limits=[slots()], task_group=f"{limited.group} other")
    task = limited.lease_one()
    assert limited.lease(task_group=f"{limited.group} other") == []

    limited.finish(task)
    assert limited.lease_one(task_group=f"{limited.group} other").job_id == other


@pytest.mark.parametrize(
    ("groups", "jobs", "maximum"),
    [
        pytest.param(3, 3, 1, id="three groups and one slot"),  # A5
        pytest.param(2, 4, 2, id="two groups with two jobs each and two slots"),  # A6
    ],
)
def test_workers_of_all_groups_get_their_turn(limited, groups, jobs, maximum):
    # A5, A6
    names = [f"{limited.group} {number}" for number in range(groups)]
    for number in range(jobs):
        limited.enqueue(limits=[slots(maximum)], task_group=names[number % groups])

    done = []
    while tasks := [task for name in names for task in limited.lease(task_group=name)]:
        assert len(tasks) == maximum
        done += [limited.finish(task) for task in tasks]
    assert len(set(done)) == jobs
    assert limited.drop_holders() == 0


def test_tenants_share_nothing(tenants):
    # A7
    for tenant in ("a", "b"):
        tenants.enqueue(tenant=f"{tenants.group}-{tenant}", limits=[slots()])

    assert len(tenants.lease()) == 2


def test_who_needs_two_slots_holds_both_and_gives_both_back(limited):
    # A8, A51
    limited.enqueue(limits=[slots(key="a"), slots(key="b")])
    behind = [limited.enqueue(limits=[slots(key=key)]) for key in "ab"]
    task = limited.lease_one()
    assert limited.lease() == []

    limited.finish(task)
    assert sorted(limited.finish_all()) == behind
    assert limited.drop_holders() == 0


def test_of_those_that_start_together_the_most_urgent_is_first_and_the_least_urgent_last(limited):
    # A9
    limited.enqueue(limits=[slots()])
    jobs = {
        priority: limited.enqueue(limits=[slots()], start_at_ms=1, priority=priority)
        for priority in (50, 10, 99)
    }
    limited.finish(limited.lease_one())

    assert limited.finish_all() == [jobs[10], jobs[50], jobs[99]]


def test_each_step_of_priority_counts_as_ten_seconds_also_in_a_line(limited):
    limited.enqueue(limits=[slots()])
    waiters = [(0, 12_000), (1, 1_000), (0, 1_500)]
    jobs = [
        limited.enqueue(limits=[slots()], priority=priority, start_at_ms=at_ms) for priority, at_ms in waiters
    ]
    limited.finish(limited.lease_one())

    assert limited.finish_all() == [jobs[2], jobs[1], jobs[0]]


def test_who_comes_later_does_not_take_what_was_given_back_to_those_who_wait(limited):
    # A10
    limited.enqueue(limits=[slots()])
    waiter = limited.enqueue(limits=[slots()])
    limited.finish(limited.lease_one())
    late = limited.enqueue(limits=[slots()])

    task = limited.lease_one()
    assert task.job_id == waiter
    limited.finish(task)
    assert limited.lease_one().job_id == late


def test_one_after_the_other(limited):
    # A16
    jobs = [limited.enqueue(limits=[slots()]) for _ in range(3)]

    for job_id in jobs:
        task = limited.lease_one()
        assert (task.job_id, limited.lease()) == (job_id, [])
        limited.finish(task)
    assert limited.lease() == []


def test_a_job_that_failed_for_good_lets_in_the_next(limited):
    # A17
    limited.enqueue(limits=[slots()])
    waiter = limited.enqueue(limits=[slots()])
    limited.report(limited.lease_one(), failure=("E", b""))

    assert limited.lease_one().job_id == waiter


def test_each_job_is_let_in_by_its_own_maximum(limited):
    first = limited.enqueue(limits=[slots(2)])
    assert limited.lease_one().job_id == first
    by_one = limited.enqueue(limits=[slots(1)])
    by_two = limited.enqueue(limits=[slots(2)])
    held = limited.lease_one()
    assert held.job_id == by_two

    limited.finish(held)
    assert limited.lease() == []
    assert limited.job(by_one).status == SCHEDULED


def test_a_job_cannot_ask_twice_for_slots_of_one_queue(limited):
    fields = limited.job_fields(limits=[slots(1), slots(2, "other"), slots(3)])

    assert limited.refusal("Enqueue", **fields) == (
        StatusCode.INVALID_ARGUMENT,
        "duplicate concurrency key 'queue'",
    )
    [result] = limited.import_jobs(fields)
    assert result.error == "status: InvalidArgument, message: \"duplicate concurrency key 'queue'\""


def test_a_job_that_waits_or_will_cannot_be_deleted_nor_one_that_runs(limited):
    # A23
    runs, waits = (limited.enqueue(limits=[slots()]) for _ in range(2))
    later = limited.enqueue(limits=[slots()], start_at_ms=LATER_MS)
    task = limited.lease_one()
    for job_id in (runs, waits, later):
        assert limited.refusal("DeleteJob", id=job_id) == (
            StatusCode.INTERNAL,
            f"cannot delete job {job_id}: job is currently running or has pending requests",
        )

    limited.finish(task)
    limited.call("DeleteJob", id=runs)
    assert not limited.has(runs)


# --- many at once ----------------------------------------------------------------------------------------------------


def test_of_many_that_come_together_each_runs_once(limited):
    # A11, A12
    ids = [
        reply.id
        for reply in limited.at_once("Enqueue", *(limited.job_fields(limits=[slots()]) for _ in range(20)))
    ]
    task = limited.lease_one()
    assert limited.lease() == []

    done = [limited.finish(task), *limited.finish_all()]
    assert sorted(done) == sorted(ids)
    assert limited.drop_holders() == 0


def test_no_two_workers_get_the_same_task_nor_one_that_is_not_due(limited):
    # A13, A14
    for _ in range(30):
        limited.enqueue(limits=[slots(25)])
        limited.enqueue(limits=[slots(25, "later")], start_at_ms=LATER_MS)
    ask = {"task_group": limited.group, "max_tasks": 4}
    replies = limited.at_once("LeaseTasks", *(ask | {"worker_id": f"w{number}"} for number in range(10)))
    tasks = [task for reply in replies for task in reply.tasks]

    assert len({task.id for task in tasks}) == len({task.job_id for task in tasks}) == len(tasks) == 25
    for task in tasks:
        limited.finish(task)
    assert len(limited.finish_all()) == 5
    assert limited.drop_holders() == 0


def test_as_many_are_let_in_as_finish_together(limited):
    # A15
    for _ in range(20):
        limited.enqueue(limits=[slots(5)])
    first = limited.lease(20)
    limited.at_once("ReportOutcome", *(limited.report_fields(task, success=b"") for task in first))
    second = limited.lease(20)

    assert (len(first), len(second)) == (5, 5)
    assert not {task.job_id for task in first} & {task.job_id for task in second}
    assert limited.drop_holders() == 5


# --- a start in the future -------------------------------------------------------------------------------------------


def test_a_job_for_later_holds_nothing_before_its_time_and_is_not_let_in_early(limited):
    # A30, A32
    limited.enqueue(limits=[slots(2)])
    for _ in range(2):
        limited.enqueue(limits=[slots(2)], start_at_ms=LATER_MS)
    limited.finish(limited.lease_one())
    assert limited.lease() == []

    now = limited.enqueue(limits=[slots(2)])
    assert limited.lease_one().job_id == now
    assert limited.drop_holders() == 1


def test_a_job_for_later_runs_once_when_its_time_has_come(limited):
    # A31
    limited.enqueue(limits=[slots()])
    later = limited.enqueue(limits=[slots()], start_at_ms=soon_ms())
    limited.finish(limited.lease_one())

    assert limited.lease() == []
    found: list[str] = []

    def runs() -> bool:
        found.extend(task.job_id for task in limited.lease())
        return bool(found)

    limited.wait_until(runs)
    assert (found, limited.lease()) == ([later], [])


def test_many_jobs_for_later_leave_the_slot_to_whoever_comes_first(limited):
    # A33
    starts = [LATER_MS + number for number in range(10)]
    jobs = [limited.enqueue(limits=[slots()], start_at_ms=start_ms) for start_ms in starts]
    assert [limited.job(job_id).next_attempt_starts_after_ms for job_id in jobs] == starts
    assert limited.drop_holders() == 0

    now = limited.enqueue(limits=[slots()])
    assert limited.lease_one().job_id == now


def parked(limited, job_id: str) -> bool:
    """Whether a job waits for a slot, told by why it cannot be expedited; one that waits for its time still is."""
    _, text = limited.refusal("ExpediteJob", id=job_id)
    return "no pending task" in text


def test_a_job_that_comes_due_at_a_full_queue_waits_in_line(limited):
    # A34
    limited.enqueue(limits=[slots()])
    later = limited.enqueue(limits=[slots()], start_at_ms=LATER_MS)
    limited.call("ExpediteJob", id=later)
    assert parked(limited, later)
    assert (limited.job(later).status, len(limited.lease())) == (SCHEDULED, 1)
    assert limited.drop_holders() == 1

    assert limited.lease_one().job_id == later
    assert limited.drop_holders() == 1


def test_one_that_came_due_and_is_cancelled_in_line_is_never_let_in(limited):
    # A35
    limited.enqueue(limits=[slots()])
    later = limited.enqueue(limits=[slots()], start_at_ms=LATER_MS)
    limited.call("ExpediteJob", id=later)
    limited.call("CancelJob", id=later)
    limited.finish(limited.lease_one())

    assert limited.lease() == []
    assert limited.drop_holders() == 0


def test_a_job_that_is_cancelled_before_its_time_leaves_its_slot_to_the_next(limited):
    # A36, A75
    gone = limited.enqueue(limits=[slots()], start_at_ms=soon_ms(50))
    limited.call("CancelJob", id=gone)
    next_one = limited.enqueue(limits=[slots()], start_at_ms=soon_ms(60))
    found: list[str] = []

    def runs() -> bool:
        found.extend(task.job_id for task in limited.lease())
        return bool(found)

    limited.wait_until(runs)
    assert (found, limited.lease()) == ([next_one], [])
    assert limited.drop_holders() == 1


# --- tried again -----------------------------------------------------------------------------------------------------


def test_a_retry_gives_back_the_slot_of_the_attempt_before_and_takes_one_of_its_own(limited):
    # A40, A43
    job_id = limited.enqueue(limits=[slots()], retry_policy=AGAIN_IN_AN_HOUR)
    tasks = set()
    for _ in range(3):
        task = limited.lease_one()
        tasks.add(task.id)
        limited.report(task, failure=("E", b""))
        assert limited.drop_holders() == 0
        limited.call("ExpediteJob", id=job_id)
    limited.finish(limited.lease_one())

    assert len(tasks) == 3
    assert limited.drop_holders() == 0


@pytest.mark.parametrize("waiters", [1, 2])
def test_a_retry_stands_behind_those_who_wait_already(limited, waiters):
    # A41, A42
    again = limited.enqueue(limits=[slots()], retry_policy=AGAIN_AT_ONCE)
    waiting = [limited.enqueue(limits=[slots()]) for _ in range(waiters)]
    limited.report(limited.lease_one(), failure=("E", b""))

    done = []
    while tasks := limited.lease():
        assert len(tasks) == 1
        done.append(limited.finish(tasks[0]))
    assert done == [*waiting, again]
    assert limited.drop_holders() == 0


def test_while_one_waits_for_its_next_try_only_the_other_holds_a_slot(limited):
    # A44
    again = limited.enqueue(limits=[slots(2)], retry_policy=AGAIN_IN_AN_HOUR)
    limited.enqueue(limits=[slots(2)])
    failing, other = limited.lease()
    limited.report(failing, failure=("E", b""))
    extra = limited.enqueue(limits=[slots(2)])
    assert limited.finish(limited.lease_one()) == extra

    limited.call("ExpediteJob", id=again)
    [second] = limited.lease()
    limited.enqueue(limits=[slots(2)])
    assert limited.lease() == []
    for task in (other, second, *limited.lease()):
        limited.finish(task)
    assert len(limited.finish_all()) == 1
    assert limited.drop_holders() == 0


# --- an operator takes slots away ------------------------------------------------------------------------------------


def test_slots_that_are_dropped_leave_all_work_as_it_is_and_let_others_in(limited, tenants):
    # A111
    for _ in range(2):
        limited.enqueue(limits=[slots(2, "a"), slots(2, "b")])
    running = limited.lease_one(max_tasks=1)
    waiting = limited.enqueue(limits=[slots(2, "a")])
    other = {"tenant": f"{tenants.group}-other"}
    tenants.enqueue(limits=[slots(1, "a")], **other)

    assert limited.drop_holders() == 4
    assert limited.job(running.job_id).status == pb.JOB_STATUS_RUNNING
    assert {limited.job(task.job_id).status for task in limited.lease()} == {pb.JOB_STATUS_RUNNING}
    assert limited.job(waiting).status == pb.JOB_STATUS_RUNNING
    limited.finish(running)
    assert limited.drop_holders() == 1
    assert limited.drop_holders() == 0
    assert tenants.call("DropTenantHolders", **other).holders_dropped == 1
