"""Limits whose maximum workers find out: when they are asked to, and what their answers do."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import Silo
from tests.conformance.limits import floating, slots

NO_LEASE = (StatusCode.NOT_FOUND, "lease not found")


def refreshes(silo: Silo, **but: object) -> list[pb.RefreshFloatingLimitTask]:
    return list(silo.work(**but).refresh_tasks)


def held_and_waited_for(silo: Silo, limit: pb.Limit) -> tuple[pb.Task, str]:
    """A limit with room for one: the task that has it, and a job that waits."""
    silo.enqueue(limits=[limit])
    return silo.lease_one(), silo.enqueue(limits=[limit])


def test_the_first_job_says_with_what_maximum_a_limit_begins_and_later_ones_do_not(limited):
    # A120
    limited.enqueue(limits=[floating(1)])
    limited.enqueue(limits=[floating(5)], task_group=f"{limited.group} other")
    assert len(limited.lease()) == 1
    assert limited.lease(task_group=f"{limited.group} other") == []


def test_all_groups_share_a_floating_limit(limited):
    # A121
    groups = [f"{limited.group} {number}" for number in range(3)]
    for group in groups:
        limited.enqueue(limits=[floating(1)], task_group=group)

    done = []
    while tasks := [task for group in groups for task in limited.lease(task_group=group)]:
        assert len(tasks) == 1
        done.append(limited.finish(tasks[0]))
    assert len(done) == 3
    assert limited.drop_holders() == 0


@pytest.mark.parametrize("default", [1, 2])
def test_a_maximum_that_is_old_is_to_be_found_out_once_however_many_wait(limited, default):
    # A122
    for _ in range(default):
        limited.enqueue(limits=[floating(default)])
    assert refreshes(limited) == []

    for _ in range(5):
        limited.enqueue(limits=[floating(default)])
    assert len(refreshes(limited)) == 1
    assert refreshes(limited) == []


def test_who_waits_is_let_in_while_another_still_holds_a_slot(limited):
    # A123
    for _ in range(2):
        limited.enqueue(limits=[floating(2)])
    tasks = limited.lease()
    assert len(tasks) == 2
    third = limited.enqueue(limits=[floating(2)])
    assert limited.lease() == []

    limited.finish(tasks[0])
    assert limited.lease_one().job_id == third


def test_a_worker_is_told_what_to_find_out(limited):
    # A124
    held_and_waited_for(limited, floating(1, "provider", region="eu", plan="süd"))
    [refresh] = refreshes(limited)

    assert refresh == pb.RefreshFloatingLimitTask(
        id=refresh.id,
        queue_key="provider",
        current_max_concurrency=1,
        last_refreshed_at_ms=0,
        metadata={"region": "eu", "plan": "süd"},
        lease_ms=10_000,
        shard=limited.node.shard_of(limited.tenant),
        task_group=limited.group,
        tenant_id=limited.tenant,
    )


def test_the_workers_of_the_job_that_waits_are_asked(limited):
    # A124
    other = f"{limited.group} other"
    limited.enqueue(limits=[floating(1)])
    limited.enqueue(limits=[floating(1)], task_group=other)

    assert refreshes(limited) == []
    assert [refresh.task_group for refresh in refreshes(limited, task_group=other)] == [other]


def test_refreshes_do_not_count_as_tasks(limited):
    for key in "ab":
        limited.enqueue(limits=[floating(0, key)])
    limited.enqueue()
    work = limited.work(max_tasks=1)

    assert (len(work.tasks), len(work.refresh_tasks)) == (1, 1)
    assert limited.work(max_tasks=0) == pb.LeaseTasksResponse()
    assert len(refreshes(limited)) == 1


def test_a_new_maximum_lets_in_those_who_wait_of_all_groups(limited):
    # A125
    other = f"{limited.group} other"
    held_and_waited_for(limited, floating(1))
    limited.enqueue(limits=[floating(1)], task_group=other)
    [refresh] = refreshes(limited)
    limited.report_refresh(refresh, 3)
    assert (len(limited.lease()), len(limited.lease(task_group=other))) == (1, 1)

    limited.enqueue(limits=[floating(1)])
    assert limited.work() == pb.LeaseTasksResponse()


def test_the_next_worker_who_is_asked_is_told_what_the_last_one_said(limited):
    # A125
    held_and_waited_for(limited, floating(1, interval_ms=0))
    before_ms = time.time_ns() // 1_000_000
    limited.enqueue(limits=[floating(1, interval_ms=0)])
    [refresh] = refreshes(limited)
    limited.report_refresh(refresh, 2)

    [refresh] = refreshes_in_time(limited)
    assert refresh.current_max_concurrency == 2
    assert before_ms <= refresh.last_refreshed_at_ms <= time.time_ns() // 1_000_000


def refreshes_in_time(silo: Silo) -> list[pb.RefreshFloatingLimitTask]:
    """What is to be found out as soon as there is something."""
    found: list[pb.RefreshFloatingLimitTask] = []

    def there_is() -> bool:
        found.extend(refreshes(silo))
        return bool(found)

    silo.wait_until(there_is)
    return found


def test_a_maximum_may_begin_with_nothing_and_is_found_out_for_the_first_who_waits(limited):
    waiter = limited.enqueue(limits=[floating(0)])
    work = limited.work()
    assert list(work.tasks) == []

    limited.report_refresh(work.refresh_tasks[0], 1)
    assert limited.lease_one().job_id == waiter


def test_a_maximum_that_sank_takes_nothing_away_and_lets_nobody_in_until_it_is_kept(limited):
    for _ in range(3):
        limited.enqueue(limits=[floating(3)])
    running = limited.lease()
    waiter = limited.enqueue(limits=[floating(3)])
    [refresh] = refreshes(limited)
    limited.report_refresh(refresh, 1)
    assert limited.lease() == []

    for task in running[:2]:
        limited.finish(task)
        assert limited.lease() == []
    limited.finish(running[2])
    assert limited.lease_one().job_id == waiter


def test_a_maximum_of_nothing_holds_everybody_back(limited):
    held, waiter = held_and_waited_for(limited, floating(1))
    [refresh] = refreshes(limited)
    limited.report_refresh(refresh, 0)
    limited.finish(held)

    assert limited.lease() == []
    assert limited.job(waiter).status == pb.JOB_STATUS_SCHEDULED


def test_a_refresh_that_failed_is_tried_again_later_and_nothing_has_changed(limited):
    # A126
    held, waiter = held_and_waited_for(limited, floating(1, interval_ms=0))
    [refresh] = refreshes(limited)
    limited.report_refresh(refresh, None)
    assert refreshes(limited) == []

    # Not by another job either.
    limited.enqueue(limits=[floating(1, interval_ms=0)])
    assert limited.work() == pb.LeaseTasksResponse()
    limited.finish(held)
    assert limited.lease_one().job_id == waiter


def test_nobody_waits_so_a_failed_refresh_is_not_tried_again(limited):
    # A127
    held, waiter = held_and_waited_for(limited, floating(1, interval_ms=0))
    [refresh] = refreshes(limited)
    limited.call("CancelJob", id=waiter)
    limited.report_refresh(refresh, None)
    limited.finish(held)
    limited.enqueue(limits=[floating(1, interval_ms=0)])

    assert len(limited.lease()) == 1
    assert refreshes(limited) == []


def test_a_floating_limit_is_read_back_as_it_was_stated(limited):
    # A129, A130
    limit = floating(1, "provider", interval_ms=-5, region="eu")
    held, waiter = held_and_waited_for(limited, limit)
    limited.finish(held)
    task = limited.lease_one()

    assert task.job_id == waiter
    assert list(task.limits) == list(limited.job(waiter).limits) == [limit]


def test_a_refresh_is_reported_once_and_says_what_became_of_it(limited):
    # A130
    held, _ = held_and_waited_for(limited, floating(1))
    [refresh] = refreshes(limited)
    about = {"shard": refresh.shard, "task_id": refresh.id}

    assert limited.refusal("ReportRefreshOutcome", **about) == (
        StatusCode.INVALID_ARGUMENT,
        "missing outcome",
    )
    # What is a refresh is no task, and the other way round; both stay leased.
    assert limited.refusal("ReportOutcome", success=pb.SerializedBytes(), **about) == NO_LEASE
    assert limited.refusal("ReportRefreshOutcome", task_id=held.id, success=pb.RefreshSuccess()) == (
        StatusCode.INTERNAL,
        "codec error: task is not a RefreshFloatingLimit",
    )
    limited.report_refresh(refresh, 1)
    assert limited.refusal("ReportRefreshOutcome", success=pb.RefreshSuccess(), **about) == NO_LEASE
    limited.finish(held)


def test_a_refresh_is_kept_alive_by_the_worker_that_has_it(limited):
    held_and_waited_for(limited, floating(1))
    [refresh] = refreshes(limited, worker_id="mine")
    beat = {"shard": refresh.shard, "task_id": refresh.id}

    assert limited.refusal("Heartbeat", worker_id="yours", **beat) == (
        StatusCode.FAILED_PRECONDITION,
        "lease owner mismatch",
    )
    assert limited.call("Heartbeat", worker_id="mine", **beat) == pb.HeartbeatResponse()


def test_fixed_and_floating_jobs_share_the_slots_of_one_queue(limited):
    held, waiter = held_and_waited_for(limited, floating(1))
    by_two = limited.enqueue(limits=[slots(2)])
    assert limited.lease_one().job_id == by_two

    limited.finish(held)
    # The floating maximum is 1, and the other one has that slot.
    assert limited.lease() == []
    assert limited.job(waiter).status == pb.JOB_STATUS_SCHEDULED


def test_the_maximum_is_found_out_anew_whenever_it_is_old_and_somebody_waits(limited):
    """Nobody enqueues anything in between: it is the clock that asks."""
    held_and_waited_for(limited, floating(1, interval_ms=50))
    told_ms = []
    for maximum in (1, 1, 1, 2):
        [refresh] = refreshes_in_time(limited)
        told_ms.append(refresh.last_refreshed_at_ms)
        limited.report_refresh(refresh, maximum)

    assert all(later >= earlier + 50 for earlier, later in pairwise(told_ms))
    assert len(limited.lease()) == 1
    assert refreshes(limited) == []
