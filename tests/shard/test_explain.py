"""Where a job stands, behind whom: told from the rows."""

from __future__ import annotations

import pytest

from silo.domain.limits import RateLimitRetry
from silo.errors import JobNotFound
from silo.projections.jobs import Place
from silo.shard import explain as explain_module
from silo.shard.cancel import cancel
from silo.shard.enqueue import enqueue
from silo.shard.explain import Ahead, Explanation, explain
from silo.shard.jobs import JobName
from silo.shard.lease import lease_tasks
from tests.builders import LATER, NOW, a_floating_limit, a_job, a_limit, a_rate_limit, for_worker
from tests.story import Story


def with_jobs(*limits, jobs: int, **but) -> Story:
    """Jobs `j1`, `j2` and so on, with the same limits, enqueued a millisecond after one another."""
    story = Story()
    for number in range(1, jobs + 1):
        story.at(NOW + number).when(enqueue, a_job(job_id=f"j{number}", limits=limits, **but))
    return story


def told(story: Story, job_id: str) -> Explanation:
    return story.when(explain, JobName("acme", job_id)).reply


def test_a_job_that_does_not_exist_cannot_be_explained():
    with pytest.raises(JobNotFound):
        told(Story(), "nobody")


def test_a_waiter_is_told_how_many_are_before_it_and_who_is_first():
    last = told(with_jobs(a_limit(1), jobs=5), "j5")

    assert last.row.chain.place is Place.WAITING
    assert last.ahead == Ahead(count=3, is_all=True, first=("j2", "j3", "j4"))
    assert (last.gate.maximum, last.gate.holders, last.gate.waiters) == (1, 1, 4)


def test_those_who_go_by_another_maximum_are_before_it_if_their_turn_is_earlier():
    story = Story()
    for number, maximum in enumerate((2, 2, 1, 2, 1), start=1):
        story.at(NOW + number).when(enqueue, a_job(job_id=f"j{number}", limits=(a_limit(maximum),)))

    assert told(story, "j4").ahead.first == ("j3",)
    assert told(story, "j5").ahead.first == ("j3", "j4")


def test_of_a_very_long_line_only_so_many_are_counted(monkeypatch):
    monkeypatch.setattr(explain_module, "COUNTED_MAX", 2)

    assert told(with_jobs(a_limit(1), jobs=5), "j5").ahead == Ahead(
        count=2, is_all=False, first=("j2", "j3", "j4")
    )


def test_a_ready_job_is_told_who_is_before_it_in_its_task_group():
    assert told(with_jobs(jobs=3), "j3").ahead == Ahead(count=2, is_all=True, first=("j1", "j2"))


def test_gates_are_told_in_the_order_in_which_they_are_passed():
    story = with_jobs(a_limit(2, "wide"), a_limit(1, "narrow"), a_rate_limit(), jobs=2)

    gates = told(story, "j2").gates
    assert [(gate.passed, gate.is_here) for gate in gates] == [(True, False), (False, True), (False, False)]
    assert [gate.holders for gate in gates] == [2, 1, None]
    assert gates[2].remaining == 9


def test_a_floating_limit_is_told_with_the_maximum_that_workers_found_out():
    story = with_jobs(a_floating_limit(3), a_limit(0, "closed"), jobs=1)

    floating, closed = told(story, "j1").gates
    assert (floating.maximum, floating.floating.refreshed_ms) == (3, 0)
    assert (closed.maximum, closed.is_here) == (0, True)


def test_a_job_in_the_line_of_a_bucket_is_told_when_the_first_may_pass():
    story = with_jobs(a_rate_limit(1, duration_ms=5_000), jobs=3)

    third = told(story, "j3")
    assert third.row.chain.place is Place.THROTTLED
    assert third.ahead == Ahead(count=1, is_all=True, first=("j2",))
    assert third.line_ms == NOW + 1 + 5_000
    assert (third.gate.remaining, third.gate.waiters) == (0, 2)


def test_a_job_that_may_try_only_so_often_waits_by_itself():
    story = with_jobs(a_rate_limit(1, retry=RateLimitRetry(max_retries=3)), jobs=2)

    second = told(story, "j2")
    assert second.row.chain.place is Place.CHECKING
    assert second.ahead is None
    assert second.line_ms is None


def test_a_calendar_interval_is_looked_at_as_one():
    story = with_jobs(a_rate_limit(2, duration_ms=2, behavior=4), jobs=1)

    assert told(story, "j1").gates[0].remaining == 1


def test_a_running_job_is_told_with_its_lease():
    running = told(with_jobs(a_limit(1), jobs=1).when(lease_tasks, for_worker("w-1")), "j1")

    assert running.lease.worker_id == "w-1"
    assert running.gates[0].passed
    assert running.gate is None


def test_a_job_for_later_and_an_ended_one_stand_in_no_line():
    story = with_jobs(a_limit(1), jobs=1, enqueue_time_ms=LATER)
    assert told(story, "j1").ahead is None
    assert not told(story, "j1").gates[0].passed

    ended = told(story.when(cancel, JobName("acme", "j1")), "j1")
    assert ended.row.chain is None
    assert ended.ahead is None


def test_to_explain_changes_nothing():
    story = with_jobs(a_limit(1), a_rate_limit(1, behavior=8), jobs=3)
    before = story.everything()

    for job_id in ("j1", "j2", "j3"):
        assert told(story, job_id)
        assert story.events == []
    assert story.everything() == before
