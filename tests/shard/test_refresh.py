"""Floating maxima and the workers who find them out."""

from __future__ import annotations

from typing import Any

import pytest

from silo.domain.jobs import LEASE_MS
from silo.errors import CallFailed, LeaseNotFound, WrongState
from silo.events.catalogue import (
    RefreshExpired,
    RefreshFailed,
    RefreshLeased,
    RefreshRenewed,
    RefreshScheduled,
    RefreshSucceeded,
    SlotGranted,
)
from silo.projections.concurrency import QUEUES, REFRESHES_DUE
from silo.projections.leases import LEASES
from silo.projections.refreshes import REFRESHES
from silo.shard.cancel import cancel
from silo.shard.draft import Caller
from silo.shard.due import PER_COMMAND_MAX
from silo.shard.expire import expire_leases
from silo.shard.lease import heartbeat, lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.refresh import (
    LeasedRefresh,
    NotRefreshed,
    Refreshed,
    ReportRefresh,
    lease_work,
    report_refresh,
    schedule_due_refreshes,
)
from tests.builders import NAME, NOW, a_floating_limit, a_heartbeat, a_limit, for_worker, named, success
from tests.shard.days import ended, enqueued, granted, leased, refreshed
from tests.story import Story, kinds

MINUTE = 60_000
F = a_floating_limit(1, "f", refresh_interval_ms=MINUTE, metadata=(("region", "eu"),))


def waited_for(limit: Any = F) -> Story:
    """A floating limit with one holder who runs, and one who waits; its refresh is scheduled."""
    story = enqueued(Story(), "j1", limits=(limit,))
    leased(story)
    return enqueued(story, "j2", limits=(limit,))


def floating(story: Story) -> Any:
    return story.row(QUEUES, "acme", "f").floating


def the_refresh(story: Story, **worker: Any) -> LeasedRefresh:
    """The only refresh, leased."""
    [refresh] = story.when(lease_work, for_worker(**worker)).reply.refreshes
    return refresh


# --- leasing ---------------------------------------------------------------------------------------------------------


def test_a_worker_is_told_what_to_find_out_and_what_was_known_before():
    # A124
    story = waited_for()
    refresh = the_refresh(story.at(NOW + 3), worker_id="w")

    assert refresh == LeasedRefresh(
        task_id=refresh.task_id,
        tenant="acme",
        queue="f",
        task_group="group",
        maximum=1,
        refreshed_ms=0,
        metadata=(("region", "eu"),),
    )
    assert kinds(story.events) == [RefreshLeased]
    assert story.row(LEASES, refresh.task_id).expires_ms == NOW + 3 + LEASE_MS
    assert not story.table(REFRESHES)


def test_the_group_of_the_job_that_made_it_due_is_asked():
    # A124
    story = enqueued(Story(), "j1", limits=(F,))
    enqueued(story, "j2", limits=(F,), task_group="other")

    assert story.when(lease_work, for_worker()).reply.refreshes == []
    assert the_refresh(story, task_group="other").task_group == "other"


def test_a_refresh_is_handed_out_once():
    story = waited_for()
    the_refresh(story)

    assert story.when(lease_work, for_worker()).reply.refreshes == []


def test_refreshes_are_handed_out_in_the_order_in_which_they_became_due_and_apart_from_tasks():
    story = Story()
    for key in "cab":
        enqueued(story, f"{key}1", f"{key}2", limits=(a_floating_limit(1, key),))
    work = story.when(lease_work, for_worker(max_tasks=2)).reply
    assert ([task.job_id for task in work.tasks], [one.queue for one in work.refreshes]) == (
        ["c1", "a1"],
        ["c", "a"],
    )

    assert story.when(lease_work, for_worker(max_tasks=0)).reply.refreshes == []
    assert [one.queue for one in story.when(lease_work, for_worker()).reply.refreshes] == ["b"]


def test_tasks_alone_can_be_leased():
    story = waited_for()

    assert story.when(lease_tasks, for_worker()).events == []
    assert len(story.table(REFRESHES)) == 1


def test_a_refresh_is_kept_alive_like_a_task():
    story = waited_for()
    refresh = the_refresh(story)
    assert story.at(NOW + 1).when(heartbeat, a_heartbeat(refresh.task_id)).events == []
    assert kinds(story.at(NOW + 6_000).when(heartbeat, a_heartbeat(refresh.task_id)).events) == [
        RefreshRenewed
    ]
    assert story.row(LEASES, refresh.task_id).expires_ms == NOW + 6_000 + LEASE_MS

    with pytest.raises(WrongState, match="lease owner mismatch"):
        story.when(heartbeat, a_heartbeat(refresh.task_id, "somebody else"))


