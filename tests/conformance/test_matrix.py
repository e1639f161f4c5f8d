"""Every operation on a job in every state, over the wire: the table of the contract, a row each.

A job that waits for its next try with its cancellation requested has no column, as a failure of such a job cancels it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import LATER_MS, NIL, Silo
from tests.conformance.limits import slots

WRONG_STATE = StatusCode.FAILED_PRECONDITION

Made = tuple[str, str]
"""A job, and the task by which it was leased last."""


def due(silo: Silo, **but: Any) -> Made:
    return silo.enqueue(**but), NIL


def running(silo: Silo) -> Made:
    job_id, _ = due(silo)
    return job_id, silo.lease_one().id


def asked_to_cancel(silo: Silo) -> Made:
    job_id, task_id = running(silo)
    silo.call("CancelJob", id=job_id)
    return job_id, task_id


def ended(before: Callable[[Silo], Made], **outcome: Any) -> Callable[[Silo], Made]:
    def make(silo: Silo) -> Made:
        job_id, task_id = before(silo)
        silo.call("ReportOutcome", task_id=task_id, **outcome)
        return job_id, task_id

    return make


def cancelled_at_once(silo: Silo) -> Made:
    job_id, task_id = due(silo)
    silo.call("CancelJob", id=job_id)
    return job_id, task_id


SUCCESS: dict[str, Any] = {"success": pb.SerializedBytes()}
FAILURE: dict[str, Any] = {"failure": pb.Failure(code="E")}

STATES: dict[str, Callable[[Silo], Made]] = {
    "none": lambda silo: (silo.new_id(), NIL),
    "due": due,
    "future": lambda silo: due(silo, start_at_ms=LATER_MS),
    "parked": lambda silo: due(silo, limits=[slots(0)]),
    "running": running,
    "run+C": asked_to_cancel,
    "succ": ended(running, **SUCCESS),
    "succ+C": ended(asked_to_cancel, **SUCCESS),
    "failed": ended(running, **FAILURE),
    "canc+C": cancelled_at_once,
    "fail+C": ended(asked_to_cancel, **FAILURE),
    "canc": ended(running, cancelled=pb.Cancelled()),
}


def import_one_more_attempt(silo: Silo, job_id: str, _: str) -> None:
    """Tell the attempts on record once more, and one that is new."""
    told = [
        pb.ImportAttempt(
            status=attempt.status,
            started_at_ms=attempt.started_at_ms,
            finished_at_ms=attempt.finished_at_ms,
            result=attempt.result,
            error_code=attempt.error_code,
            error_data=attempt.error_data,
        )
        for attempt in (silo.job(job_id).attempts if silo.has(job_id) else [])
        if attempt.status != pb.ATTEMPT_STATUS_RUNNING
    ]
    new = pb.ImportAttempt(status=pb.ATTEMPT_STATUS_FAILED, started_at_ms=1, finished_at_ms=2)
    [result] = silo.import_jobs({"id": job_id, "attempts": [*told, new]})
    if not result.success:
        raise NotImported(result.error)


class NotImported(Exception):
    pass


def lease_all(silo: Silo, job_id: str, _: str) -> None:
    silo.lease()


def about_the_job(rpc: str, **fields: Any) -> Callable[[Silo, str, str], Any]:
    return lambda silo, job_id, _: silo.call(rpc, id=job_id, **fields)


def about_the_task(rpc: str, **fields: Any) -> Callable[[Silo, str, str], Any]:
    return lambda silo, _, task_id: silo.call(rpc, task_id=task_id, **fields)


OPERATIONS: dict[str, Callable[[Silo, str, str], Any]] = {
    "Enqueue": lambda silo, job_id, _: silo.enqueue(id=job_id),
    "GetJob": about_the_job("GetJob", include_attempts=True),
    "GetJobResult": about_the_job("GetJobResult"),
    "Cancel": about_the_job("CancelJob"),
    "Restart": about_the_job("RestartJob"),
    "Expedite": about_the_job("ExpediteJob"),
    "LeaseTask": about_the_job("LeaseTask", worker_id="w"),
    "LeaseTasks": lease_all,
    "Heartbeat": about_the_task("Heartbeat", worker_id="w"),
    "Success": about_the_task("ReportOutcome", **SUCCESS),
    "Failure": about_the_task("ReportOutcome", **FAILURE),
    "Cancelled": about_the_task("ReportOutcome", cancelled=pb.Cancelled()),
    "Delete": about_the_job("DeleteJob"),
    "Import": import_one_more_attempt,
}

# How the job stands after a call that is obeyed: a status, or one of these.
GONE, STAYS = "gone", "stays"

ANSWERS: dict[str, Any] = {
    "Sched": pb.JOB_STATUS_SCHEDULED,
    "Run": pb.JOB_STATUS_RUNNING,
    "Succ": pb.JOB_STATUS_SUCCEEDED,
    "Fail": pb.JOB_STATUS_FAILED,
    "Canc": pb.JOB_STATUS_CANCELLED,
    "gone": GONE,
    ".": STAYS,
    "absent": (StatusCode.NOT_FOUND, "job not found"),
    "nolease": (StatusCode.NOT_FOUND, "lease not found"),
    "exists": (StatusCode.ALREADY_EXISTS, "job already exists with id <id>"),
    "unended": (
        StatusCode.INTERNAL,
        "cannot delete job <id>: job is currently running or has pending requests",
    ),
    "unknown": (WRONG_STATE, "job is not complete: status is <Kind>"),
    "over": (WRONG_STATE, "job is already in terminal state"),
    "already": (WRONG_STATE, "job is already cancelled"),
    "r:going": (WRONG_STATE, "cannot restart job <id>: job is still in progress (status: <Kind>)"),
    "r:succ": (WRONG_STATE, "cannot restart job <id>: job already succeeded (status: <Kind>)"),
    "e:ready": (
        WRONG_STATE,
        "cannot expedite job <id>: task is already ready to run (not future-scheduled) (status: <Kind>)",
    ),
    "e:running": (WRONG_STATE, "cannot expedite job <id>: job is currently running (status: <Kind>)"),
    "e:flagged": (WRONG_STATE, "cannot expedite job <id>: job is cancelled (status: <Kind>)"),
    "e:over": (WRONG_STATE, "cannot expedite job <id>: job is already in terminal state (status: <Kind>)"),
    "e:notask": (
        WRONG_STATE,
        "cannot expedite job <id>: job has no pending task to expedite (status: <Kind>)",
    ),
    "l:running": (WRONG_STATE, "cannot lease job <id>: job is currently running (status: <Kind>)"),
    "l:flagged": (WRONG_STATE, "cannot lease job <id>: job is cancelled (status: <Kind>)"),
    "l:over": (WRONG_STATE, "cannot lease job <id>: job is already in terminal state (status: <Kind>)"),
    "l:parked": (WRONG_STATE, "cannot lease job <id>: job has no pending task in queue (status: <Kind>)"),
    "l:notask": (WRONG_STATE, "cannot lease job <id>: job has no pending task (status: <Kind>)"),
    "i:running": (WRONG_STATE, "cannot reimport job <id>: job is currently running (status: <Kind>)"),
    "i:succ": "cannot reimport job: cannot reimport job <id>: job already succeeded (status: <Kind>)",
}
"""What the words of the table stand for: a capital is the status that the job has afterwards, `.` leaves it as it is."""

MATRIX = """
             none    due     future  parked   running   run+C     succ    succ+C  failed  canc+C    fail+C    canc
