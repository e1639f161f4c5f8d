from __future__ import annotations

from silo.events.catalogue import JobDeleted, TaskLeased
from silo.projections.jobs import INDEXED_VALUE_CHARS, JOBS_BY_METADATA, JOBS_BY_STATUS, Place
from tests.builders import (
    LATER,
    NOW,
    cancelled_by_client,
    fact,
    failed,
    pending,
    running,
    succeeded,
    waiting_for_retry,
)
from tests.story import Story


def test_a_job_is_listed_under_its_status_once():
    for life, status in ((pending, 0), (running, 1), (succeeded, 2), (failed, 3), (cancelled_by_client, 4)):
        story = Story().given(*life())
        assert story.listed(JOBS_BY_STATUS) == [("acme", status, NOW, "j1")]


def test_a_job_moves_in_the_list_when_its_status_changes():
    story = Story().given(*pending()).at(NOW + 5).given(fact(TaskLeased))

    assert story.listed(JOBS_BY_STATUS) == [("acme", 1, NOW + 5, "j1")]


def test_a_job_is_found_by_its_metadata():
    story = Story().given(*pending(metadata=(("colour", "red"), ("size", "x" * 1_000))))

    assert story.listed(JOBS_BY_METADATA) == [
        ("acme", "colour", "red", "j1"),
        ("acme", "size", "x" * INDEXED_VALUE_CHARS, "j1"),
    ]


def test_two_values_of_one_key_are_two_entries_and_one_deletion():
    story = Story().given(*succeeded(metadata=(("a", "1"), ("a", "2"), ("a", "1"))))
    assert len(story.listed(JOBS_BY_METADATA)) == 2

    story.given(fact(JobDeleted))
    assert not story.listed(JOBS_BY_METADATA)
    assert not story.listed(JOBS_BY_STATUS)


def test_a_chain_says_where_it_is():
    for life, place in (
        (pending(), Place.READY),
        (pending(start_ms=LATER), Place.TIMER),
        (running(), Place.LEASED),
        (waiting_for_retry(), Place.TIMER),
    ):
        assert Story().given(*life).job().chain.place is place
    for life in (succeeded(), failed(), cancelled_by_client()):
        assert Story().given(*life).job().chain is None


def test_a_job_knows_its_newest_event():
    story = Story().given(*waiting_for_retry())

    assert story.job().last_seq == story.history[-1].seq
