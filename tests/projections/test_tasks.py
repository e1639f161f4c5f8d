from __future__ import annotations

from silo.events.catalogue import ChainDue, ChainStarted, JobExpedited, JobFailed, JobRestarted, TaskLeased
from silo.projections.tasks import FORGETTING, READY, TIMERS, JobRef, ReadyRow
from tests.builders import LATER, NOW, fact, pending, running, succeeded
from tests.story import Story

REF = JobRef("acme", "j1")
READY_ROW = ReadyRow("acme", "j1", payload_seq=0, payload_bytes=7)


def test_only_what_could_be_leased_this_instant_is_ready():
    assert Story().given(*pending()).table(READY) == {("group", NOW, NOW, 2): READY_ROW}
    assert Story().given(*pending(start_ms=LATER)).table(TIMERS) == {(LATER, 2): REF}
    for life in (running(), succeeded()):
        story = Story().given(*life)
        assert not story.table(READY)
        assert not story.table(TIMERS)


def test_a_chain_is_in_one_place_at_a_time():
    # A180, A183
    story = Story().given(*pending(start_ms=LATER, virtual_start_ms=LATER + 9))
    assert (len(story.table(TIMERS)), len(story.table(READY))) == (1, 0)
    story.given(fact(ChainDue))
    assert (len(story.table(TIMERS)), len(story.table(READY))) == (0, 1)
    assert list(story.table(READY)) == [("group", LATER + 9, LATER, 2)]
    story.given(fact(TaskLeased))
    assert (len(story.table(TIMERS)), len(story.table(READY))) == (0, 0)


def test_an_expedited_chain_keeps_its_turn_among_those_of_its_time():
    story = (
        Story()
        .given(*pending(start_ms=LATER))
        .at(NOW + 5)
        .given(fact(JobExpedited, virtual_start_ms=NOW + 7))
    )

    assert story.table(READY) == {("group", NOW + 7, NOW + 5, 2): READY_ROW}
    assert not story.table(TIMERS)


def test_a_new_chain_ends_the_old_one():
    for start_ms in (NOW, LATER):
        story = (
            Story().given(*pending(start_ms=start_ms)).given(fact(ChainStarted, task_id="task-2", attempt=2))
        )
        assert list(story.table(READY)) == [("group", NOW, NOW, 3)]
        assert not story.table(TIMERS)


def test_an_ended_job_is_listed_under_the_time_at_which_it_is_forgotten():
    story = Story().given(*running(), fact(JobFailed, forget_ms=LATER))
    assert story.table(FORGETTING) == {(LATER, "acme", "j1"): REF}

    story.given(fact(JobRestarted))
    assert not story.table(FORGETTING)
