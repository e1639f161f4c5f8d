from __future__ import annotations

import pytest

from silo.domain.jobs import AttemptStatus, JobStatus
from silo.errors import WrongState
from silo.events.catalogue import AttemptImported, ChainStarted, JobImported, JobReimported
from silo.projections.counters import COUNTS
from silo.projections.jobs import Place
from silo.projections.tasks import FORGETTING, READY, TIMERS
from silo.shard.draft import Rules
from silo.shard.enqueue import enqueue
from silo.shard.import_jobs import Imported, NotImported, import_jobs, refuse_running
from silo.shard.jobs import JobName
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job, get_result
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_job,
    a_policy,
    a_spec,
    an_attempt,
    an_import,
    cancelled_by_client,
    fact,
    failed,
    failure,
    for_worker,
    pending,
    running,
    succeeded,
    waiting_for_retry,
)
from tests.story import Story, kinds

SUCCEEDED, FAILED, CANCELLED = AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.CANCELLED

ONE_RETRY = a_policy(retry_count=1)


def told(*statuses: AttemptStatus) -> list:
    """Attempts with these outcomes, one after the other in time."""
    return [
        an_attempt(status, started_ms=100 * number, finished_ms=100 * number + 50)
        for number, status in enumerate(statuses, start=1)
    ]


# --- a new id -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "policy", "status"),
    [
        pytest.param([], None, JobStatus.SCHEDULED, id="without a history it has everything before it"),
        pytest.param([SUCCEEDED], None, JobStatus.SUCCEEDED, id="succeeded"),
        pytest.param([FAILED, SUCCEEDED], None, JobStatus.SUCCEEDED, id="succeeded in the end"),
        pytest.param([CANCELLED], a_policy(), JobStatus.CANCELLED, id="cancelled"),
        pytest.param([FAILED], None, JobStatus.FAILED, id="failed, and no policy"),
        pytest.param([FAILED], ONE_RETRY, JobStatus.SCHEDULED, id="failed, and a retry left"),
        pytest.param([FAILED, FAILED], ONE_RETRY, JobStatus.FAILED, id="failed, and no retry left"),
    ],
)
def test_the_attempts_of_a_new_job_say_how_it_stands(statuses, policy, status):
    story = Story().when(import_jobs, [an_import(*told(*statuses), retry_policy=policy)])

    assert story.reply == [Imported(status)]
    row = story.job()
    assert row.status is status
    assert row.changed_ms == (100 * len(statuses) + 50 if status.is_terminal else NOW)
    assert row.cancelled_ms is None
    chain = [ChainStarted] if status is JobStatus.SCHEDULED else []
    assert kinds(story.events) == [JobImported, *[AttemptImported] * len(statuses), *chain]


def test_imported_attempts_are_on_record_as_they_were_told():
    attempts = [
        an_attempt(FAILED, started_ms=1, finished_ms=2, error_code="E1", data=b"error"),
        an_attempt(SUCCEEDED, started_ms=3, finished_ms=4, data=b"x" * 10_000),
    ]
    story = Story().when(import_jobs, [an_import(*attempts)])

    first, second = story.attempts()
    assert (first.number, first.row.status, first.row.started_ms, first.row.finished_ms) == (1, FAILED, 1, 2)
    assert (first.row.error_code, first.data) == ("E1", b"error")
    assert (second.number, second.row.status, second.row.error_code) == (2, SUCCEEDED, None)
    assert second.data == b"x" * 10_000
    assert len({"", first.row.task_id, second.row.task_id}) == 3


def test_an_imported_job_goes_on_where_its_history_ends():
    story = Story().when(import_jobs, [an_import(*told(FAILED, FAILED), retry_policy=a_policy())])

    (task,) = story.when(lease_tasks, for_worker()).reply
    assert (task.attempt, task.relative_attempt, task.is_last_attempt) == (3, 3, True)


@pytest.mark.parametrize(
    ("start_ms", "begins_ms", "place"),
    [
        pytest.param(0, NOW, Place.READY, id="none stated"),
        pytest.param(NOW - 5, NOW - 5, Place.READY, id="passed"),
        pytest.param(LATER, LATER, Place.TIMER, id="to come"),
    ],
)
def test_an_imported_job_starts_when_the_request_says_and_no_backoff_is_added(start_ms, begins_ms, place):
    job = an_import(*told(FAILED), start_ms=start_ms, retry_policy=a_policy())
    story = Story().when(import_jobs, [job])

    assert (story.job().next_start_ms, story.job().chain.place) == (begins_ms, place)


def test_what_is_stated_about_an_imported_job_is_kept():
    job = an_import(enqueue_time_ms=77, priority=9, metadata=(("a", "b"),), task_group="g" * 100)
    story = Story().when(import_jobs, [job])

    seen = story.when(get_job, GetJob(name=NAME, include_attempts=False)).reply
    assert (seen.row.spec, seen.payload) == (job.spec, b"payload")
    assert seen.row.enqueued_ms == NOW


