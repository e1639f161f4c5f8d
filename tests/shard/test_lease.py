from __future__ import annotations

import pytest

from silo.domain.jobs import LEASE_MS, AttemptStatus, JobStatus
from silo.errors import Invalid, JobNotFound, LeaseNotFound, WrongState
from silo.events.catalogue import ChainDue, ChainStarted, JobDeleted, LeaseRenewed, TaskLeased
from silo.projections.jobs import Place
from silo.projections.leases import EXPIRIES, LEASES, LeaseRow
from silo.projections.tasks import READY, TIMERS
from silo.shard.draft import Rules
from silo.shard.enqueue import enqueue
from silo.shard.lease import TASKS_PER_COMMAND_MAX, LeasedTask, heartbeat, lease_task, lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.restart import restart
from tests.builders import (
    LATER,
    NOW,
    a_heartbeat,
    a_job,
    a_policy,
    a_spec,
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
    this_job,
    waiting_for_retry,
)
from tests.story import Story, kinds

# --- LeaseTasks ---------------------------------------------------------------------------------------------


def test_ready_work_is_handed_out_with_all_that_a_worker_needs():
    spec = a_spec(retry_policy=a_policy(), metadata=(("a", "b"),))
    story = Story().when(enqueue, a_job(retry_policy=a_policy(), metadata=(("a", "b"),)))
    task_id = story.events[1].task_id

    story.when(lease_tasks, for_worker("w1"))

    assert story.reply == [LeasedTask(task_id, "acme", "j1", 1, 1, spec, b"payload")]
    assert story.events == [fact(TaskLeased, task_id=task_id, worker_id="w1")]


def test_a_leased_job_runs_and_its_attempt_is_on_record():
    # A172
    story = Story().given(*pending()).at(NOW + 5).when(lease_tasks, for_worker())

    row = story.job()
    assert (row.status, row.changed_ms, row.next_start_ms) == (JobStatus.RUNNING, NOW + 5, None)
    assert (row.attempts, row.chain.place) == (1, Place.LEASED)
    expires_ms = NOW + 5 + LEASE_MS
    assert story.row(LEASES, "task-1") == LeaseRow("acme", "j1", None, "worker", expires_ms)
    assert list(story.table(EXPIRIES)) == [(expires_ms, "task-1")]
    (attempt,) = story.attempts()
    assert (attempt.number, attempt.row.task_id, attempt.row.status) == (1, "task-1", AttemptStatus.RUNNING)
    assert (attempt.row.started_ms, attempt.row.finished_ms, attempt.data) == (NOW + 5, None, b"")
    assert not story.table(READY)


def test_no_task_is_handed_out_twice():
    # A180, A182, A183
    story = Story().given(*pending()).when(lease_tasks, for_worker("w1"))

    assert story.when(lease_tasks, for_worker("w2")).reply == []
    assert story.events == []


def test_only_work_of_the_task_group_is_handed_out():
    story = Story().given(*pending(task_group="mails"))

    assert story.when(lease_tasks, for_worker(task_group="mail")).reply == []
    assert len(story.when(lease_tasks, for_worker(task_group="mails")).reply) == 1


def test_work_of_all_tenants_is_handed_out_in_one_order():
    story = Story()
    for tenant in ("b", "a", "b"):
        story.when(enqueue, a_job(tenant=tenant, job_id=""))

    assert [task.tenant for task in story.when(lease_tasks, for_worker()).reply] == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        pytest.param(0, 0, id="none"),
        pytest.param(2, 2, id="fewer than there are"),
        pytest.param(9, 3, id="more than there are"),
    ],
)
def test_no_more_tasks_are_handed_out_than_were_asked_for(asked, given):
    story = Story()
    for _ in range(3):
        story.when(enqueue, a_job(job_id=""))

    assert len(story.when(lease_tasks, for_worker(max_tasks=asked)).reply) == given


