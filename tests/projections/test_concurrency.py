from __future__ import annotations

from typing import Any

import pytest

from silo.domain.jobs import JobStatus
from silo.errors import Corrupt
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    ChainDue,
    ChainStarted,
    Event,
    HoldersDropped,
    JobCancelled,
    JobFailed,
    JobReimported,
    LimitCreated,
    RateChecked,
    RefreshExpired,
    RefreshFailed,
    RefreshLeased,
    RefreshScheduled,
    RefreshSucceeded,
    SlotGranted,
    SlotWaited,
    TaskLeased,
)
from silo.projections.concurrency import (
    FLOATING,
    INT64_MAX,
    QUEUES,
    REFRESHES_DUE,
    UNSETTLED,
    WAITERS,
    line_of,
    queue_keys,
)
from silo.projections.jobs import HOLDERS, Place
from silo.projections.tasks import READY, JobRef
from tests.builders import (
    LATER,
    NOW,
    a_floating_limit,
    a_limit,
    a_rate_limit,
    a_spec,
    fact,
    holding,
    pending,
    waiting,
)
from tests.story import Story

QUEUE = ("acme", "queue")


def another(job_id: str, *limits: Any, **but: Any) -> list[Event]:
    """Another job that has come to its first gate."""
    started = pending(limits=limits or (a_limit(),), **but)
    return [about(event, job_id) for event in started]


def about(event: Any, job_id: str) -> Event:
    """A fact about another job, and its task."""
    event.job_id = job_id
    if hasattr(event, "task_id"):
        event.task_id = f"task of {job_id}"
    return event


# --- slots -----------------------------------------------------------------------------------------------------------


def test_who_was_granted_a_slot_is_counted_listed_and_goes_on():
    # A1
    story = Story().given(*holding())

    assert story.row(QUEUES, *QUEUE).holders == 1
    assert story.listed(HOLDERS) == [(*QUEUE, NOW, "task-1", "j1")]
    chain = story.job().chain
    assert (chain.place, chain.gate, chain.held) == (Place.READY, 1, (("queue", NOW),))
    assert list(story.table(READY)) == [("group", NOW, NOW, 2)]


def test_who_waits_is_in_line_by_virtual_start():
    story = Story().given(*waiting(start_ms=NOW - 5, virtual_start_ms=NOW + 7))

    assert story.table(WAITERS) == {(*QUEUE, 1, NOW + 7, NOW - 5, 2): JobRef("acme", "j1")}
    assert story.row(QUEUES, *QUEUE).lines == ((1, 1),)
    assert story.job().chain.place is Place.WAITING
    assert not story.table(READY)
    assert story.listed(HOLDERS) == []


def test_who_is_let_in_leaves_the_line():
    story = Story().given(*waiting(), fact(SlotGranted))

    assert not story.table(WAITERS)
    row = story.row(QUEUES, *QUEUE)
    assert (row.holders, row.lines, row.waiters) == (1, (), 0)


def test_a_chain_holds_what_it_has_passed_while_it_waits_further_on():
    # A52, A55
    story = Story().given(*holding(limits=(a_limit(1, "a"), a_limit(1, "b"))))
    story.given(fact(SlotWaited, gate=1, queue="b"))

    chain = story.job().chain
    assert (chain.gate, chain.task_id, [queue for queue, _ in chain.held]) == (1, "task-1", ["queue"])
    assert story.row(QUEUES, "acme", "b").lines == ((1, 1),)


ENDS_OF_PENDING = [
    pytest.param([fact(JobCancelled)], id="cancelled"),
    pytest.param([fact(JobFailed, error_code="E")], id="failed before it ran"),
    pytest.param([fact(JobReimported, status=JobStatus.SUCCEEDED)], id="imported as ended"),
    pytest.param([fact(ChainStarted, task_id="task-2", start_ms=LATER)], id="superseded by another chain"),
]
ENDS_OF_RUNNING = [
    pytest.param([fact(TaskLeased), fact(kind)], id=kind.__name__)
    for kind in (AttemptSucceeded, AttemptFailed, AttemptCancelled)
]


