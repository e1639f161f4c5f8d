"""Chains at their gates, and the room that is given away: whole commands, with all that follows from them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from silo.broker.timers import COMMANDS
from silo.domain.jobs import JobStatus
from silo.domain.limits import RateLimitRetry
from silo.events.catalogue import (
    AttemptFailed,
    AttemptSucceeded,
    CancellationRequested,
    ChainDue,
    ChainStarted,
    HoldersDropped,
    JobCancelled,
    JobEnqueued,
    JobExpedited,
    LimitCreated,
    RateChecked,
    RateWaited,
    RefreshScheduled,
    RefreshSucceeded,
    SlotGranted,
    SlotWaited,
    TaskLeased,
)
from silo.projections.concurrency import QUEUES, UNSETTLED, WAITERS
from silo.projections.jobs import HOLDERS, JOBS, Place
from silo.projections.leases import LEASES
from silo.projections.rates import BUCKET_LINES, CHECKS
from silo.projections.tasks import READY
from silo.shard import gates
from silo.shard.cancel import cancel
from silo.shard.draft import Rules
from silo.shard.drop_holders import drop_holders
from silo.shard.due import wake_due
from silo.shard.enqueue import enqueue
from silo.shard.expedite import expedite
from silo.shard.gates import settle_rest
from silo.shard.import_jobs import import_jobs
from silo.shard.lease import lease_tasks
from silo.shard.restart import restart
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_floating_limit,
    a_job,
    a_limit,
    a_policy,
    a_rate_limit,
    an_attempt,
    an_import,
    cancelled,
    failure,
    for_worker,
    named,
    success,
)
from tests.shard.days import ended, enqueued, granted, leased, refreshed
from tests.story import Story, kinds

A, B = a_limit(1, "a"), a_limit(1, "b")


# --- one chain -------------------------------------------------------------------------------------------------------


def test_a_chain_passes_all_that_lets_it_and_is_ready_after_the_last():
    # A50, A57, A143
    story = enqueued(Story(), "j1", limits=(A, a_rate_limit(), a_floating_limit(1, "f"), B))
    assert kinds(story.events)[2:] == [SlotGranted, RateChecked, LimitCreated, SlotGranted, SlotGranted]
    assert len(story.table(READY)) == 1
    chain = story.job().chain
    assert (chain.place, chain.gate) == (Place.READY, 4)
    assert [queue for queue, _ in chain.held] == ["a", "f", "b"]
    assert [(queue, task_id) for _, queue, _, task_id, _ in story.listed(HOLDERS)] == [
        (queue, chain.task_id) for queue in "abf"
    ]


def test_a_job_without_limits_passes_no_gate():
    assert kinds(enqueued(Story(), "j1").events) == [JobEnqueued, ChainStarted]


def test_a_chain_goes_on_from_where_it_was_let_in_under_the_same_id():
    # A53, A55
    story = enqueued(Story(), "j1", limits=(A,))
    leased(story)
    enqueued(story, "j2", limits=(A, B))
    before = story.job(named("j2")).chain

    ended(story, "j1")
    assert kinds(story.events) == [AttemptSucceeded, SlotGranted, SlotGranted]
    chain = story.job(named("j2")).chain
    assert (chain.task_id, chain.start_ms, chain.seq) == (before.task_id, before.start_ms, before.seq)
    assert (chain.place, chain.gate, [queue for queue, _ in chain.held]) == (Place.READY, 2, ["a", "b"])


def test_many_hold_the_wide_limit_and_all_but_one_wait_at_the_narrow_one():
    # A55, A96
    wide = (a_limit(3, "wide"), a_limit(1, "narrow"))
    story = enqueued(Story(), "j1", "j2", "j3", limits=wide)
    assert story.places() == {"j1": "ready", "j2": "waiting", "j3": "waiting"}
    assert (story.row(QUEUES, "acme", "wide").holders, story.row(QUEUES, "acme", "narrow").holders) == (3, 1)

    leased(story)
    ended(story, "j1")
    assert granted(story.events) == [("j2", "narrow")]
    waits = story.job(named("j3")).chain
    assert (waits.gate, [queue for queue, _ in waits.held], bool(waits.task_id)) == (1, ["wide"], True)
    leased(story)
    ended(story, "j2")
    leased(story)
    ended(story, "j3")
    assert not story.table(QUEUES)


def test_a_chain_that_was_let_in_stands_at_a_used_up_rate_limit_with_all_it_holds():
    # A56
    story = enqueued(Story(), "used", limits=(a_rate_limit(1),))
    enqueued(story, "holds", limits=(B,))
    leased(story)
    enqueued(story, "j1", limits=(A, B, a_rate_limit(1)))
    assert story.places()["j1"] == "waiting"

    ended(story, "holds")
    assert kinds(story.events) == [AttemptSucceeded, SlotGranted, RateChecked, RateWaited]
    assert story.places()["j1"] == "throttled"
    assert [queue for queue, _ in story.job().chain.held] == ["a", "b"]
    assert not story.table(READY)
    story.when(cancel, NAME)
    assert not story.table(QUEUES)
    assert "j1" not in story.places()


def test_a_check_that_waits_for_its_retry_is_when_the_job_starts_next():
    # A56
    limit = a_rate_limit(1, retry=RateLimitRetry(max_retries=3, max_backoff_ms=50))
    story = enqueued(Story(), "used", "j1", limits=(A, limit))
    leased(story)
    ended(story, "used")

    assert story.places() == {"j1": "checking"}
    assert story.job().next_start_ms == story.job().chain.due_ms == NOW + 50
    assert [queue for queue, _ in story.job().chain.held] == ["a"]


def test_a_chain_that_was_let_in_is_ready_by_its_own_start_and_can_be_cancelled():
    # A54
    story = enqueued(Story(), "holds", "j1", limits=(A,))
    leased(story)
    story.at(NOW + 5_000)
    enqueued(story, "later")
    ended(story, "holds")

    assert [key[2] for key in story.table(READY)] == [NOW, NOW + 5_000]
    assert story.job().next_start_ms == NOW
    story.when(cancel, NAME)
    assert not story.table(QUEUES)


def test_a_retry_passes_all_gates_anew_under_a_new_id():
    # A40, A43
    story = enqueued(Story(), "j1", limits=(A, B), retry_policy=a_policy())
    first = story.job().chain.task_id
    leased(story)
    ended(story, "j1", failure)
    assert not story.table(QUEUES)

    story.at(story.job().next_start_ms).when(wake_due)
    assert kinds(story.events) == [ChainDue, SlotGranted, SlotGranted]
    assert story.job().chain.task_id != first
    assert story.row(QUEUES, "acme", "a").holders == 1


def test_a_retry_at_once_stands_behind_those_who_wait():
    # A41, A42
    story = enqueued(Story(), "j1", "j2", "j3", limits=(A,), retry_policy=a_policy(max_interval_ms=0))
    leased(story)
    ended(story, "j1", failure)
    assert kinds(story.events) == [AttemptFailed, ChainStarted, SlotWaited, SlotGranted]
    assert granted(story.events) == [("j2", "a")]
    assert story.row(QUEUES, "acme", "a").holders == 1

    for job_id in ("j2", "j3", "j1"):
        assert leased(story) == [job_id]
        ended(story, job_id)


def test_a_retry_at_once_takes_the_slot_again_if_nobody_waits():
    story = enqueued(Story(), "j1", limits=(A,), retry_policy=a_policy(max_interval_ms=0))
    leased(story)

    assert kinds(ended(story, "j1", failure).events) == [AttemptFailed, ChainStarted, SlotGranted]


def test_a_restarted_job_passes_its_limits_from_the_first():
    story = enqueued(Story(), "j1", limits=(A, B))
    leased(story)
    ended(story, "j1", failure)
    enqueued(story, "holds", limits=(B,))
    story.when(restart, NAME)

    assert kinds(story.events)[1:] == [ChainStarted, SlotGranted, SlotWaited]
    assert (story.job().chain.attempt, story.job().chain.relative_attempt) == (2, 1)


# --- later starts ----------------------------------------------------------------------------------------------------


def test_jobs_for_later_hold_nothing_and_wait_in_no_line():
    # A30, A32, A33
    story = Story()
    for number in range(10):
        enqueued(story, f"later {number}", limits=(A,), enqueue_time_ms=LATER + number)
    assert not story.table(QUEUES)
    assert sorted(story.job(named(f"later {number}")).next_start_ms for number in range(10)) == [
        LATER + number for number in range(10)
    ]

    assert granted(enqueued(story, "now", limits=(A,)).events) == [("now", "a")]


def test_a_job_that_comes_due_asks_then_and_waits_if_it_must():
    # A34, A35
    story = enqueued(Story(), "holds", limits=(A,))
    enqueued(story, "j1", limits=(A,), enqueue_time_ms=LATER)
    leased(story)
    story.at(LATER).when(wake_due)
    assert kinds(story.events) == [ChainDue, SlotWaited]
    assert (story.row(QUEUES, "acme", "a").waiters, story.job().status) == (1, JobStatus.SCHEDULED)

    ended(story, "holds")
    assert granted(story.events) == [("j1", "a")]
    assert story.row(QUEUES, "acme", "a").waiters == 0
    assert leased(story) == ["j1"]


def test_one_that_came_due_is_cancelled_in_line():
    # A35, A36
    story = enqueued(Story(), "holds", limits=(A,))
    enqueued(story, "j1", "gone", limits=(A,), enqueue_time_ms=LATER)
    story.when(cancel, named("gone"))
    leased(story)
    story.at(LATER).when(wake_due)
    assert [event.job_id for event in story.events] == ["j1", "j1"]

    story.when(cancel, NAME)
    assert (story.row(QUEUES, "acme", "a").waiters, story.row(QUEUES, "acme", "a").holders) == (0, 1)
    assert kinds(ended(story, "holds").events) == [AttemptSucceeded]


def test_an_expedited_job_asks_at_once_and_has_the_turn_of_one_that_starts_now():
    # A170
    story = enqueued(Story(), "holds", limits=(A,))
    enqueued(story, "j1", limits=(A,), enqueue_time_ms=LATER)
    enqueued(story.at(NOW + 5), "before", limits=(A,))
    story.at(NOW + 6).when(expedite, NAME)
    assert kinds(story.events) == [JobExpedited, SlotWaited]

    enqueued(story.at(NOW + 7), "after", limits=(A,))
    assert [(key[4], ref.job_id) for key, ref in story.table(WAITERS).items()] == [
        (NOW + 5, "before"),
        (NOW + 6, "j1"),
        (NOW + 7, "after"),
    ]


def test_thousands_that_come_due_at_a_full_queue_are_in_nobodys_way():
    # A37
    story = Story()
    for number in range(4_300):
        story.when(enqueue, a_job(job_id=f"{number}", limits=(A,), enqueue_time_ms=LATER))
    story.at(LATER)
    for number in range(3):
        story.when(enqueue, a_job(tenant="b", job_id=f"b{number}", limits=(a_limit(3, "a"),)))
    while story.when(wake_due).reply:
        pass

    assert sorted(leased(story)) == ["0", "b0", "b1", "b2"]
    assert story.row(QUEUES, "acme", "a").waiters == 4_299


# --- room is given away ----------------------------------------------------------------------------------------------


def test_what_is_given_back_is_given_on_in_the_same_commit():
    # A2, A24
    story = enqueued(Story(), "j1", "j2", limits=(A,))
    assert kinds(story.events) == [JobEnqueued, ChainStarted, SlotWaited]
    leased(story)
    ended(story, "j1")

    assert kinds(story.events) == [AttemptSucceeded, SlotGranted]
    assert not story.table(UNSETTLED)


@pytest.mark.parametrize("free", [1, 3, 5])
def test_just_the_free_slots_are_given_away(free):
    # A15, A93, A98
    story = enqueued(Story(), *map(str, range(12)), limits=(a_limit(5, "a"),))
    held = leased(story)
    story.when(drop_holders, [named(job_id) for job_id in held[:free]])

    assert [job_id for job_id, _ in granted(story.events)] == [str(5 + number) for number in range(free)]
    assert story.row(QUEUES, "acme", "a").holders == 5


def test_of_those_who_may_the_first_by_virtual_start_is_let_in():
    # A9
    story = Story(rules=Rules(priority_weight_ms=1_000))
    enqueued(story, "holds", limits=(A,))
    leased(story)
    for job_id, priority, start_ms in (("p50", 50, 1), ("p10", 10, 1), ("late", 0, 20_000), ("p99", 99, 1)):
        enqueued(story, job_id, limits=(A,), priority=priority, enqueue_time_ms=start_ms)

    job_id, order = "holds", []
    for _ in range(4):
        ended(story, job_id)
        [job_id] = leased(story)
        order.append(job_id)
    assert order == ["p10", "late", "p50", "p99"]


def test_the_lines_of_one_queue_are_served_as_one():
    """Jobs may differ in the maximum of one queue: it is the one of the job that asks that counts."""
    story = enqueued(Story(), "holds", limits=(a_limit(3, "a"),))
    leased(story)
    enqueued(story, "by one", limits=(a_limit(1, "a"),))
    enqueued(story, "by two", limits=(a_limit(2, "a"),))
    assert story.places() == {"holds": "leased", "by one": "waiting", "by two": "ready"}
    enqueued(story, "by two, too", limits=(a_limit(2, "a"),))
    enqueued(story, "by three", limits=(a_limit(3, "a"),))
    assert story.places()["by three"] == "ready"

    leased(story)
    ended(story, "by three")
    assert granted(story.events) == []
    ended(story, "by two")
    # Of those for whom there is room: one holder is too many for the first in line.
    assert granted(story.events) == [("by two, too", "a")]
    leased(story)
    ended(story, "holds")
    ended(story, "by two, too")
    assert granted(story.events) == [("by one", "a")]


def test_a_slot_that_is_given_on_goes_to_the_first_of_all_lines():
    story = enqueued(Story(), "holds", limits=(a_limit(2, "a"),))
    leased(story)
    enqueued(story, "one", limits=(a_limit(1, "a"),))
    enqueued(story, "zero", limits=(a_limit(0, "a"),))
    enqueued(story, "floats", limits=(a_floating_limit(1, "a"),))
    enqueued(story, "one too", limits=(a_limit(1, "a"),))

    ended(story, "holds")
    assert granted(story.events) == [("one", "a")]
    leased(story)
    ended(story, "one")
    assert granted(story.events) == [("floats", "a")]


@pytest.fixture
def few_grants(monkeypatch):
    """At most five slots are given away by one command."""
    monkeypatch.setattr(gates, "GRANTS_PER_COMMAND_MAX", 5)


def test_one_command_gives_away_a_bounded_number_and_the_next_ones_go_on_in_order(few_grants):
    # A92
    jobs = [f"{number:02}" for number in range(17)]
    story = enqueued(Story(), *jobs, limits=(a_floating_limit(0, "a"),))
    refreshed(story, 16)
    order = [job_id for job_id, _ in granted(story.events)]
    assert (order, len(story.table(UNSETTLED))) == (jobs[:5], 1)

    while story.when(settle_rest).reply:
        order += [job_id for job_id, _ in granted(story.events)]
    assert order == jobs[:16]
    assert not story.table(UNSETTLED)
    assert story.places()[jobs[16]] == "waiting"


def test_nobody_overtakes_those_whose_room_is_not_given_away_yet(few_grants):
    # A10, A98
    jobs = [f"{number:02}" for number in range(16)]
    story = enqueued(Story(), *jobs, limits=(a_floating_limit(0, "a"),))
    refreshed(story, 20)
    story.at(NOW + 1)
    enqueued(story, "late", limits=(a_floating_limit(0, "a"),))
    assert [event.job_id for event in story.events if isinstance(event, SlotWaited)] == ["late"]
    assert [job_id for job_id, _ in granted(story.events)] == jobs[5:10]

    # An urgent one is first in line, and so is let in by the very command that brought it.
    enqueued(story, "urgent", limits=(a_floating_limit(0, "a"),), enqueue_time_ms=1)
    assert [job_id for job_id, _ in granted(story.events)] == ["urgent", *jobs[10:14]]
    story.when(settle_rest)
    assert [job_id for job_id, _ in granted(story.events)] == [*jobs[14:], "late"]


def test_a_few_hundred_who_wait_are_let_in_by_a_few_commands():
    # A92
    story = enqueued(Story(), *(f"{number:03}" for number in range(650)), limits=(a_floating_limit(0, "a"),))
    refreshed(story, 1_000)
    commands, order = 1, granted(story.events)
    while story.when(settle_rest).reply:
        commands, order = commands + 1, order + granted(story.events)

    assert [job_id for job_id, _ in order] == [f"{number:03}" for number in range(650)]
    assert commands <= 650 // gates.GRANTS_PER_COMMAND_MAX + 1


def queues_with_waiters(names: str, holders: int, waiters: int) -> Story:
    """Queues of which each has so many holders and somebody waiting; those of the first queue came first."""
    story = Story()
    for queue in names:
        jobs = [f"{queue}{number}" for number in range(holders + waiters)]
        enqueued(story, *jobs, limits=(a_limit(holders, queue),))
    return story


def test_queues_with_room_get_one_slot_each_in_turn():
    # A97
    story = queues_with_waiters("abc", holders=3, waiters=3)
    story.when(drop_holders, [named(f"{queue}{number}") for number in range(3) for queue in "abc"])

    assert kinds(story.events) == [HoldersDropped] * 9 + [SlotGranted] * 9
    assert "".join(queue for _, queue in granted(story.events)) == "abcabcabc"


def test_a_queue_with_much_to_give_does_not_keep_the_others_waiting(few_grants):
    # A97
    story = queues_with_waiters("bc", holders=1, waiters=1)
    enqueued(story, *(f"a{number}" for number in range(20)), limits=(a_floating_limit(0, "a"),))
    refreshed(story, 20)
    assert granted(story.events) == [(f"a{number}", "a") for number in range(5)]

    story.when(drop_holders, [named("b0"), named("c0")])
    assert granted(story.events)[:4] == [("a5", "a"), ("b1", "b"), ("c1", "c"), ("a6", "a")]


def test_those_let_in_by_one_queue_go_on_to_the_next_in_the_same_commit():
    story = enqueued(Story(), "j1", limits=(A,))
    enqueued(story, "j2", limits=(A, B))
    enqueued(story, "j3", limits=(A, B))
    leased(story)
    ended(story, "j1")
    assert granted(story.events) == [("j2", "a"), ("j2", "b")]
    leased(story)
    ended(story, "j2")
    assert granted(story.events) == [("j3", "a"), ("j3", "b")]


def test_a_full_queue_costs_nothing_however_many_wait_for_it():
    # A94
    story = enqueued(Story(), *map(str, range(1_000)), limits=(A,))
    story.when(settle_rest)
    looked: list[Any] = []
    first = story.rows.first

    def noted(table: Any, queue: Any, rows: int) -> Any:
        looked.append((table, queue[:2]))
        return first(table, queue, rows)

    story.rows.first = noted
    enqueued(story, "neighbour", "behind it", limits=(B,))
    leased(story)
    ended(story, "neighbour")
    assert granted(story.events) == [("behind it", "b")]
    assert {queue for table, queue in looked if table is WAITERS} == {("acme", "b")}


def test_jobs_that_are_cancelled_in_line_leave_nothing_to_be_walked_over():
    # A74, A90, A95
    story = enqueued(Story(), "holds", *map(str, range(1_000)), "live", limits=(A,))
    leased(story)
    for number in range(1_000):
        story.when(cancel, named(str(number)))
        assert kinds(story.events) == [CancellationRequested, JobCancelled]
    assert [ref.job_id for ref in story.table(WAITERS).values()] == ["live"]

    assert granted(ended(story, "holds").events) == [("live", "a")]


def test_each_slot_is_granted_once_in_the_log_whether_it_was_waited_for_or_not():
    """What counts grants can tell by the log which of them had been waited for."""
    # A25
    story = enqueued(Story(), "j1", "j2", limits=(A,))
    leased(story)
    ended(story, "j1")
    leased(story)
    ended(story, "j2")

    steps = [
        (type(event), event.job_id) for event in story.history if isinstance(event, SlotGranted | SlotWaited)
    ]
    assert steps == [(SlotGranted, "j1"), (SlotWaited, "j2"), (SlotGranted, "j2")]


def test_a_command_that_fails_while_it_gives_away_room_changes_nothing(monkeypatch):
    # A59
    story = enqueued(Story(), "j1", limits=(A,))
    enqueued(story, "j2", limits=(A, B))
    leased(story)
    before = story.everything()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gates, "walk", fail)
    with pytest.raises(ZeroDivisionError):
        ended(story, "j1")
    assert story.everything() == before
    monkeypatch.undo()
    assert granted(ended(story, "j1").events) == [("j2", "a"), ("j2", "b")]


def test_a_maximum_that_rises_lets_in_as_many_as_it_has_room_for():
    # A125
    story = enqueued(Story(), "j1", "j2", "j3", limits=(a_floating_limit(1, "a"),))
    assert kinds(refreshed(story, 2).events) == [RefreshSucceeded, SlotGranted]
    assert story.places() == {"j1": "leased", "j2": "ready", "j3": "waiting"}


def test_a_raise_lets_in_chains_that_have_further_gates_to_pass():
    # A58
    both = (a_floating_limit(0, "f"), a_limit(1, "b"))
    story = enqueued(Story(), "j1", "j2", limits=both)
    refreshed(story, 2)

    assert granted(story.events) == [("j1", "f"), ("j1", "b"), ("j2", "f")]
    assert story.places() == {"j1": "ready", "j2": "waiting"}
    assert kinds(story.history).count(RefreshScheduled) == 1


def test_a_worker_finds_those_ready_that_the_last_report_let_in():
    story = enqueued(Story(), "j1", "j2", limits=(A,))
    leased(story)
    ended(story, "j1")

    assert kinds(story.when(lease_tasks, for_worker()).events) == [TaskLeased]


# --- at the end of the day -------------------------------------------------------------------------------------------


def test_after_a_day_on_which_everything_happens_nobody_holds_or_waits_for_anything():
    # A85
    story = Story()
    limits = (a_limit(3, "a"), a_floating_limit(4, "f"), a_rate_limit(1_000))
    asks_twice = a_rate_limit(1, name="narrow", duration_ms=200, retry=RateLimitRetry(max_retries=5))
    enqueued(story, *(f"good {number}" for number in range(8)), limits=limits)
    enqueued(
        story,
        *(f"bad {number}" for number in range(3)),
        limits=limits,
        retry_policy=a_policy(max_interval_ms=0),
    )
    enqueued(story, *(f"crashes {number}" for number in range(4)), limits=limits)
    enqueued(story, *(f"gone {number}" for number in range(3)), limits=limits)
    enqueued(story, "checked", "checked again", limits=(*limits, asks_twice))
    enqueued(story, "later", "never", limits=limits, enqueue_time_ms=LATER)
    enqueued(story, "imported", limits=limits)
    # One before it is let in, one for later, and one that holds its slots.
    for job_id in ("gone 0", "never", "good 0"):
        story.when(cancel, named(job_id))
    story.when(import_jobs, [an_import(an_attempt(), name=named("imported"), retry_policy=None)])

    while story.places():
        for job_id in leased(story):
            if job_id.startswith("crashes"):
                continue
            if job_id == "gone 1":
                story.when(cancel, named(job_id))
                ended(story, job_id, cancelled)
            else:
                ended(story, job_id, failure if job_id.startswith("bad") else success)
        story.at(story.now_ms + 5_000)
        for command in COMMANDS:
            while story.when(command).reply:
                pass

    jobs = [row.status for row in story.table(JOBS).values()]
    assert Counter(status.kind for status in jobs) == {
        "Succeeded": 7 + 1 + 2 + 1,
        "Failed": 3 + 4 + 1,
        "Cancelled": 4,
    }
    row = story.row(QUEUES, "acme", "f")
    assert list(story.table(QUEUES)) == [("acme", "f")]
    assert (row.holders, row.waiters) == (0, 0)
    for table in (WAITERS, UNSETTLED, READY, LEASES, BUCKET_LINES, CHECKS):
        assert not story.table(table)
    assert story.listed(HOLDERS) == []