def test_the_refresh_of_the_queue_without_a_name_is_a_refresh_all_the_same():
    story = waited_for(a_floating_limit(0, ""))
    refresh = the_refresh(story)
    assert story.row(LEASES, refresh.task_id).queue == ""

    assert story.at(NOW + 6_000).when(heartbeat, a_heartbeat(refresh.task_id)).reply is None
    with pytest.raises(LeaseNotFound):
        story.when(report_outcome, success(refresh.task_id))
    story.at(NOW + 6_000 + LEASE_MS).when(expire_leases)
    assert kinds(story.events) == [RefreshExpired]

    assert kinds(story.when(schedule_due_refreshes).events) == [RefreshScheduled]
    assert granted(refreshed(story, 2).events) == [("j1", ""), ("j2", "")]


def test_a_refresh_has_no_cancellation_of_its_own():
    story = waited_for()
    refresh = the_refresh(story)
    story.when(cancel, NAME)

    assert story.when(heartbeat, a_heartbeat(refresh.task_id)).reply is None


# --- what was found out ----------------------------------------------------------------------------------------------


def test_a_new_maximum_lets_in_as_many_as_it_has_room_for():
    # A125
    story = refreshed(enqueued(waited_for(), "j3", "j4", limits=(F,), task_group="other"), 3)

    assert kinds(story.events) == [RefreshSucceeded, SlotGranted, SlotGranted]
    assert (floating(story).maximum, floating(story).refreshed_ms) == (3, NOW)
    assert (floating(story).failures, floating(story).refresh) == (0, None)
    assert story.places()["j4"] == "waiting"


def test_a_maximum_that_sank_lets_nobody_in_and_takes_nothing_away():
    # A94
    story = enqueued(Story(), "j1", "j2", "j3", limits=(a_floating_limit(2, "f"),))
    leased(story)
    refreshed(story, 0)
    assert (floating(story).maximum, story.row(QUEUES, "acme", "f").holders) == (0, 2)

    ended(story, "j1")
    ended(story, "j2")
    assert story.places() == {"j3": "waiting"}


def test_a_maximum_that_stays_is_fresh_all_the_same():
    story = refreshed(waited_for(), 1)

    assert kinds(story.events) == [RefreshSucceeded]
    assert list(story.table(REFRESHES_DUE)) == [(NOW + MINUTE, "acme", "f")]


def test_those_with_a_fixed_maximum_have_nothing_of_a_raise():
    story = enqueued(waited_for(), "fixed", limits=(a_limit(1, "f"),))

    assert granted(refreshed(story, 9).events) == [("j2", "f")]
    assert story.places()["fixed"] == "waiting"


def test_each_failure_makes_the_next_try_later_up_to_a_minute():
    # A126
    story = waited_for()
    waits = []
    for failures in range(1, 10):
        refreshed(story, None)
        assert kinds(story.events) == [RefreshFailed]
        assert (floating(story).maximum, floating(story).failures) == (1, failures)
        waits.append(floating(story).retry_ms - story.now_ms)
        assert story.at(floating(story).retry_ms - 1).when(schedule_due_refreshes).reply == 0
        assert story.at(floating(story).retry_ms).when(schedule_due_refreshes).reply == 1

    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]


def test_a_success_forgets_the_failures_before_it():
    # A126
    story = waited_for()
    for _ in range(2):
        refreshed(story, None).at(floating(story).retry_ms).when(schedule_due_refreshes)
    refreshed(story, 4)

    assert (floating(story).maximum, floating(story).failures, floating(story).retry_ms) == (4, 0, 0)


def test_who_comes_after_a_failure_does_not_make_it_tried_earlier():
    # A126
    story = refreshed(waited_for(), None)

    assert RefreshScheduled not in kinds(enqueued(story, "j3", limits=(F,)).events)


def test_a_failure_is_not_tried_again_while_nobody_waits():
    # A127
    story = waited_for()
    refresh = the_refresh(story)
    story.when(cancel, named("j2"))
    story.when(report_refresh, ReportRefresh(refresh.task_id, NotRefreshed("E", "message")))
    assert (floating(story).failures, floating(story).retry_ms) == (1, NOW + 1_000)
    assert story.at(NOW + MINUTE).when(schedule_due_refreshes).reply == 0

    # Whoever waits next has it tried.
    assert kinds(enqueued(story, "j3", limits=(F,)).events)[-1] is RefreshScheduled


# --- by the clock ----------------------------------------------------------------------------------------------------