@pytest.mark.parametrize("status", [SUCCEEDED, CANCELLED])
def test_only_the_last_attempt_of_a_new_job_may_be_another_than_failed(status):
    story = Story().when(import_jobs, [an_import(*told(FAILED, status, FAILED))])

    text = "invalid argument: import attempt 1 must be Failed (only the last attempt may be non-Failed)"
    assert story.reply == [NotImported(text)]
    assert story.events == []


def test_imported_jobs_are_counted():
    story = Story().when(import_jobs, [an_import(*told(SUCCEEDED)), an_import(name=JobName("acme", "j2"))])

    assert (story.row(COUNTS, "acme").total, story.row(COUNTS, "acme").completed) == (2, 1)


@pytest.mark.parametrize(
    ("status", "forget_ms"), [(SUCCEEDED, NOW + 1_000), (FAILED, NOW + 2_000), (CANCELLED, NOW + 2_000)]
)
def test_the_retention_of_an_imported_job_begins_with_its_import(status, forget_ms):
    story = Story(rules=Rules(completed_expire_ms=1_000, terminal_expire_ms=2_000))
    story.when(import_jobs, [an_import(*told(status))])

    assert list(story.table(FORGETTING)) == [(forget_ms, "acme", "j1")]
    assert story.job().forget_ms == forget_ms


# --- an id that is known ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "more", "policy", "status"),
    [
        pytest.param([FAILED], [SUCCEEDED], None, JobStatus.SUCCEEDED, id="it succeeded since"),
        pytest.param([FAILED], [FAILED], ONE_RETRY, JobStatus.FAILED, id="it failed for good since"),
        pytest.param([FAILED], [FAILED], a_policy(), JobStatus.SCHEDULED, id="it failed, and is tried again"),
        pytest.param([], [CANCELLED], None, JobStatus.CANCELLED, id="it was cancelled since"),
        pytest.param(
            [CANCELLED], [SUCCEEDED], None, JobStatus.SUCCEEDED, id="the cancelled one was run again"
        ),
    ],
)
def test_a_known_job_with_more_attempts_goes_on_from_there(statuses, more, policy, status):
    story = Story().when(import_jobs, [an_import(*told(*statuses))])
    story.at(NOW + 5).when(import_jobs, [an_import(*told(*statuses, *more), retry_policy=policy)])

    assert story.reply == [Imported(status)]
    assert kinds(story.events)[:2] == [JobReimported, AttemptImported]
    assert [attempt.row.status for attempt in story.attempts()] == [*statuses, *more]
    assert story.job().status is status
    counts = story.row(COUNTS, "acme")
    assert (counts.total, counts.completed) == (1, int(status.is_terminal))


def test_of_a_known_job_only_the_retry_policy_changes():
    story = Story().given(*failed(priority=5, metadata=(("a", "b"),))).at(NOW + 5)
    stored = an_attempt(started_ms=NOW, finished_ms=NOW)
    new = an_attempt(started_ms=NOW + 1, finished_ms=NOW + 2)
    policy = a_policy(retry_count=7)
    job = an_import(stored, new, retry_policy=policy, priority=50, task_group="other", payload=b"other")
    story.when(import_jobs, [job])

    assert story.events[0] == fact(JobReimported, retry_policy=policy, changed_ms=NOW + 5)
    seen = story.when(get_job, GetJob(name=NAME, include_attempts=False)).reply
    assert seen.row.spec == a_spec(priority=5, metadata=(("a", "b"),), retry_policy=policy)
    assert seen.payload == b"payload"
    (task,) = story.when(lease_tasks, for_worker()).reply
    assert (task.attempt, task.relative_attempt) == (3, 3)


def test_the_old_chain_of_a_known_job_is_over():
    story = Story().given(*pending(start_ms=LATER)).when(import_jobs, [an_import(*told(SUCCEEDED))])
    assert not story.table(TIMERS)

    story = Story().given(*pending()).when(import_jobs, [an_import(*told(FAILED), retry_policy=a_policy())])
    assert list(story.table(READY)) == [("group", NOW, NOW, story.events[-1].seq)]


def test_a_known_job_forgets_its_cancellation():
    story = Story().given(*cancelled_by_client()).when(import_jobs, [an_import(*told(SUCCEEDED))])

    assert (story.job().status, story.job().cancelled_ms) == (JobStatus.SUCCEEDED, None)


def test_a_known_job_that_goes_on_is_not_forgotten():
    story = Story(rules=Rules(terminal_expire_ms=1_000)).given(*running()).when(report_outcome, failure())
    stored = an_attempt(started_ms=NOW, finished_ms=NOW)
    story.when(import_jobs, [an_import(stored, *told(FAILED), retry_policy=a_policy())])

    assert story.job().status is JobStatus.SCHEDULED
    assert not story.table(FORGETTING)
    assert story.job().forget_ms is None


