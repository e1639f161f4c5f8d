from __future__ import annotations

import pytest

from silo.domain.jobs import AttemptStatus
from silo.events.catalogue import AttemptImported, AttemptSucceeded, JobDeleted, JobImported, TaskLeased
from silo.projections.attempts import ATTEMPTS
from silo.projections.payloads import PAYLOADS
from tests.builders import LATER, NOW, fact, failed, waiting_for_retry
from tests.story import Story


def test_an_attempt_that_is_followed_by_another_stays_as_it_ended():
    story = Story().given(*waiting_for_retry(retry_ms=NOW)).at(LATER)
    story.given(fact(TaskLeased, task_id="task-2", attempt=2))

    first, second = story.attempts()
    assert (first.row.status, first.row.finished_ms, first.data) == (AttemptStatus.FAILED, NOW, b"error")
    assert (second.row.status, second.row.started_ms) == (AttemptStatus.RUNNING, LATER)
    story.given(fact(AttemptSucceeded, task_id="task-2", attempt=2))
    assert [attempt.row.status for attempt in story.attempts()] == [
        AttemptStatus.FAILED,
        AttemptStatus.SUCCEEDED,
    ]


@pytest.mark.parametrize("size", [0, 255, 256, 257, 100_000])
def test_data_of_any_length_is_found_again_and_goes_with_the_job(size):
    data = [bytes([number]) * size for number in range(3)]
    facts = [
        fact(
            AttemptImported,
            attempt=number + 1,
            task_id=f"task-{number}",
            status=AttemptStatus.FAILED,
            data=one,
        )
        for number, one in enumerate(data)
    ]
    story = Story().given(fact(JobImported), *facts)

    assert [attempt.data for attempt in story.attempts()] == data
    story.given(fact(JobDeleted))
    assert not story.table(ATTEMPTS)
    assert not story.table(PAYLOADS)


def test_attempts_of_a_deleted_job_do_not_come_back_with_its_id():
    story = Story().given(*failed(), fact(JobDeleted), *failed())

    assert [attempt.number for attempt in story.attempts()] == [1]
