from __future__ import annotations

from silo.events.catalogue import AttemptFailed, JobDeleted
from silo.projections.payloads import PAYLOADS
from tests.builders import fact, pending, running
from tests.story import Story


def test_a_payload_lies_under_the_number_of_the_event_that_brought_it():
    assert Story().given(*pending()).table(PAYLOADS) == {(1,): b"payload"}


def test_a_payload_is_not_touched_when_the_job_changes():
    story = Story().given(*pending())
    payload = story.row(PAYLOADS, 1)

    story.given(*running()[2:])
    assert story.row(PAYLOADS, 1) is payload


def test_long_data_lies_apart_and_goes_with_its_job():
    story = Story().given(*running(), fact(AttemptFailed, error_data=b"x" * 10_000))
    assert story.row(PAYLOADS, 4) == b"x" * 10_000

    story.given(fact(JobDeleted))
    assert not story.table(PAYLOADS)
