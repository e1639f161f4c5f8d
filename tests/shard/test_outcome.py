from __future__ import annotations

import pytest

from silo.domain.jobs import AttemptStatus, JobStatus
from silo.errors import LeaseNotFound
from silo.events.catalogue import (
    AttemptCancelled,
    AttemptFailed,
    AttemptSucceeded,
    ChainStarted,
    JobCancelled,
    JobDeleted,
    JobFailed,
)
from silo.projections.leases import EXPIRIES, LEASES
from silo.projections.tasks import FORGETTING, READY, TIMERS
from silo.shard.draft import Caller, Rules
from silo.shard.enqueue import enqueue
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.restart import restart
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_job,
    a_policy,
    cancelled,
    cancelled_by_worker,
    fact,
    failed,
    failure,
    for_worker,
    pending,
    running,
    running_to_be_cancelled,
    succeeded,
    success,
    waiting_for_retry,
)
from tests.story import Story, kinds


@pytest.mark.parametrize(
    ("life", "report", "facts", "status"),
    [
        pytest.param(
            running(), success(), [AttemptSucceeded], JobStatus.SUCCEEDED, id="success ends the job"
        ),
        pytest.param(
            running_to_be_cancelled(),
            success(),
            [AttemptSucceeded],
            JobStatus.SUCCEEDED,
            id="success is success, also if somebody wanted the job cancelled",
        ),
        pytest.param(
            running(),
            failure(),
            [AttemptFailed, JobFailed],
            JobStatus.FAILED,
            id="without a policy there is no retry",
        ),
        pytest.param(
            running(retry_policy=a_policy(retry_count=0)),
            failure(),
            [AttemptFailed, JobFailed],
            JobStatus.FAILED,
            id="nor with none allowed",
        ),
        pytest.param(
            running(retry_policy=a_policy()),
            failure(),
            [AttemptFailed, ChainStarted],
            JobStatus.SCHEDULED,
            id="a failure with a retry left is tried again",
        ),
        pytest.param(
            running_to_be_cancelled(retry_policy=a_policy()),
            failure(),
            [AttemptFailed, JobCancelled],
            JobStatus.CANCELLED,
            id="unless somebody wanted the job cancelled",
        ),
        pytest.param(
            running_to_be_cancelled(),
            failure(),
            [AttemptFailed, JobCancelled],
            JobStatus.CANCELLED,
            id="who wanted it cancelled sees it cancelled, not failed",
        ),
        pytest.param(
            running(retry_policy=a_policy()),
            cancelled(),
            [AttemptCancelled, JobCancelled],
            JobStatus.CANCELLED,
            id="a worker may cancel by itself, and nothing is tried again",
        ),
        pytest.param(
            running_to_be_cancelled(),
            cancelled(),
            [AttemptCancelled, JobCancelled],
            JobStatus.CANCELLED,
            id="a worker does as it was told",
        ),
    ],
)
def test_the_end_of_an_attempt_decides_what_becomes_of_the_job(life, report, facts, status):
    story = Story().given(*life).at(NOW + 7).when(report_outcome, report)

    assert kinds(story.events) == facts
    assert (story.job().status, story.job().changed_ms) == (status, NOW + 7)
    # Whatever the outcome: the lease is gone, and the attempt is closed.
    assert not story.table(LEASES)
    assert not story.table(EXPIRIES)
    assert [attempt.row.finished_ms for attempt in story.attempts()] == [NOW + 7]
    if status.is_terminal:
        assert story.job().chain is None
        assert not story.table(READY)
        assert not story.table(TIMERS)


@pytest.mark.parametrize("report", [success(), failure(), cancelled()])
def test_whether_somebody_asked_to_cancel_stays_on_record(report):
    story = Story().given(*running_to_be_cancelled()).at(NOW + 7).when(report_outcome, report)

    assert story.job().cancelled_ms == NOW


def test_a_success_keeps_its_result():
    story = Story().given(*running()).at(NOW + 7).when(report_outcome, success(result=b"42"))

    (attempt,) = story.attempts()
    assert (attempt.row.status, attempt.row.error_code) == (AttemptStatus.SUCCEEDED, None)
    assert (attempt.number, attempt.row.task_id, attempt.data) == (1, "task-1", b"42")


def test_a_failure_keeps_its_code_and_data():
    story = Story().given(*running()).when(report_outcome, failure(error_code="OOM", error_data=b"core"))

    (attempt,) = story.attempts()
    assert (attempt.row.status, attempt.row.error_code) == (AttemptStatus.FAILED, "OOM")
    assert attempt.data == b"core"


