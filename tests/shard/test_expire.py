"""Leases that run out, and what becomes of the attempts, the slots and the refreshes behind them."""

from __future__ import annotations

import msgpack
import pytest

from silo.domain.jobs import LEASE_MS, AttemptStatus, JobStatus
from silo.errors import LeaseNotFound
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    ChainStarted,
    JobCancelled,
    JobFailed,
    LeaseExpired,
    LeaseRenewed,
    RefreshExpired,
    RefreshRenewed,
    SlotGranted,
    SlotWaited,
)
from silo.projections.concurrency import QUEUES
from silo.projections.leases import EXPIRIES, LEASES
from silo.shard.due import PER_COMMAND_MAX
from silo.shard.enqueue import enqueue
from silo.shard.expire import expire_leases
from silo.shard.lease import heartbeat, lease_tasks
from silo.shard.lease_clock import LeaseClock
from silo.shard.outcome import report_outcome
from silo.shard.refresh import lease_work
from tests.builders import (
    LATER,
    NOW,
    a_floating_limit,
    a_heartbeat,
    a_job,
    a_limit,
    a_policy,
    fact,
    for_worker,
    named,
    running,
    running_to_be_cancelled,
    success,
)
from tests.shard.days import ended, enqueued, leased
from tests.story import Story, kinds

EXPIRY = NOW + LEASE_MS
A = a_limit(1, "a")


def test_a_silent_worker_loses_its_lease_and_the_attempt_counts_as_crashed():
    # A19
    story = Story().given(*running()).at(EXPIRY + 3).when(expire_leases)

    assert kinds(story.events) == [LeaseExpired, AttemptFailed, JobFailed]
    assert story.events[0] == fact(LeaseExpired)
    assert story.events[1].error_code == "WORKER_CRASHED"
    text = msgpack.unpackb(story.events[1].error_data)
    assert text == f"lease expired at {EXPIRY} (now {EXPIRY + 3}), worker=worker"
    assert [attempt.data for attempt in story.attempts()] == [story.events[1].error_data]
    assert story.job().status is JobStatus.FAILED
    assert not story.table(LEASES)
    assert not story.table(EXPIRIES)


@pytest.mark.parametrize(
    ("at_ms", "expired"), [(EXPIRY - 1, False), pytest.param(EXPIRY, True, id="to the millisecond")]
)
def test_a_lease_lasts_until_its_expiry(at_ms, expired):
    # A20
    story = Story().given(*running()).at(at_ms).when(expire_leases)

    assert bool(story.events) is expired


def test_a_crashed_attempt_is_used_up_and_the_next_one_waits_its_turn():
    # A19
    story = Story().given(*running(retry_policy=a_policy())).at(EXPIRY).when(expire_leases)

    assert kinds(story.events) == [LeaseExpired, AttemptFailed, ChainStarted]
    assert (story.events[2].attempt, story.events[2].start_ms) == (2, EXPIRY + 2_000)


@pytest.mark.parametrize("policy", [None, a_policy()])
def test_the_expired_lease_of_a_job_to_be_cancelled_cancels_it(policy):
    # A72
    story = Story().given(*running_to_be_cancelled(retry_policy=policy)).at(EXPIRY).when(expire_leases)

    assert kinds(story.events) == [LeaseExpired, AttemptCancelled, JobCancelled]
    assert story.job().status is JobStatus.CANCELLED
    assert [attempt.row.status for attempt in story.attempts()] == [AttemptStatus.CANCELLED]


def test_a_heartbeat_in_memory_saves_the_lease_and_is_logged_instead():
    story = Story().given(*running()).at(NOW + 4_000).when(heartbeat, a_heartbeat())
    assert story.events == []

    story.at(EXPIRY).when(expire_leases)
    assert story.events == [fact(LeaseRenewed, expires_ms=NOW + 4_000 + LEASE_MS)]
    assert list(story.table(EXPIRIES)) == [(NOW + 4_000 + LEASE_MS, "task-1")]
    assert story.when(expire_leases).reply == 0


def test_a_lease_that_was_renewed_in_memory_expires_when_that_is_over():
    story = Story().given(*running()).at(NOW + 4_000).when(heartbeat, a_heartbeat())
    story.at(EXPIRY).when(expire_leases).at(NOW + 4_000 + LEASE_MS).when(expire_leases)

    assert kinds(story.events) == [LeaseExpired, AttemptFailed, JobFailed]