@pytest.mark.parametrize("end", [*ENDS_OF_PENDING, *ENDS_OF_RUNNING])
def test_however_a_chain_ends_its_slots_are_free(end):
    # A8, A51
    both = (a_limit(1, "queue"), a_limit(1, "other"))
    story = Story().given(*holding(limits=both), fact(SlotGranted, gate=1, queue="other"))
    assert [queue for _, queue, *_ in story.listed(HOLDERS)] == ["other", "queue"]

    story.given(*end)
    assert not story.table(QUEUES)
    assert story.listed(HOLDERS) == []


@pytest.mark.parametrize("end", ENDS_OF_PENDING)
def test_however_a_waiting_chain_ends_it_is_in_no_line_and_what_it_held_is_free(end):
    # A76, A167
    both = (a_limit(1, "queue"), a_limit(0, "other"))
    story = Story().given(*holding(limits=both), fact(SlotWaited, gate=1, queue="other"))

    story.given(*end)
    assert not story.table(WAITERS)
    assert not story.table(QUEUES)


def test_a_queue_is_there_while_somebody_has_to_do_with_it():
    story = Story().given(*holding(), *another("j2"), about(fact(SlotWaited), "j2"))
    story.given(fact(JobCancelled))
    assert story.row(QUEUES, *QUEUE).waiters == 1

    story.given(about(fact(JobCancelled), "j2"))
    assert not story.table(QUEUES)


def test_those_who_wait_stand_in_a_line_for_each_maximum():
    story = Story()
    for job_id, limit in (("c", a_limit(3)), ("a", a_limit(1)), ("b", a_limit(3)), ("d", a_limit(2))):
        story.given(*another(job_id, limit), about(fact(SlotWaited), job_id))
    assert story.row(QUEUES, *QUEUE).lines == ((1, 1), (2, 1), (3, 2))

    story.given(about(fact(JobCancelled), "d"), about(fact(JobCancelled), "c"))
    assert story.row(QUEUES, *QUEUE).lines == ((1, 1), (3, 1))
    assert [key[2] for key in story.table(WAITERS)] == [1, 3]


def test_a_queue_tells_the_maximum_that_was_asked_last():
    # A131
    story = Story().given(*another("a", a_limit(3)), about(fact(SlotGranted, maximum=3), "a"))
    story.given(*another("b", a_limit(1)), about(fact(SlotWaited, maximum=1), "b"))

    assert story.row(QUEUES, *QUEUE).maximum == 1


def test_operators_can_take_a_chains_slots_away_while_it_goes_on():
    story = Story().given(*holding(), fact(HoldersDropped))
    assert not story.table(QUEUES)
    assert story.listed(HOLDERS) == []
    assert (story.job().chain.held, story.job().chain.place) == ((), Place.READY)

    # It ends as if it never had any.
    story.given(fact(TaskLeased), fact(AttemptSucceeded))
    assert not story.table(QUEUES)


# --- room beside those who wait --------------------------------------------------------------------------------------


def test_a_queue_with_room_beside_a_waiter_is_unsettled():
    # A93
    story = Story().given(*holding(), *another("j2"), about(fact(SlotWaited), "j2"))
    assert not story.table(UNSETTLED)

    story.given(fact(JobCancelled))
    assert list(story.table(UNSETTLED)) == [(story.history[-1].seq, *QUEUE)]
    assert story.row(QUEUES, *QUEUE).unsettled_seq == story.history[-1].seq

    story.given(about(fact(SlotGranted), "j2"))
    assert not story.table(UNSETTLED)
    assert not story.row(QUEUES, *QUEUE).is_unsettled


def test_a_queue_is_not_unsettled_when_nobody_can_use_the_room():
    story = Story().given(*another("j1", a_limit(5)), about(fact(SlotGranted), "j1"))
    story.given(*another("j2", a_limit(1)), about(fact(SlotWaited), "j2"))
    assert not story.table(UNSETTLED)

    story.given(*another("j3", a_limit(5)), about(fact(SlotWaited), "j3"))
    assert len(story.table(UNSETTLED)) == 1


