from __future__ import annotations

import pytest

from silo.domain.jobs import JobStatus
from silo.errors import JobNotFound, WrongState
from silo.events.catalogue import JobExpedited
from silo.projections.jobs import Place
from silo.projections.tasks import READY, TIMERS
from silo.shard.draft import Rules
from silo.shard.due import wake_due
from silo.shard.expedite import expedite
from silo.shard.lease import lease_tasks
from tests.builders import (
    LATER,
    NAME,
    NOW,
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
    ("life", "attempt", "task_id"),
    [
        pytest.param(pending(start_ms=LATER), 1, "task-1", id="a first attempt for later"),
        pytest.param(waiting_for_retry(), 2, "task-2", id="a retry"),
    ],
)
def test_what_waits_for_its_time_starts_now(life, attempt, task_id):
    # A170
    story = Story().given(*life).at(NOW + 3).when(expedite, NAME)

    assert story.events == [fact(JobExpedited, virtual_start_ms=NOW + 3)]
    row = story.job()
    assert (row.status, row.changed_ms, row.next_start_ms) == (JobStatus.SCHEDULED, NOW + 3, NOW + 3)
    assert (row.chain.place, row.chain.attempt, row.chain.task_id) == (Place.READY, attempt, task_id)
    assert not story.table(TIMERS)
    (task,) = story.when(lease_tasks, for_worker()).reply
    assert (task.task_id, task.attempt) == (task_id, attempt)
    assert not story.table(READY)


def test_an_expedited_job_does_not_come_due_once_more():
    story = Story().given(*pending(start_ms=LATER)).when(expedite, NAME)

    assert story.at(LATER).when(wake_due).reply == 0


def test_its_priority_counts_from_now():
    story = Story(rules=Rules(priority_weight_ms=1_000)).given(*pending(start_ms=LATER, priority=7))

    assert story.when(expedite, NAME).events[0].virtual_start_ms == NOW + 7_000


@pytest.mark.parametrize(
    ("life", "reason"),
    [
        pytest.param(
            pending(),
            "task is already ready to run (not future-scheduled) (status: Scheduled)",
            id="ready",
        ),
        pytest.param(running(), "job is currently running (status: Running)", id="running"),
        pytest.param(
            running_to_be_cancelled(), "job is cancelled (status: Running)", id="running, to be cancelled"
        ),
        pytest.param(succeeded(), "job is already in terminal state (status: Succeeded)", id="succeeded"),
        pytest.param(failed(), "job is already in terminal state (status: Failed)", id="failed"),
        pytest.param(cancelled_by_client(), "job is cancelled (status: Cancelled)", id="cancelled"),
        pytest.param(
            cancelled_by_worker(),
            "job has no pending task to expedite (status: Cancelled)",
            id="cancelled by its worker",
        ),
    ],
)
def test_what_does_not_wait_for_a_time_is_not_expedited(life, reason):
    # A171
    story = Story().given(*life)
    before = story.everything()

    with pytest.raises(WrongState) as refusal:
        story.when(expedite, NAME)
    assert str(refusal.value) == f"cannot expedite job j1: {reason}"
    assert story.everything() == before


def test_a_chain_that_is_due_but_was_not_woken_yet_is_ready():
    with pytest.raises(WrongState, match="already ready to run"):
        Story().given(*pending(start_ms=LATER)).at(LATER).when(expedite, NAME)


def test_what_does_not_exist_is_not_expedited():
    # A171
    with pytest.raises(JobNotFound):
        Story().when(expedite, NAME)
