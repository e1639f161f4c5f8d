from __future__ import annotations

import pytest

from silo.domain.jobs import JobStatus
from silo.errors import JobNotFound, WrongState
from silo.events.catalogue import ChainStarted, JobRestarted
from silo.projections.counters import COUNTS
from silo.projections.jobs import Place
from silo.projections.tasks import FORGETTING
from silo.shard.cancel import cancel
from silo.shard.delete import forget_expired
from silo.shard.draft import Rules
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.restart import restart
from tests.builders import (
    LATER,
    NAME,
    NOW,
    cancelled_by_client,
    cancelled_by_worker,
    fact,
    failed,
    failure,
    for_worker,
    pending,
    running,
    running_to_be_cancelled,
    succeeded,
)
from tests.story import Story


@pytest.mark.parametrize(
    ("life", "attempt"),
    [
        pytest.param(failed, 2, id="failed"),
        pytest.param(cancelled_by_worker, 2, id="cancelled by its worker"),
        pytest.param(cancelled_by_client, 1, id="cancelled before any attempt"),
    ],
)
def test_a_job_that_failed_or_was_cancelled_gets_another_run(life, attempt):
    # A173
    story = Story().given(*life()).at(NOW + 3).when(restart, NAME)

    chain = story.events[1]
    assert story.events == [
        fact(JobRestarted),
        fact(
            ChainStarted,
            task_id=chain.task_id,
            attempt=attempt,
            relative_attempt=1,
            start_ms=NOW + 3,
            virtual_start_ms=NOW + 3,
        ),
    ]
    row = story.job()
    assert (row.status, row.changed_ms, row.next_start_ms) == (JobStatus.SCHEDULED, NOW + 3, NOW + 3)
    assert row.cancelled_ms is None
    assert story.row(COUNTS, "acme").completed == 0
    assert story.when(lease_tasks, for_worker()).reply[0].attempt == attempt


def test_earlier_attempts_stay_on_record():
    # A173
    story = Story().given(*failed()).when(restart, NAME)
    assert [attempt.number for attempt in story.attempts()] == [1]

    story.when(lease_tasks, for_worker())
    assert [(attempt.number, attempt.row.task_id) for attempt in story.attempts()] == [
        (1, "task-1"),
        (2, story.reply[0].task_id),
    ]


def test_a_job_cancelled_before_its_start_keeps_that_start():
    story = Story().given(*pending(start_ms=LATER, enqueue_time_ms=LATER)).when(cancel, NAME)
    story.when(restart, NAME)

    assert story.job().next_start_ms == LATER
    assert story.job().chain.place is Place.TIMER


@pytest.mark.parametrize(
    ("life", "reason"),
    [
        (pending, "job is still in progress (status: Scheduled)"),
        (running, "job is still in progress (status: Running)"),
        (running_to_be_cancelled, "job is still in progress (status: Running)"),
        (succeeded, "job already succeeded (status: Succeeded)"),
    ],
)
def test_a_job_that_goes_on_or_succeeded_is_not_restarted(life, reason):
    story = Story().given(*life())
    before = story.everything()

    with pytest.raises(WrongState) as refusal:
        story.when(restart, NAME)
    assert str(refusal.value) == f"cannot restart job j1: {reason}"
    assert story.everything() == before


def test_what_does_not_exist_is_not_restarted():
    with pytest.raises(JobNotFound):
        Story().when(restart, NAME)


def test_a_restarted_job_is_not_forgotten():
    story = Story(rules=Rules(terminal_expire_ms=1_000)).given(*running()).when(report_outcome, failure())
    assert story.table(FORGETTING)

    story.when(restart, NAME)
    assert not story.table(FORGETTING)
    assert story.at(LATER).when(forget_expired).reply == 0
    assert story.job().forget_ms is None


def test_the_retention_of_a_restarted_job_begins_anew_when_it_ends_again():
    story = Story(rules=Rules(terminal_expire_ms=1_000)).given(*running()).when(report_outcome, failure())
    (task,) = story.when(restart, NAME).at(LATER).when(lease_tasks, for_worker()).reply
    story.when(report_outcome, failure(task.task_id))

    assert list(story.table(FORGETTING)) == [(LATER + 1_000, "acme", "j1")]


def test_a_restarted_job_may_be_cancelled_again():
    story = Story().given(*cancelled_by_client()).when(restart, NAME).at(NOW + 9).when(cancel, NAME)

    assert (story.job().status, story.job().cancelled_ms) == (JobStatus.CANCELLED, NOW + 9)