def test_a_queue_that_gave_a_slot_goes_behind_the_others():
    # A97
    """Fair turns: the order of `UNSETTLED` is the order in which queues are served."""
    story = Story()
    for queue in "ab":
        story.given(fact(LimitCreated, queue=queue, default_max_concurrency=0))
        for number in range(2):
            job_id = f"{queue}{number}"
            limit = a_floating_limit(key=queue)
            story.given(*another(job_id, limit), about(fact(SlotWaited, queue=queue), job_id))
    story.given(*refreshed(2, "a"), *refreshed(2, "b"))
    assert [queue for _, _, queue in story.table(UNSETTLED)] == ["a", "b"]

    story.given(about(fact(SlotGranted, queue="a"), "a0"))
    assert [queue for _, _, queue in story.table(UNSETTLED)] == ["b", "a"]
    # What else happens to a queue leaves it in its turn.
    story.given(*another("a2", a_floating_limit(key="a")), about(fact(SlotWaited, queue="a"), "a2"))
    story.given(*another("b2", a_floating_limit(key="b")), about(fact(SlotWaited, queue="b"), "b2"))
    assert [queue for _, _, queue in story.table(UNSETTLED)] == ["b", "a"]


def refreshed(maximum: int, queue: str = "queue") -> list[Event]:
    """A worker found out a maximum anew."""
    about = {"queue": queue, "task_id": f"refresh of {queue}"}
    scheduled, leased = fact(RefreshScheduled, **about), fact(RefreshLeased, **about)
    return [scheduled, leased, fact(RefreshSucceeded, new_max_concurrency=maximum, **about)]


# --- floating limits -------------------------------------------------------------------------------------------------


def floats(*events: Event, default: int = 1) -> Story:
    """A floating limit of a queue, and what happened to it."""
    created = fact(LimitCreated, default_max_concurrency=default, metadata=(("a", "b"),))
    return Story().given(created, *events)


def one_waits(job_id: str = "j1") -> list[Event]:
    return [*another(job_id, a_floating_limit()), about(fact(SlotWaited), job_id)]


def test_a_floating_limit_begins_with_its_default_and_was_never_refreshed():
    # A120
    row = floats(default=3).row(QUEUES, *QUEUE)
    floating = row.floating

    assert (floating.maximum, floating.default_maximum, floating.refresh_interval_ms) == (3, 3, 1_000)
    assert (floating.refreshed_ms, floating.failures, floating.retry_ms, floating.refresh) == (0, 0, 0, None)
    assert floating.metadata == (("a", "b"),)
    assert (row.holders, row.lines, row.refresh_due_ms) == (0, (), None)


def test_a_queue_with_a_floating_limit_stays_when_nobody_has_to_do_with_it():
    story = floats(*one_waits(), fact(SlotGranted), fact(JobCancelled))

    assert story.row(QUEUES, *QUEUE).floating is not None


def test_a_refresh_is_due_only_while_somebody_waits_by_the_floating_maximum():
    # A122
    story = floats(default=0)
    assert not story.table(REFRESHES_DUE)
    story.given(*another("fixed", a_limit(0)), about(fact(SlotWaited), "fixed"))
    assert not story.table(REFRESHES_DUE)

    story.given(*one_waits())
    assert list(story.table(REFRESHES_DUE)) == [(1_000, *QUEUE)]
    story.given(about(fact(JobCancelled), "j1"))
    assert not story.table(REFRESHES_DUE)
    assert story.row(QUEUES, *QUEUE).refresh_due_ms is None


def test_no_refresh_is_due_while_one_is_under_way():
    story = floats(*one_waits(), default=0)
    story.given(fact(RefreshScheduled))
    assert not story.table(REFRESHES_DUE)
    story.given(fact(RefreshLeased))
    assert not story.table(REFRESHES_DUE)
    assert story.row(QUEUES, *QUEUE).floating.refresh.leased


@pytest.mark.parametrize(
    ("end", "due_ms"),
    [
        pytest.param(
            fact(RefreshSucceeded, new_max_concurrency=0), NOW + 1_000, id="succeeded: when it is old"
        ),
        pytest.param(
            fact(RefreshFailed, retry_ms=NOW + 8_000), NOW + 8_000, id="failed: when it may be tried"
        ),
        pytest.param(fact(RefreshExpired), 1_000, id="expired: as before"),
    ],
)
def test_when_the_next_refresh_is_due(end, due_ms):
    story = floats(*one_waits(), default=0).given(fact(RefreshScheduled), fact(RefreshLeased), end)

    assert list(story.table(REFRESHES_DUE)) == [(due_ms, *QUEUE)]
    assert story.row(QUEUES, *QUEUE).refresh_due_ms == due_ms


