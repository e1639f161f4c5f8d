from __future__ import annotations

import pytest

from silo.domain.jobs import AttemptStatus, JobStatus
from silo.errors import JobNotFound, WrongState
from silo.shard.cancel import cancel
from silo.shard.enqueue import enqueue
from silo.shard.import_jobs import import_jobs
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_counts, get_history, get_job, get_result
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_job,
    a_policy,
    an_attempt,
    an_import,
    cancelled,
    cancelled_by_client,
    failed,
    failure,
    pending,
    running,
    running_to_be_cancelled,
    succeeded,
    success,
    waiting_for_retry,
)
from tests.story import Story


def seen(story: Story, *, include_attempts: bool = True):
    return story.when(get_job, GetJob(name=NAME, include_attempts=include_attempts)).reply


def test_attempts_are_shown_only_if_asked_for_and_in_their_order():
    story = Story().given(*waiting_for_retry())
    assert seen(story, include_attempts=False).attempts == []

    attempts = seen(story).attempts
    assert [(attempt.number, attempt.data) for attempt in attempts] == [(1, b"error")]


def test_only_attempts_that_started_are_shown():
    assert seen(Story().given(*pending())).attempts == []
    assert [attempt.number for attempt in seen(Story().given(*waiting_for_retry())).attempts] == [1]


@pytest.mark.parametrize("include_attempts", [False, True])
@pytest.mark.parametrize(
    ("life", "result"),
    [(succeeded, b"result"), (failed, None), (running, None), (pending, None), (cancelled_by_client, None)],
)
def test_only_a_job_that_succeeded_has_a_result(life, result, include_attempts):
    assert seen(Story().given(*life()), include_attempts=include_attempts).result == result


@pytest.mark.parametrize(
    ("life", "next_start_ms"),
    [
        pytest.param(pending(start_ms=LATER), LATER, id="a pending job says when it starts"),
        pytest.param(running(), None, id="a running one does not"),
        pytest.param(succeeded(), None, id="nor one that succeeded"),
        pytest.param(failed(), None, id="or failed"),
        pytest.param(
            cancelled_by_client(start_ms=LATER), LATER, id="one cancelled before its start still does"
        ),
    ],
)
def test_when_the_next_attempt_starts(life, next_start_ms):
    assert seen(Story().given(*life)).row.next_start_ms == next_start_ms


# --- GetJobResult -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "status", "attempt_status", "data"),
    [
        (success(), JobStatus.SUCCEEDED, AttemptStatus.SUCCEEDED, b"result"),
        (failure(), JobStatus.FAILED, AttemptStatus.FAILED, b"error"),
        (cancelled(), JobStatus.CANCELLED, AttemptStatus.CANCELLED, b""),
    ],
)
def test_the_result_is_that_of_the_last_attempt(report, status, attempt_status, data):
    story = Story().given(*running()).at(NOW + 9).when(report_outcome, report)

    result = story.at(LATER).when(get_result, NAME).reply
    assert (result.status, result.finished_ms) == (status, NOW + 9)
    assert (result.attempt.row.status, result.attempt.data) == (attempt_status, data)


def test_a_job_cancelled_before_any_attempt_ended_then():
    story = Story().given(*pending()).at(NOW + 9).when(cancel, NAME)

    result = story.when(get_result, NAME).reply
    assert (result.status, result.finished_ms, result.attempt) == (JobStatus.CANCELLED, NOW + 9, None)


def test_a_job_cancelled_between_two_tries_is_cancelled_and_ended_then():
    story = Story().given(*waiting_for_retry()).at(NOW + 9).when(cancel, NAME)

    result = story.when(get_result, NAME).reply
    assert (result.status, result.finished_ms) == (JobStatus.CANCELLED, NOW + 9)


def test_a_failure_of_a_job_to_be_cancelled_reads_as_cancelled():
    story = Story().given(*running_to_be_cancelled()).at(NOW + 9).when(report_outcome, failure())

    result = story.when(get_result, NAME).reply
    assert (result.status, result.finished_ms) == (JobStatus.CANCELLED, NOW + 9)
    assert result.attempt.row.status is AttemptStatus.FAILED


def test_an_imported_job_ended_when_its_last_attempt_did():
    story = Story().when(import_jobs, [an_import(an_attempt(AttemptStatus.CANCELLED, finished_ms=777))])

    assert story.when(get_result, NAME).reply.finished_ms == 777


@pytest.mark.parametrize(
    ("life", "status"),
    [
        (pending, "Scheduled"),
        (waiting_for_retry, "Scheduled"),
        (running, "Running"),
        (running_to_be_cancelled, "Running"),
    ],
)
def test_a_job_that_has_not_ended_has_no_result(life, status):
    with pytest.raises(WrongState, match=rf"^job is not complete: status is {status}$"):
        Story().given(*life()).when(get_result, NAME)


@pytest.mark.parametrize(
    ("read", "query"),
    [(get_job, GetJob(name=NAME, include_attempts=True)), (get_result, NAME), (get_history, NAME)],
)
def test_what_does_not_exist_cannot_be_read(read, query):
    with pytest.raises(JobNotFound, match=r"^job not found$"):
        Story().when(read, query)


# --- history and totals -------------------------------------------------------------------------------------


def test_the_history_of_a_job_is_found_from_its_newest_event():
    story = (
        Story().given(*pending()).when(enqueue, a_job(job_id="j2")).given(running()[-1], *succeeded()[-1:])
    )
    seq = story.when(get_history, NAME).reply

    by_seq = {event.seq: event for event in story.history}
    walk = []
    while seq:
        walk.append(type(by_seq[seq]).__name__)
        seq = by_seq[seq].prev
    assert walk == ["AttemptSucceeded", "TaskLeased", "ChainStarted", "JobEnqueued"]


def test_every_kind_of_event_of_a_job_is_in_its_history():
    story = Story().given(*waiting_for_retry(retry_policy=a_policy())).when(cancel, NAME)

    seq, walk = story.job().last_seq, 0
    while seq:
        seq, walk = story.history[seq - 1].prev, walk + 1
    assert walk == len(story.history)


def test_jobs_are_counted_by_status_for_each_tenant_and_for_the_shard():
    story = Story().given(*succeeded()).when(enqueue, a_job(job_id="j2")).when(enqueue, a_job(tenant="other"))

    for tenant, by_status in (("acme", (1, 0, 1, 0, 0)), ("other", (1, 0, 0, 0, 0)), ("", (2, 0, 1, 0, 0))):
        assert story.when(get_counts, tenant).reply.by_status == by_status
    assert story.when(get_counts, "nobody").reply.total == 0


def test_reading_changes_nothing():
    story = Story().given(*succeeded())
    before = story.everything()
    for read, query in (
        (get_job, GetJob(name=NAME, include_attempts=True)),
        (get_result, NAME),
        (get_counts, ""),
    ):
        assert story.when(read, query).events == []
    assert story.everything() == before
