"""Every operation on a job in every state: the table of the wire contract, a row each.

A job that waits for its next try with its cancellation requested has no column: a failure of such a job cancels it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from silo.domain.jobs import AttemptStatus, JobStatus
from silo.errors import AlreadyExists, JobInProgress, JobNotFound, LeaseNotFound, Refused, WrongState
from silo.events.catalogue import CancellationRequested, Event, SlotWaited
from silo.shard.cancel import cancel
from silo.shard.delete import delete
from silo.shard.enqueue import enqueue
from silo.shard.expedite import expedite
from silo.shard.import_jobs import Imported, NotImported, import_jobs
from silo.shard.lease import heartbeat, lease_task, lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_job, get_result
from silo.shard.restart import restart
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_heartbeat,
    a_job,
    a_limit,
    an_attempt,
    an_import,
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
    this_job,
)
from tests.story import Story

STATES: dict[str, Callable[[], list[Event]]] = {
    "none": list,
    "due": pending,
    "future": lambda: pending(start_ms=LATER),
    "parked": lambda: [*pending(limits=(a_limit(0),)), fact(SlotWaited)],
    "running": running,
    "run+C": running_to_be_cancelled,
    "succ": succeeded,
    "succ+C": lambda: [*running_to_be_cancelled(), succeeded()[-1]],
    "failed": failed,
    "canc+C": cancelled_by_client,
    "canc": cancelled_by_worker,
}


@attrs.frozen
class Fine:
    """The command is obeyed, and leaves the job in this state (None: there is none)."""

    status: JobStatus | None


@attrs.frozen
class No:
    """The command is refused, and the text says why."""

    kind: type[Refused]
    reason: str


def no(reason: str) -> No:
    return No(WrongState, reason)


def import_another(job: None, draft: object) -> None:
    """An import that goes on from whatever attempts are stored."""
    stored = [[an_attempt(status, started_ms=NOW, finished_ms=NOW)] for status in (FAILURE, CANCELLATION)]
    for known in ([], *stored):
        (result,) = import_jobs([an_import(*known, an_attempt())], draft)
        if isinstance(result, Imported):
            return
    assert isinstance(result, NotImported)
    raise WrongState(result.error)


FAILURE, CANCELLATION = AttemptStatus.FAILED, AttemptStatus.CANCELLED

OPERATIONS = {
    "Enqueue": (enqueue, a_job()),
    "GetJob": (get_job, GetJob(name=NAME, include_attempts=True)),
    "GetJobResult": (get_result, NAME),
    "Cancel": (cancel, NAME),
    "Restart": (restart, NAME),
    "Expedite": (expedite, NAME),
    "LeaseTask": (lease_task, this_job()),
    "LeaseTasks": (lease_tasks, for_worker()),
    "Heartbeat": (heartbeat, a_heartbeat()),
    "Success": (report_outcome, success()),
    "Failure": (report_outcome, failure()),
    "Delete": (delete, NAME),
    "Import": (import_another, None),
}

STAYS = "stays"

ANSWERS = {
    "Sched": Fine(JobStatus.SCHEDULED),
    "Run": Fine(JobStatus.RUNNING),
    "Succ": Fine(JobStatus.SUCCEEDED),
    "Fail": Fine(JobStatus.FAILED),
    "Canc": Fine(JobStatus.CANCELLED),
    "gone": Fine(None),
    ".": STAYS,
    "absent": No(JobNotFound, "job not found"),
    "nolease": No(LeaseNotFound, "lease not found"),
    "exists": No(AlreadyExists, "job already exists with id j1"),
    "unended": No(JobInProgress, "cannot delete job j1"),
    "unknown": no("job is not complete: status is"),
    "terminal": no("job is already in terminal state"),
    "already": no("job is already cancelled"),
    "flagged": no("job is cancelled"),
    "running": no("job is currently running"),
    "progress": no("job is still in progress"),
    "success": no("job already succeeded"),
    "ready": no("task is already ready to run"),
    "notask": no("job has no pending task"),
    "parked": no("job has no pending task in queue"),
}
"""What the words of the table stand for.  A capital says how the job stands afterwards; `.`: the command is obeyed, and the
job stays as it is."""

MATRIX = """
                 none    due      future   parked   running  run+C    succ     succ+C   failed   canc+C  canc
    Enqueue      Sched   exists   exists   exists   exists   exists   exists   exists   exists   exists  exists
    GetJob       absent  .        .        .        .        .        .        .        .        .       .
    GetJobResult absent  unknown  unknown  unknown  unknown  unknown  .        .        .        .       .
    Cancel       absent  Canc     Canc     Canc     Run      already  terminal already  terminal already Canc
    Restart      absent  progress progress progress progress progress success  success  Sched    Sched   Sched
    Expedite     absent  ready    Sched    notask   running  flagged  terminal terminal terminal flagged notask
    LeaseTask    absent  Run      Run      parked   running  running  terminal terminal terminal flagged notask
    LeaseTasks   .       Run      .        .        .        .        .        .        .        .       .
    Heartbeat    nolease nolease  nolease  nolease  .        .        nolease  nolease  nolease  nolease nolease
    Success      nolease nolease  nolease  nolease  Succ     Succ     nolease  nolease  nolease  nolease nolease
    Failure      nolease nolease  nolease  nolease  Fail     Canc     nolease  nolease  nolease  nolease nolease
    Delete       .       unended  unended  unended  unended  unended  gone     gone     gone     gone    gone
    Import       Fail    Fail     Fail     Fail     running  running  success  success  Fail     Fail    Fail