@pytest.mark.parametrize("size", [0, 1, 100, 1_000, 100_000])
def test_results_and_errors_of_any_size_are_kept(size):
    policy = a_policy(max_interval_ms=0)
    story = Story().given(*running(retry_policy=policy)).when(report_outcome, failure(error_data=b"x" * size))
    (task,) = story.when(lease_tasks, for_worker()).reply
    story.when(report_outcome, success(task.task_id, result=b"y" * size))

    assert [attempt.data for attempt in story.attempts()] == [b"x" * size, b"y" * size]


def test_a_retry_waits_as_long_as_the_policy_says():
    # A172, A173
    story = Story().given(*running(retry_policy=a_policy())).at(NOW + 7).when(report_outcome, failure())

    due_ms = NOW + 7 + 2_000
    retry = story.events[1]
    assert retry == fact(
        ChainStarted,
        task_id=retry.task_id,
        attempt=2,
        relative_attempt=2,
        start_ms=due_ms,
        virtual_start_ms=due_ms,
    )
    assert retry.task_id != "task-1"
    assert story.job().next_start_ms == due_ms
    assert list(story.table(TIMERS)) == [(due_ms, retry.seq)]


def test_a_retry_without_a_wait_is_ready_at_once_behind_what_waits_already():
    policy = a_policy(max_interval_ms=0)
    story = Story().given(*running(retry_policy=policy)).when(enqueue, a_job(job_id="j2"))
    story.when(report_outcome, failure())

    assert [task.job_id for task in story.when(lease_tasks, for_worker()).reply] == ["j2", "j1"]


def test_a_retry_keeps_the_weight_of_its_priority():
    story = Story(rules=Rules(priority_weight_ms=1_000))
    story.given(*running(retry_policy=a_policy(), priority=5)).when(report_outcome, failure())

    assert story.events[1].virtual_start_ms == NOW + 2_000 + 5_000


def test_attempt_numbers_count_a_life_and_relative_ones_a_run():
    # A173
    story = Story().when(enqueue, a_job(retry_policy=a_policy(retry_count=1)))
    numbers = []

    def fail_once():
        (task,) = story.at(story.now_ms + 60_000).when(lease_tasks, for_worker()).reply
        numbers.append((task.attempt, task.relative_attempt, task.is_last_attempt))
        story.when(report_outcome, failure(task.task_id))

    fail_once()
    fail_once()
    assert story.job().status is JobStatus.FAILED
    story.when(restart, NAME)
    fail_once()
    fail_once()

    assert numbers == [(1, 1, False), (2, 2, True), (3, 1, False), (4, 2, True)]
    assert story.job().status is JobStatus.FAILED
    assert [attempt.number for attempt in story.attempts()] == [1, 2, 3, 4]
    assert len({attempt.row.task_id for attempt in story.attempts()}) == 4


@pytest.mark.parametrize("life", [list, pending, succeeded, failed, cancelled_by_worker, waiting_for_retry])
@pytest.mark.parametrize("report", [success(), failure(), cancelled()])
def test_an_attempt_that_does_not_run_has_no_outcome(life, report):
    story = Story().given(*life())
    before = story.everything()

    with pytest.raises(LeaseNotFound, match=r"^lease not found$"):
        story.when(report_outcome, report)
    assert story.everything() == before


def test_the_outcome_of_a_deleted_job_is_refused():
    with pytest.raises(LeaseNotFound):
        Story().given(*succeeded(), fact(JobDeleted)).when(report_outcome, success())


RETENTION = Rules(completed_expire_ms=1_000, terminal_expire_ms=2_000)


@pytest.mark.parametrize(
    ("report", "forget_ms"),
    [
        pytest.param(success(), LATER + 1_000, id="a success"),
        pytest.param(failure(), LATER + 2_000, id="a failure"),
        pytest.param(cancelled(), LATER + 2_000, id="a cancellation"),
    ],
)
def test_an_ended_job_is_forgotten_when_its_time_is_over(report, forget_ms):
    story = Story(rules=RETENTION).given(*running()).at(LATER).when(report_outcome, report)

    assert story.job().forget_ms == forget_ms
    assert list(story.table(FORGETTING)) == [(forget_ms, "acme", "j1")]


@pytest.mark.parametrize("report", [success(), failure(), cancelled()])
def test_without_a_retention_nothing_is_forgotten(report):
    story = Story().given(*running()).when(report_outcome, report)

    assert story.job().forget_ms is None
    assert not story.table(FORGETTING)


def test_a_job_that_is_tried_again_is_not_to_be_forgotten():
    story = Story(rules=RETENTION).given(*running(retry_policy=a_policy())).when(report_outcome, failure())

    assert story.job().forget_ms is None
    assert not story.table(FORGETTING)


def test_a_report_without_a_name_is_the_leaseholders():
    story = Story().when(enqueue, a_job())
    (task,) = story.when(lease_tasks, for_worker("worker-7")).reply
    story.caller = Caller(actor="", method="ReportOutcome")

    assert [event.actor for event in story.when(report_outcome, success(task.task_id)).events] == ["worker-7"]