def test_the_text_names_the_expiry_that_the_worker_was_promised():
    story = Story().given(*running()).at(NOW + 4_000).when(heartbeat, a_heartbeat())
    # Nobody looked at the leases between the logged expiry and the promised one.
    story.at(LATER).when(expire_leases)

    promised_ms = NOW + 4_000 + LEASE_MS
    assert story.events[0].expired_ms == promised_ms
    text = msgpack.unpackb(story.events[1].error_data)
    assert text == f"lease expired at {promised_ms} (now {LATER}), worker=worker"


def test_a_shard_that_has_just_opened_gives_every_lease_a_full_one():
    opened_ms = EXPIRY + 60_000
    story = Story(leases=LeaseClock(not_before_ms=opened_ms + LEASE_MS)).given(*running())

    story.at(opened_ms).when(expire_leases)
    assert story.events == [fact(LeaseRenewed, expires_ms=opened_ms + LEASE_MS)]
    story.at(opened_ms + LEASE_MS).when(expire_leases)
    assert kinds(story.events) == [LeaseExpired, AttemptFailed, JobFailed]


def test_busy_workers_at_the_front_hide_nobody():
    story = Story()
    for _ in range(PER_COMMAND_MAX):
        story.when(enqueue, a_job(job_id=""))
    busy = story.when(lease_tasks, for_worker("busy", max_tasks=PER_COMMAND_MAX)).reply
    story.at(NOW + 1).when(enqueue, a_job(job_id="silent"))
    (silent,) = story.when(lease_tasks, for_worker("silent")).reply
    story.at(NOW + 4_000)
    for task in busy:
        story.when(heartbeat, a_heartbeat(task.task_id, "busy"))

    story.at(EXPIRY + 1).when(expire_leases)
    assert story.reply == PER_COMMAND_MAX
    assert set(kinds(story.events)) == {LeaseRenewed}
    story.when(expire_leases)
    assert (story.reply, story.events[0].task_id) == (1, silent.task_id)
    assert story.when(expire_leases).reply == 0


# --- with limits -----------------------------------------------------------------------------------------------------


def test_the_slot_of_a_crashed_attempt_goes_to_the_next():
    # A18, A80, A83
    story = enqueued(Story(), "j1", "j2", limits=(A, a_floating_limit(1, "f")))
    task_id = story.job().chain.task_id
    leased(story)
    story.at(EXPIRY).when(expire_leases)

    assert kinds(story.events) == [LeaseExpired, AttemptFailed, JobFailed, SlotGranted, SlotGranted]
    with pytest.raises(LeaseNotFound):
        story.when(report_outcome, success(task_id))
    assert leased(story) == ["j2"]
    ended(story, "j2")
    assert story.row(QUEUES, "acme", "a") is None
    assert story.row(QUEUES, "acme", "f").holders == 0


def test_a_crashed_attempt_that_is_tried_again_at_once_stands_behind_those_who_wait():
    # A18
    story = enqueued(Story(), "j1", "j2", limits=(A,), retry_policy=a_policy(max_interval_ms=0))
    leased(story)
    story.at(EXPIRY).when(expire_leases)

    assert kinds(story.events) == [LeaseExpired, AttemptFailed, ChainStarted, SlotWaited, SlotGranted]
    assert story.places() == {"j1": "waiting", "j2": "ready"}


def test_successes_and_expiries_together_leave_no_slot_behind():
    # A84
    story = enqueued(Story(), "j1", "j2", "j3", limits=(a_limit(3, "a"),))
    leased(story)
    ended(story, "j1")
    story.at(EXPIRY).when(expire_leases)

    assert not story.table(QUEUES)
    assert [story.job(named(job_id)).status for job_id in ("j1", "j2", "j3")] == [
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.FAILED,
    ]


def test_a_refresh_whose_worker_lives_does_not_expire():
    story = enqueued(Story(), "j1", limits=(a_floating_limit(0, "f"),))
    [refresh] = story.when(lease_work, for_worker()).reply.refreshes
    story.at(NOW + 4_000).when(heartbeat, a_heartbeat(refresh.task_id))
    assert kinds(story.at(EXPIRY).when(expire_leases).events) == [RefreshRenewed]

    assert kinds(story.at(NOW + 4_000 + LEASE_MS).when(expire_leases).events) == [RefreshExpired]
