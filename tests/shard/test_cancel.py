from __future__ import annotations

import pytest

from silo.domain.jobs import AttemptStatus, JobStatus
from silo.errors import JobNotFound, WrongState
from silo.events.catalogue import CancellationRequested, JobCancelled
from silo.projections.counters import COUNTS
from silo.projections.tasks import FORGETTING, READY, TIMERS
from silo.shard.cancel import cancel
from silo.shard.draft import Rules
from silo.shard.due import wake_due
from silo.shard.import_jobs import import_jobs
from silo.shard.lease import lease_tasks
from tests.builders import (
    LATER,
    NAME,
    NOW,
    an_attempt,
    an_import,
    cancelled_by_client,
    cancelled_by_worker,
    fact,
    failed,
    for_worker,
    pending,
    running,
    running_to_be_cancelled,
    succeeded,
    waiting_for_retry,
)
from tests.story import Story


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(pending(), id="ready"),
        pytest.param(pending(start_ms=LATER), id="to start later"),
        pytest.param(waiting_for_retry(), id="waiting for its next try"),
    ],
)
def test_a_pending_job_ends_at_once(life):
    # A70
    story = Story().given(*life)
    next_start_ms, attempts = story.job().next_start_ms, len(story.attempts())

    story.at(NOW + 3).when(cancel, NAME)

    assert story.events == [fact(CancellationRequested), fact(JobCancelled)]
    row = story.job()
    assert (row.status, row.changed_ms, row.cancelled_ms) == (JobStatus.CANCELLED, NOW + 3, NOW + 3)
    assert row.next_start_ms == next_start_ms
    assert len(story.attempts()) == attempts
    assert story.row(COUNTS, "acme").completed == 1


@pytest.mark.parametrize("life", [pending(), pending(start_ms=LATER), waiting_for_retry()])
def test_nothing_of_a_cancelled_job_is_ever_leased(life):
    # A70
    story = Story().given(*life).when(cancel, NAME)

    assert not story.table(READY)
    assert not story.table(TIMERS)
    story.at(LATER + 60_000)
    assert story.when(wake_due).reply == 0
    assert story.when(lease_tasks, for_worker()).reply == []


def test_a_running_job_goes_on_until_its_worker_hears_of_it():
    # A71
    story = Story().given(*running()).at(NOW + 3).when(cancel, NAME)

    assert story.events == [fact(CancellationRequested)]
    row = story.job()
    assert (row.status, row.changed_ms, row.cancelled_ms) == (JobStatus.RUNNING, NOW, NOW + 3)


@pytest.mark.parametrize("by_import", [False, True])
def test_a_job_that_was_cancelled_without_a_client_may_still_be_marked_by_one(by_import):
    story = Story()
    if by_import:
        story.when(import_jobs, [an_import(an_attempt(AttemptStatus.CANCELLED))])
    else:
        story.given(*cancelled_by_worker())
    changed_ms = story.job().changed_ms

    story.at(NOW + 3).when(cancel, NAME)

    assert story.events == [fact(CancellationRequested)]
    assert (story.job().changed_ms, story.job().cancelled_ms) == (changed_ms, NOW + 3)


@pytest.mark.parametrize(
    ("life", "text"),
    [
        (running_to_be_cancelled, "job is already cancelled"),
        (cancelled_by_client, "job is already cancelled"),
        (succeeded, "job is already in terminal state"),
        (failed, "job is already in terminal state"),
        pytest.param(
            lambda: [*running_to_be_cancelled(), succeeded()[-1]],
            "job is already cancelled",
            id="that it was asked before is told before that it is over",
        ),
    ],
)
def test_what_was_cancelled_or_is_over_cannot_be_cancelled(life, text):
    # A73
    story = Story().given(*life())
    before = story.everything()

    with pytest.raises(WrongState, match=rf"^{text}$"):
        story.when(cancel, NAME)
    assert story.everything() == before


def test_what_does_not_exist_cannot_be_cancelled():
    # A73
    with pytest.raises(JobNotFound, match=r"^job not found$"):
        Story().when(cancel, NAME)


def test_a_cancelled_job_is_forgotten_when_its_time_is_over():
    story = Story(rules=Rules(completed_expire_ms=1, terminal_expire_ms=2_000)).given(*pending())
    story.when(cancel, NAME)

    assert list(story.table(FORGETTING)) == [(NOW + 2_000, "acme", "j1")]