"""


def cells() -> list[Any]:
    header, *rows = [line.split() for line in MATRIX.strip().splitlines()]
    assert header == list(STATES)
    return [
        pytest.param(operation, state, ANSWERS[word], id=f"{operation} of {state}")
        for operation, *words in rows
        for state, word in zip(STATES, words, strict=True)
    ]


def test_every_operation_has_a_row():
    assert {cell.values[0] for cell in cells()} == set(OPERATIONS)


@pytest.mark.parametrize(("operation", "state", "answer"), cells())
def test_every_operation_in_every_state(operation, state, answer):
    story = Story().given(*STATES[state]())
    before = story.everything()
    decide, command = OPERATIONS[operation]

    if isinstance(answer, No):
        with pytest.raises(answer.kind) as refusal:
            story.when(decide, command)
        assert answer.reason in str(refusal.value)
        assert story.everything() == before
        return

    story.when(decide, command)
    if answer is STAYS:
        assert story.everything() == before
    else:
        assert status_of(story) is answer.status


def status_of(story: Story) -> JobStatus | None:
    try:
        return story.when(get_job, GetJob(name=NAME, include_attempts=False)).reply.row.status
    except JobNotFound:
        return None


def test_a_job_cannot_be_pending_with_its_cancellation_requested():
    story = Story().given(*running_to_be_cancelled()).when(report_outcome, failure())
    assert story.job().status is JobStatus.CANCELLED

    story = Story().given(*running()).when(cancel, NAME)
    assert story.events == [fact(CancellationRequested)]
    assert story.when(report_outcome, failure()).job().status is JobStatus.CANCELLED


def test_a_lost_reply_is_answered_as_the_contract_says():
    """The same command once more, after the first was obeyed and its reply lost."""
    story = Story().when(enqueue, a_job(enqueue_time_ms=LATER)).when(expedite, NAME)
    with pytest.raises(WrongState, match="task is already ready to run"):
        story.when(expedite, NAME)

    (task,) = story.when(lease_tasks, for_worker()).reply
    for _ in range(2):
        assert story.when(heartbeat, a_heartbeat(task.task_id)).reply is None

    story.when(report_outcome, failure(task.task_id))
    with pytest.raises(LeaseNotFound):
        story.when(report_outcome, failure(task.task_id))

    story.when(restart, NAME)
    with pytest.raises(WrongState, match="job is still in progress"):
        story.when(restart, NAME)

    story.when(cancel, NAME)
    with pytest.raises(WrongState, match="job is already cancelled"):
        story.when(cancel, NAME)

    for _ in range(2):
        story.when(delete, NAME)
