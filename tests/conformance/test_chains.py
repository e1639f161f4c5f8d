"""Jobs with several limits: they are passed in the client's order, and what was passed is kept."""

from __future__ import annotations

from silo.pb import silo_pb2 as pb
from tests.conformance.limits import floating, rate, slots, soon_ms

SCHEDULED = pb.JOB_STATUS_SCHEDULED


def test_where_all_is_free_a_job_takes_all_it_needs_at_once(limited):
    # A50, A57
    limited.enqueue(limits=[floating(1, "a"), slots(1, "b"), slots(1, "c")])
    assert len(limited.lease()) == 1
    assert limited.lease() == []
    assert limited.drop_holders() == 3


def test_a_task_shows_its_limits_in_the_order_in_which_they_were_stated(limited):
    # A51
    limits = [slots(2, "b"), floating(3, "a", region="eu"), slots(1, "c")]
    limited.enqueue(limits=limits)
    task = limited.lease_one()

    assert list(task.limits) == limits
    assert list(limited.job(task.job_id).limits) == limits
    limited.finish(task)
    assert limited.drop_holders() == 0


def test_a_job_that_waits_at_its_second_limit_keeps_the_first(limited):
    # A52
    limited.enqueue(limits=[slots(1, "b")])
    waiter = limited.enqueue(limits=[slots(1, "a"), slots(1, "b")])
    behind = limited.enqueue(limits=[slots(1, "a")])
    holder = limited.lease_one()
    assert limited.lease() == []

    limited.finish(holder)
    task = limited.lease_one()
    assert task.job_id == waiter
    limited.finish(task)
    assert limited.lease_one().job_id == behind


def test_a_job_that_waits_at_its_first_limit_takes_nothing_of_the_second(limited):
    # A53
    limited.enqueue(limits=[slots(1, "a")])
    waiter = limited.enqueue(limits=[slots(1, "a"), slots(1, "b")])
    by_b = limited.enqueue(limits=[slots(1, "b")])
    first, second = limited.lease()
    assert second.job_id == by_b

    limited.finish(first)
    assert limited.lease() == []
    limited.finish(second)
    assert limited.lease_one().job_id == waiter
    assert limited.drop_holders() == 2


def test_a_job_that_had_to_wait_is_leased_by_the_start_that_it_always_had(limited):
    # A54
    limited.enqueue(limits=[slots()])
    holder = limited.lease_one()
    waiter = limited.enqueue(limits=[slots()], start_at_ms=1_000)
    later = limited.enqueue(start_at_ms=2_000)
    limited.finish(holder)

    assert limited.job(waiter).next_attempt_starts_after_ms == 1_000
    assert [task.job_id for task in limited.lease()] == [waiter, later]


def test_a_job_that_was_let_in_after_waiting_can_be_cancelled_and_gives_its_slot_to_the_next(limited):
    # A54
    limited.enqueue(limits=[slots()])
    holder = limited.lease_one()
    gone, next_one = (limited.enqueue(limits=[slots()]) for _ in range(2))
    limited.finish(holder)
    limited.call("CancelJob", id=gone)

    assert limited.lease_one().job_id == next_one
    assert limited.drop_holders() == 1


def test_many_may_pass_a_wide_limit_and_wait_at_a_narrow_one(limited):
    # A55
    both = [slots(3, "wide"), slots(1, "narrow")]
    jobs = [limited.enqueue(limits=both) for _ in range(3)]
    fourth = limited.enqueue(limits=[slots(3, "wide")])
    assert limited.job(fourth).status == SCHEDULED

    task = limited.lease_one()
    assert task.job_id == jobs[0]
    limited.finish(task)
    after = {task.job_id: task for task in limited.lease()}
    assert after.keys() == {jobs[1], fourth}
    assert limited.drop_holders() == 4  # two by jobs[1], one by the fourth, and one by jobs[2], which waits


def test_a_job_that_passed_two_limits_waits_at_a_rate_limit_with_both_and_cancelling_frees_them(limited):
    # A56
    limited.enqueue(limits=[rate(1)])
    limited.enqueue(limits=[slots(1, "b")])
    used, holder = limited.lease()
    waiter = limited.enqueue(limits=[slots(1, "a"), slots(1, "b"), rate(1)])
    limited.finish(holder)
    assert limited.lease() == []
    behind = [limited.enqueue(limits=[slots(1, key)]) for key in "ab"]
    assert limited.lease() == []

    limited.call("CancelJob", id=waiter)
    assert [task.job_id for task in limited.lease()] == behind
    limited.finish(used)
    assert limited.drop_holders() == 2


def test_a_job_for_later_with_two_limits_leaves_none_of_them_behind(limited):
    # A58
    limits = [floating(1, "a"), slots(1, "b")]
    later = limited.enqueue(limits=limits, start_at_ms=soon_ms())
    now = limited.enqueue(limits=limits[:1])
    done: list[str] = []

    def both_ran() -> bool:
        done.extend(limited.finish_all())
        return len(done) == 2

    limited.wait_until(both_ran)
    assert done == [now, later]
    assert limited.drop_holders() == 0


def test_a_restarted_job_passes_its_limits_once_more(limited):
    job_id = limited.enqueue(limits=[slots(1, "a"), slots(1, "b")])
    limited.report(limited.lease_one(), failure=("E", b""))
    holder = limited.enqueue(limits=[slots(1, "b")])
    task = limited.lease_one()
    assert task.job_id == holder
    limited.call("RestartJob", id=job_id)
    assert limited.lease() == []

    limited.finish(task)
    again = limited.lease_one()
    assert (again.job_id, again.attempt_number, again.relative_attempt_number) == (job_id, 2, 1)
    assert limited.drop_holders() == 2