Enqueue      Sched   exists  exists  exists   exists    exists    exists  exists  exists  exists    exists    exists
GetJob       absent  .       .       .        .         .         .       .       .       .         .         .
GetJobResult absent  unknown unknown unknown  unknown   unknown   .       .       .       .         .         .
Cancel       absent  Canc    Canc    Canc     .         already   over    already over    already   already   .
Restart      absent  r:going r:going r:going  r:going   r:going   r:succ  r:succ  Sched   Sched     Sched     Sched
Expedite     absent  e:ready Sched   e:notask e:running e:flagged e:over  e:over  e:over  e:flagged e:flagged e:notask
LeaseTask    absent  Run     Run     l:parked l:running l:running l:over  l:over  l:over  l:flagged l:flagged l:notask
LeaseTasks   .       Run     .       .        .         .         .       .       .       .         .         .
Heartbeat    nolease nolease nolease nolease  .         .         nolease nolease nolease nolease   nolease   nolease
Success      nolease nolease nolease nolease  Succ      Succ      nolease nolease nolease nolease   nolease   nolease
Failure      nolease nolease nolease nolease  Fail      Canc      nolease nolease nolease nolease   nolease   nolease
Cancelled    nolease nolease nolease nolease  Canc      Canc      nolease nolease nolease nolease   nolease   nolease
Delete       .       unended unended unended  unended   unended   gone    gone    gone    gone      gone      gone
Import       Fail    Fail    Fail    Fail     i:running i:running i:succ  i:succ  Fail    Fail      Fail      Fail
"""


def cells() -> list[Any]:
    header, *rows = [line.split() for line in MATRIX.strip().splitlines()]
    assert header == list(STATES)
    assert [row[0] for row in rows] == list(OPERATIONS)
    return [
        pytest.param(operation, state, ANSWERS[word], id=f"{operation} of {state}")
        for operation, *words in rows
        for state, word in zip(STATES, words, strict=True)
    ]


def stands(silo: Silo, job_id: str) -> Any:
    """The whole job, or None."""
    return silo.job(job_id) if silo.has(job_id) else None


@pytest.mark.parametrize(("operation", "state", "answer"), cells())
def test_every_operation_in_every_state(silo, operation, state, answer):
    job_id, task_id = STATES[state](silo)
    before = stands(silo, job_id)

    try:
        OPERATIONS[operation](silo, job_id, task_id)
        told = None
    except grpc.aio.AioRpcError as error:
        told = error.code(), error.details()
    except NotImported as error:
        told = str(error)

    after = stands(silo, job_id)
    if isinstance(answer, (tuple, str)) and answer not in (GONE, STAYS):
        assert told == in_full(answer, job_id, before)
        assert after == before
        return
    assert told is None
    if answer == STAYS:
        assert after == before
    else:
        assert (GONE if after is None else after.status) == answer


def in_full(answer: Any, job_id: str, job: Any) -> Any:
    """A refusal with the job's id and status in it."""
    if isinstance(answer, tuple):
        return answer[0], in_full(answer[1], job_id, job)
    kind = pb.JobStatus.Name(job.status).removeprefix("JOB_STATUS_").capitalize() if job else ""
    return answer.replace("<id>", job_id).replace("<Kind>", kind)