def test_one_command_hands_out_a_bounded_number_of_tasks():
    story = Story()
    for _ in range(TASKS_PER_COMMAND_MAX + 1):
        story.when(enqueue, a_job(job_id=""))

    assert len(story.when(lease_tasks, for_worker(max_tasks=1_000_000)).reply) == TASKS_PER_COMMAND_MAX
    assert len(story.when(lease_tasks, for_worker(max_tasks=1_000_000)).reply) == 1


def test_tasks_that_would_not_fit_into_a_reply_are_left_for_the_next_one():
    story = Story()
    for number in range(3):
        story.when(enqueue, a_job(job_id=f"j{number}", payload=b"x" * 100))

    assert [
        task.job_id for task in story.when(lease_tasks, for_worker(max_tasks=3, bytes_max=250)).reply
    ] == ["j0", "j1"]
    assert [task.job_id for task in story.when(lease_tasks, for_worker(max_tasks=3, bytes_max=1)).reply] == [
        "j2"
    ]


def test_a_worker_may_be_nameless():
    assert len(Story().given(*pending()).when(lease_tasks, for_worker("")).reply) == 1


def test_work_for_later_is_not_handed_out_before_its_time():
    # A181
    story = Story().given(*pending(start_ms=LATER))

    assert story.at(LATER - 1).when(lease_tasks, for_worker()).reply == []
    assert story.events == []


def test_a_lease_finds_what_has_just_come_due_without_waiting_for_the_timers():
    story = Story().given(*pending(start_ms=LATER)).at(LATER).when(lease_tasks, for_worker())

    assert story.events == [fact(ChainDue), fact(TaskLeased, expires_ms=LATER + LEASE_MS)]
    assert not story.table(TIMERS)
    assert not story.table(READY)


def test_a_job_that_came_due_stands_where_its_start_and_priority_put_it():
    story = Story(rules=Rules(priority_weight_ms=10_000))
    story.when(enqueue, a_job(job_id="late", enqueue_time_ms=NOW + 100))
    story.at(NOW + 200).when(enqueue, a_job(job_id="later"))
    story.when(enqueue, a_job(job_id="latest", priority=0, enqueue_time_ms=NOW + 50))

    tasks = story.when(lease_tasks, for_worker()).reply
    assert [task.job_id for task in tasks] == ["latest", "late", "later"]


@pytest.mark.parametrize(
    ("retries", "last"),
    [
        pytest.param(None, [True], id="without a policy the first is the last"),
        pytest.param(0, [True], id="without retries too"),
        pytest.param(2, [False, False, True], id="two retries make three attempts"),
    ],
)
def test_the_last_attempt_is_announced_as_such(retries, last):
    policy = a_policy(retry_count=retries) if retries is not None else None
    story = Story().when(enqueue, a_job(retry_policy=policy))
    announced = []
    for _ in last:
        (task,) = story.at(story.now_ms + 60_000).when(lease_tasks, for_worker()).reply
        announced.append(task.is_last_attempt)
        story.when(report_outcome, failure(task.task_id))

    assert announced == last
    assert story.job().status is JobStatus.FAILED


# --- LeaseTask ----------------------------------------------------------------------------------------------


def test_one_job_can_be_leased_by_name_under_a_new_task_id():
    story = Story().given(*pending()).when(lease_task, this_job())

    task = story.reply
    assert kinds(story.events) == [ChainStarted, TaskLeased]
    assert task.task_id not in ("", "task-1")
    assert (task.job_id, task.attempt, task.payload) == ("j1", 1, b"payload")
    assert list(story.table(LEASES)) == [(task.task_id,)]
    assert not story.table(READY)


def test_one_job_can_be_leased_before_its_time():
    story = Story().given(*pending(start_ms=LATER)).when(lease_task, this_job())

    assert story.job().status is JobStatus.RUNNING
    assert not story.table(TIMERS)
    assert story.at(LATER).when(lease_tasks, for_worker()).reply == []


def test_a_job_leased_by_name_after_a_restart_counts_its_retries_from_the_restart():
    story = Story().given(*failed(retry_policy=a_policy(retry_count=1))).when(restart, this_job().job)

    task = story.when(lease_task, this_job()).reply
    assert (task.attempt, task.relative_attempt, task.is_last_attempt) == (2, 1, False)


