from __future__ import annotations

from silo.events.catalogue import AttemptFailed, Event, JobDeleted, JobEnqueued
from silo.projections.payloads import PAYLOADS
from tests.builders import fact, pending, running
from tests.story import Story

LONG = b"x" * 10_000


def long_job() -> list[Event]:
    return [fact(JobEnqueued, payload=LONG), *running()[1:]]


def test_a_short_payload_lies_in_the_row_of_its_job():
    story = Story().given(*pending())

    assert story.job().payload == b"payload"
    assert not story.table(PAYLOADS)


def test_a_long_payload_lies_under_the_number_of_the_event_that_brought_it():
    assert Story().given(*long_job()[:2]).table(PAYLOADS) == {(1,): LONG}


def test_a_long_payload_is_not_touched_when_the_job_changes():
    story = Story().given(*long_job()[:2])
    payload = story.row(PAYLOADS, 1)

    story.given(*long_job()[2:])
    assert story.row(PAYLOADS, 1) is payload


def test_long_data_lies_apart_and_goes_with_its_job():
    story = Story().given(*long_job(), fact(AttemptFailed, error_data=LONG))
    assert story.row(PAYLOADS, 1) == story.row(PAYLOADS, 4) == LONG

    story.given(fact(JobDeleted))
    assert not story.table(PAYLOADS)