def test_a_maximum_is_found_out_anew_when_it_is_old_and_somebody_waits():
    # A122
    story = refreshed(waited_for(), 1)
    assert story.at(NOW + MINUTE - 1).when(schedule_due_refreshes).reply == 0

    story.at(NOW + MINUTE).when(schedule_due_refreshes)
    assert kinds(story.events) == [RefreshScheduled]
    assert story.events[0].task_group == "group"
    assert the_refresh(story).refreshed_ms == NOW


def test_of_all_who_wait_the_first_ones_workers_are_asked():
    story = refreshed(waited_for(), 1)
    enqueued(story, "urgent", limits=(F,), task_group="urgent group", enqueue_time_ms=1)
    story.at(NOW + MINUTE).when(schedule_due_refreshes)

    assert story.events[0].task_group == "urgent group"


def test_a_maximum_that_is_old_is_left_alone_while_nobody_waits():
    # A122
    story = refreshed(waited_for(), 2)

    assert story.at(NOW + 10 * MINUTE).when(schedule_due_refreshes).reply == 0


def test_many_maxima_are_made_due_in_pieces():
    story = Story()
    keys = [f"{number:03}" for number in range(PER_COMMAND_MAX + 1)]
    for key in keys:
        enqueued(story, key, limits=(a_floating_limit(0, key, refresh_interval_ms=MINUTE),))
    for _ in keys:
        refreshed(story, 0)
    story.at(NOW + MINUTE)

    assert [story.when(schedule_due_refreshes).reply for _ in range(3)] == [PER_COMMAND_MAX, 1, 0]


def test_a_worker_who_is_silent_loses_the_refresh_and_another_one_is_asked():
    # A128
    story = waited_for()
    refreshed(story, None).at(NOW + 1_000).when(schedule_due_refreshes)
    refresh = the_refresh(story, worker_id="w")
    before = floating(story)
    # The worker of j1 is silent as well; its lease is the older one.
    story.at(NOW + 1_000 + LEASE_MS).when(expire_leases)

    [expired] = [event for event in story.events if isinstance(event, RefreshExpired)]
    assert (expired.worker_id, expired.expired_ms) == ("w", NOW + 1_000 + LEASE_MS)
    assert story.row(LEASES, refresh.task_id) is None
    after = floating(story)
    assert (after.failures, after.retry_ms, after.maximum) == (
        before.failures,
        before.retry_ms,
        before.maximum,
    )
    assert (after.refreshed_ms, after.metadata, after.refresh) == (before.refreshed_ms, before.metadata, None)
    with pytest.raises(LeaseNotFound):
        story.when(report_refresh, ReportRefresh(refresh.task_id, Refreshed(9)))


def test_after_an_expiry_just_one_refresh_is_scheduled_by_the_clock_or_by_who_waits_next():
    # A128
    story = waited_for(a_floating_limit(0, "f"))
    the_refresh(story)
    story.at(NOW + LEASE_MS).when(expire_leases)
    assert kinds(story.events) == [RefreshExpired]
    assert kinds(enqueued(story, "j3", limits=(F,)).events)[-1] is RefreshScheduled
    assert story.when(schedule_due_refreshes).reply == 0

    the_refresh(story)
    story.at(NOW + 2 * LEASE_MS).when(expire_leases)
    assert kinds(story.when(schedule_due_refreshes).events) == [RefreshScheduled]
    assert RefreshScheduled not in kinds(enqueued(story, "j4", limits=(F,)).events)


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Refreshed(5), NotRefreshed("E", "message")])
def test_what_is_no_leased_refresh_cannot_be_reported(outcome):
    # A130
    story = waited_for()
    task_id = story.job().chain.task_id
    with pytest.raises(LeaseNotFound):
        story.when(report_refresh, ReportRefresh("no such task", outcome))
    with pytest.raises(CallFailed, match="codec error: task is not a RefreshFloatingLimit"):
        story.when(report_refresh, ReportRefresh(task_id, outcome))

    refresh = the_refresh(story)
    story.when(report_refresh, ReportRefresh(refresh.task_id, outcome))
    before = story.everything()
    with pytest.raises(LeaseNotFound):
        story.when(report_refresh, ReportRefresh(refresh.task_id, outcome))
    assert story.everything() == before


def test_a_refresh_is_no_attempt_of_a_job():
    story = waited_for()
    refresh = the_refresh(story)
    before = story.everything()

    with pytest.raises(LeaseNotFound):
        story.when(report_outcome, success(refresh.task_id))
    assert story.everything() == before


def test_a_report_without_a_name_is_the_leaseholders():
    story = waited_for()
    refresh = the_refresh(story, worker_id="w")
    story.caller = Caller(actor="", method="ReportRefreshOutcome")
    story.when(report_refresh, ReportRefresh(refresh.task_id, Refreshed(2)))

    assert {(event.actor, event.method) for event in story.events} == {("w", "ReportRefreshOutcome")}