def test_whoever_leases_by_name_has_a_name():
    with pytest.raises(Invalid, match=r"^worker_id is required$"):
        Story().given(*pending()).when(lease_task, this_job(""))


@pytest.mark.parametrize(
    ("life", "reason"),
    [
        (running, "job is currently running (status: Running)"),
        (running_to_be_cancelled, "job is currently running (status: Running)"),
        (succeeded, "job is already in terminal state (status: Succeeded)"),
        (failed, "job is already in terminal state (status: Failed)"),
        (cancelled_by_client, "job is cancelled (status: Cancelled)"),
        (cancelled_by_worker, "job has no pending task (status: Cancelled)"),
    ],
)
def test_a_job_that_is_not_pending_cannot_be_leased_by_name(life, reason):
    story = Story().given(*life())
    before = story.everything()

    with pytest.raises(WrongState) as refusal:
        story.when(lease_task, this_job())
    assert str(refusal.value) == f"cannot lease job j1: {reason}"
    assert story.everything() == before


def test_a_job_that_does_not_exist_cannot_be_leased_by_name():
    with pytest.raises(JobNotFound):
        Story().when(lease_task, this_job())


# --- Heartbeat ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after_ms", "logged"),
    [
        pytest.param(0, False, id="at once"),
        pytest.param(LEASE_MS // 2 - 1, False, id="just before half a lease"),
        pytest.param(LEASE_MS // 2, True, id="at half a lease"),
        pytest.param(LEASE_MS + 1, True, id="past the expiry, but not taken back yet"),
    ],
)
def test_a_heartbeat_always_renews_and_is_logged_when_half_a_lease_has_passed(after_ms, logged):
    story = Story().given(*running()).at(NOW + after_ms).when(heartbeat, a_heartbeat())

    expires_ms = NOW + after_ms + LEASE_MS
    logged_ms = story.row(LEASES, "task-1").expires_ms
    assert story.leases.expires_ms("task-1", logged_ms) == expires_ms
    assert story.events == ([fact(LeaseRenewed, expires_ms=expires_ms)] if logged else [])


def test_the_next_heartbeat_is_logged_half_a_lease_after_the_last_logged_one():
    story = Story().given(*running())
    logged = [
        story.at(NOW + at).when(heartbeat, a_heartbeat()).events != [] for at in range(0, 20_001, 1_000)
    ]

    assert [at for at, event in enumerate(logged) if event] == [5, 10, 15, 20]


def test_a_renewal_moves_the_lease_in_the_order_of_expiry():
    story = Story().given(*running()).at(NOW + 6_000).when(heartbeat, a_heartbeat())

    assert list(story.table(EXPIRIES)) == [(NOW + 6_000 + LEASE_MS, "task-1")]
    assert story.job().last_seq == story.events[0].seq
    assert story.job().changed_ms == NOW


def test_a_heartbeat_tells_when_the_cancellation_was_requested():
    story = Story().given(*running()).when(heartbeat, a_heartbeat())
    assert story.reply is None

    story.at(NOW + 3).given(running_to_be_cancelled()[-1])
    assert story.at(NOW + 4).when(heartbeat, a_heartbeat()).reply == NOW + 3


def test_only_the_worker_that_holds_the_lease_renews_it():
    with pytest.raises(WrongState, match=r"^lease owner mismatch$"):
        Story().given(*running()).when(heartbeat, a_heartbeat(worker_id="another"))


@pytest.mark.parametrize("life", [pending, succeeded, failed, cancelled_by_worker, waiting_for_retry])
def test_a_heartbeat_of_a_task_that_does_not_run_is_refused(life):
    with pytest.raises(LeaseNotFound, match=r"^lease not found$"):
        Story().given(*life()).when(heartbeat, a_heartbeat())


def test_a_heartbeat_of_a_deleted_job_is_refused():
    with pytest.raises(LeaseNotFound):
        Story().given(*succeeded(), fact(JobDeleted)).when(heartbeat, a_heartbeat())