def test_a_refresh_that_succeeded_changes_the_maximum_and_forgets_failures():
    # A125, A126
    story = floats(*one_waits()).given(
        fact(RefreshScheduled), fact(RefreshLeased), fact(RefreshFailed, retry_ms=LATER)
    )
    floating = story.row(QUEUES, *QUEUE).floating
    assert (floating.maximum, floating.failures, floating.retry_ms, floating.refresh) == (1, 1, LATER, None)

    story.at(NOW + 5).given(
        fact(RefreshScheduled), fact(RefreshLeased), fact(RefreshSucceeded, new_max_concurrency=7)
    )
    floating = story.row(QUEUES, *QUEUE).floating
    assert (floating.maximum, floating.refreshed_ms) == (7, NOW + 5)
    assert (floating.failures, floating.retry_ms, floating.refresh) == (0, 0, None)


def test_a_refresh_that_expired_changes_nothing_else():
    # A128
    story = floats(*one_waits()).given(
        fact(RefreshScheduled), fact(RefreshLeased), fact(RefreshFailed, retry_ms=LATER)
    )
    before = story.row(QUEUES, *QUEUE)
    story.given(fact(RefreshScheduled), fact(RefreshLeased), fact(RefreshExpired))

    assert story.row(QUEUES, *QUEUE) == before


def test_a_maximum_that_sank_below_the_holders_leaves_no_room():
    # A94
    story = floats(default=2)
    for job_id in "ab":
        story.given(*another(job_id, a_floating_limit()), about(fact(SlotGranted), job_id))
    story.given(*one_waits("c"))
    story.given(*refreshed(1))
    story.given(about(fact(JobCancelled), "a"))
    assert not story.table(UNSETTLED)

    story.given(about(fact(JobCancelled), "b"))
    assert len(story.table(UNSETTLED)) == 1


def test_an_interval_beyond_all_times_is_never_over():
    story = Story().given(fact(LimitCreated, refresh_interval_ms=INT64_MAX, default_max_concurrency=0))
    story.given(*refreshed(0), *one_waits())

    assert list(story.table(REFRESHES_DUE)) == [(INT64_MAX, *QUEUE)]


# --- values, and what cannot be --------------------------------------------------------------------------------------


def test_a_line_is_named_by_the_maximum_and_a_floating_one_by_none():
    assert [line_of(limit) for limit in (a_limit(0), a_limit(7), a_floating_limit(7))] == [0, 7, FLOATING]


def test_the_queues_of_a_job_are_those_of_its_limits_on_slots():
    spec = a_spec(limits=(a_limit(1, "a"), a_rate_limit(), a_floating_limit(1, "b")))

    assert queue_keys("acme", spec) == [("acme", "a"), ("acme", "b")]


@pytest.mark.parametrize(
    ("life", "event", "text"),
    [
        pytest.param(
            holding(), fact(RefreshScheduled), "queue has no floating limit", id="a fixed queue is refreshed"
        ),
        pytest.param([], fact(RefreshScheduled), "needs queues", id="no queue is refreshed"),
        pytest.param(
            [fact(LimitCreated)],
            fact(RefreshLeased),
            "leases a refresh of queue, which has none",
            id="nothing to lease",
        ),
        pytest.param(
            pending(limits=(a_rate_limit(),)),
            fact(SlotWaited),
            "gate 0 of a job is no queue",
            id="a wait at a rate",
        ),
        pytest.param(
            pending(limits=(a_limit(),)), fact(RateChecked), "gate 0 of a job is no rate", id="the other way"
        ),
        pytest.param(
            pending(start_ms=LATER), fact(SlotWaited), "gate 0 of a job is no queue", id="no limits at all"
        ),
        pytest.param(
            [*holding(), fact(ChainDue)], fact(SlotWaited, gate=1), "gate 1 of a job", id="beyond the last"
        ),
    ],
)
def test_a_fact_that_contradicts_a_queue_is_not_guessed_at(life, event, text):
    story = Story()
    for given in life:
        story.given(given)

    with pytest.raises(Corrupt, match=text):
        story.given(event)
