from __future__ import annotations

import pytest

from silo.errors import JobInProgress, JobNotFound
from silo.events.catalogue import JobDeleted, JobForgotten
from silo.projections.fold import TABLES
from silo.projections.tasks import FORGETTING
from silo.shard.delete import FORGOTTEN_PER_COMMAND_MAX, delete, forget_expired
from silo.shard.draft import Rules
from silo.shard.enqueue import enqueue
from silo.shard.jobs import JobName
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job
from silo.shard.restart import restart
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_job,
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
    success,
    waiting_for_retry,
)
from tests.story import Story, kinds


@pytest.mark.parametrize("life", [succeeded, failed, cancelled_by_client, cancelled_by_worker])
def test_a_deleted_job_leaves_nothing_behind(life):
    story = Story(rules=Rules(completed_expire_ms=1_000, terminal_expire_ms=1_000))
    story.given(*life(metadata=(("a", "b"),))).when(delete, NAME)

    assert story.events == [fact(JobDeleted)]
    assert {table.name: story.table(table) for table in TABLES if story.table(table)} == {}
    with pytest.raises(JobNotFound):
        story.when(get_job, GetJob(name=NAME, include_attempts=True))


def test_all_attempts_go_with_their_job_however_large_their_data():
    story = Story().given(*running()).when(report_outcome, failure(error_data=b"x" * 10_000))
    (task,) = story.when(restart, NAME).when(lease_tasks, for_worker()).reply
    story.when(report_outcome, success(task.task_id, result=b"y" * 10_000)).when(delete, NAME)

    assert {table.name: story.table(table) for table in TABLES if story.table(table)} == {}


@pytest.mark.parametrize("life", [pending, running, running_to_be_cancelled, waiting_for_retry])
def test_a_job_that_has_not_ended_stays(life):
    # A23, A81
    story = Story().given(*life())
    before = story.everything()

    text = r"^cannot delete job j1: job is currently running or has pending requests$"
    with pytest.raises(JobInProgress, match=text):
        story.when(delete, NAME)
    assert story.everything() == before


def test_deleting_what_does_not_exist_is_fine():
    assert Story().when(delete, NAME).events == []
    assert Story().given(*succeeded()).when(delete, NAME).when(delete, NAME).events == []


def test_other_jobs_stay():
    story = Story().given(*succeeded()).when(enqueue, a_job(tenant="other"))
    story.when(enqueue, a_job(job_id="j10")).when(delete, NAME)

    for name in (JobName("other", "j1"), JobName("acme", "j10")):
        assert story.when(get_job, GetJob(name=name, include_attempts=True)).reply.payload == b"payload"


# --- retention ----------------------------------------------------------------------------------------------


def ended(story: Story, *job_ids: str) -> None:
    for job_id in job_ids:
        story.when(enqueue, a_job(job_id=job_id))
    for task in story.when(lease_tasks, for_worker(max_tasks=1_000)).reply:
        story.when(report_outcome, success(task.task_id))


@pytest.mark.parametrize(
    ("after_ms", "forgotten"), [(999, 0), pytest.param(1_000, 1, id="to the millisecond")]
)
def test_an_ended_job_is_forgotten_when_its_time_is_over(after_ms, forgotten):
    story = Story(rules=Rules(completed_expire_ms=1_000))
    ended(story, "j1")
    story.at(NOW + after_ms).when(forget_expired)

    assert story.reply == forgotten
    assert story.events == [fact(JobForgotten)] * forgotten


def test_a_forgotten_job_leaves_nothing_behind():
    story = Story(rules=Rules(completed_expire_ms=0))
    ended(story, "j1")
    story.when(forget_expired)

    assert {table.name: story.table(table) for table in TABLES if story.table(table)} == {}
    assert story.when(enqueue, a_job()).reply == "j1"


def test_jobs_are_forgotten_in_the_order_of_their_times():
    story = Story(rules=Rules(completed_expire_ms=1_000))
    ended(story, "b")
    story.at(NOW + 1)
    ended(story, "a")
    story.at(LATER).when(forget_expired)

    assert [event.job_id for event in story.events] == ["b", "a"]
    assert kinds(story.events) == [JobForgotten, JobForgotten]


def test_many_jobs_are_forgotten_in_pieces():
    story = Story(rules=Rules(completed_expire_ms=0))
    names = [str(number) for number in range(FORGOTTEN_PER_COMMAND_MAX + 1)]
    ended(story, *names[:-1])
    ended(story, names[-1])

    assert story.when(forget_expired).reply == FORGOTTEN_PER_COMMAND_MAX
    assert story.when(forget_expired).reply == 1
    assert story.when(forget_expired).reply == 0


def test_a_job_that_was_deleted_is_not_forgotten_as_well():
    story = Story(rules=Rules(completed_expire_ms=1_000))
    ended(story, "j1")
    story.when(delete, NAME).when(enqueue, a_job())

    assert story.at(LATER).when(forget_expired).reply == 0
    assert not story.table(FORGETTING)