STORED = an_attempt(started_ms=NOW, finished_ms=NOW)
"""The attempt of `failed()`, as its source would tell it."""


@pytest.mark.parametrize(
    ("life", "attempts", "text"),
    [
        pytest.param(
            succeeded,
            told(SUCCEEDED, FAILED),
            "cannot reimport job: cannot reimport job j1: job already succeeded (status: Succeeded)",
            id="what succeeded is over",
        ),
        pytest.param(
            failed,
            [],
            "cannot reimport job: cannot reimport job j1: "
            "reimport has 0 attempts but job has 1 existing attempts (status: Failed)",
            id="a history does not become shorter",
        ),
        pytest.param(
            failed,
            [STORED],
            "cannot reimport job: cannot reimport job j1: "
            "reimport must include at least one new attempt (status: Failed)",
            id="the same import again says nothing new",
        ),
        pytest.param(
            pending,
            [],
            "cannot reimport job: cannot reimport job j1: "
            "reimport must include at least one new attempt (status: Scheduled)",
            id="nor does one of a job without attempts",
        ),
        pytest.param(
            failed,
            [STORED, *told(CANCELLED, FAILED)],
            "invalid argument: import attempt 0 must be Failed (only the last attempt may be non-Failed)",
            id="of the new attempts, too, only the last may be another than failed",
        ),
        *(
            pytest.param(
                failed,
                [an_attempt(**{"started_ms": NOW, "finished_ms": NOW} | other), *told(FAILED)],
                "cannot reimport job: cannot reimport job j1: "
                "existing attempt 0 does not match reimport data (status: Failed)",
                id=f"another {next(iter(other))} is another story",
            )
            for other in (
                {"status": SUCCEEDED},
                {"started_ms": NOW - 1},
                {"finished_ms": NOW + 1},
                {"error_code": "F"},
                {"data": b"another"},
            )
        ),
    ],
)
def test_a_reimport_that_contradicts_the_record_is_refused(life, attempts, text):
    story = Story().given(*life())
    before = story.everything()
    story.when(import_jobs, [an_import(*attempts, retry_policy=a_policy())])

    assert story.reply == [NotImported(text)]
    assert story.events == []
    assert story.everything() == before


def test_a_job_between_two_tries_may_be_reimported():
    story = Story().given(*waiting_for_retry())
    story.when(import_jobs, [an_import(STORED, *told(SUCCEEDED), retry_policy=a_policy())])

    assert story.reply == [Imported(JobStatus.SUCCEEDED)]
    assert not story.table(TIMERS)


# --- many in one call ---------------------------------------------------------------------------------------


def test_a_running_job_refuses_the_whole_call_if_that_is_asked_beforehand():
    story = Story().given(*running())
    jobs = [an_import(name=JobName("acme", "new")), an_import()]

    with pytest.raises(
        WrongState, match=r"^cannot reimport job j1: job is currently running \(status: Running\)$"
    ):
        story.when(refuse_running, jobs)


def test_a_job_that_runs_by_the_time_of_its_import_is_refused_by_itself():
    story = Story().given(*running())
    story.when(import_jobs, [an_import(name=JobName("acme", "new")), an_import()])

    taken, refused = story.reply
    assert taken == Imported(JobStatus.SCHEDULED)
    assert isinstance(refused, NotImported)
    assert "job is currently running" in refused.error


def test_a_job_that_is_refused_does_not_stop_the_others():
    jobs = [
        an_import(*told(SUCCEEDED, FAILED), name=JobName("acme", "bad")),
        an_import(*told(SUCCEEDED), name=JobName("acme", "good")),
        an_import(name=JobName("other", "good")),
    ]
    story = Story().when(import_jobs, jobs)

    assert [type(result) for result in story.reply] == [NotImported, Imported, Imported]
    assert story.row(COUNTS, "acme").total == 1


def test_the_same_id_twice_in_one_call_is_a_reimport_of_the_first():
    first = an_import(*told(FAILED), retry_policy=a_policy())
    story = Story().when(import_jobs, [first, an_import(*told(FAILED, SUCCEEDED)), first])

    assert story.reply[:2] == [Imported(JobStatus.SCHEDULED), Imported(JobStatus.SUCCEEDED)]
    assert "job already succeeded" in story.reply[2].error
    assert not story.table(READY)


def test_an_import_of_nothing_is_fine():
    assert Story().when(import_jobs, []).reply == []


def test_an_enqueued_job_may_be_reimported_and_an_imported_one_leased():
    story = Story().when(enqueue, a_job()).when(import_jobs, [an_import(*told(SUCCEEDED))])

    assert story.reply == [Imported(JobStatus.SUCCEEDED)]
    assert story.when(get_result, NAME).reply.attempt.data == b"result"
    assert story.when(lease_tasks, for_worker()).reply == []
