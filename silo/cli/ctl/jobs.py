"""`siloctl job`: one job, looked at or moved along."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import click

from silo.cli.ctl.connection import HISTORY, Target, global_flags, pass_target
from silo.cli.ctl.texts import as_json, moment, unpacked
from silo.domain.jobs import AttemptStatus, JobStatus
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb


@click.group()
def job() -> None:
    """Look at a job, or move it along.

    \b
    Examples:
      siloctl job get 5b1f… report-7 --attempts
      siloctl job restart 5b1f… report-7 --tenant acme
    """


def _arguments(command: Any) -> Any:
    return click.argument("shard")(click.argument("job_id")(global_flags(pass_target(command))))


# --- looking -----------------------------------------------------------------------------------------------------------


@job.command("get")
@click.option("--attempts", is_flag=True, help="Its attempts, too.")
@_arguments
def get(target: Target, shard: str, job_id: str, attempts: bool) -> None:
    """Show a job."""
    request = pb.GetJobRequest(shard=shard, id=job_id, tenant=target.tenant, include_attempts=attempts)
    found = target.connect().owner_of(shard).call("GetJob", request)
    target.show(_values(found, attempts), "\n".join(_lines(found, attempts)))


def _values(found: pb.GetJobResponse, attempts: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": found.id,
        "status": _job_status(found.status),
        "status_code": found.status,
        "priority": found.priority,
        "enqueue_time_ms": found.enqueue_time_ms,
        "status_changed_at_ms": found.status_changed_at_ms,
        "task_group": found.task_group,
        "metadata": dict(found.metadata),
    }
    if found.HasField("next_attempt_starts_after_ms"):
        values["next_attempt_starts_after_ms"] = found.next_attempt_starts_after_ms
    if attempts:
        values["attempts"] = [_attempt_values(attempt) for attempt in found.attempts]
    return values


def _attempt_values(attempt: pb.JobAttempt) -> dict[str, Any]:
    values: dict[str, Any] = {
        "attempt_number": attempt.attempt_number,
        "task_id": attempt.task_id,
        "status": _attempt_status(attempt.status),
        "started_at_ms": attempt.started_at_ms,
        "finished_at_ms": attempt.finished_at_ms if attempt.HasField("finished_at_ms") else None,
    }
    if attempt.HasField("error_code"):
        data = attempt.error_data.msgpack
        # The hex is always right; the value is there if it can be said in JSON.
        values |= {"error_code": attempt.error_code, "error_data": None, "error_data_hex": data.hex()}
        with contextlib.suppress(ValueError):
            values["error_data"] = unpacked(data)
    return values


def _lines(found: pb.GetJobResponse, attempts: bool) -> Iterator[str]:
    yield "Job Details"
    yield f"  ID:             {found.id}"
    yield f"  Status:         {_job_status(found.status)}"
    yield f"  Priority:       {found.priority}"
    yield f"  Task Group:     {found.task_group}"
    # What the server tells is the start that was asked for.
    yield f"  Enqueued:       {moment(found.enqueue_time_ms) if found.enqueue_time_ms > 0 else '- (to start at once)'}"
    yield f"  Status Changed: {moment(found.status_changed_at_ms)}"
    if found.HasField("next_attempt_starts_after_ms"):
        yield f"  Next Attempt:   {moment(found.next_attempt_starts_after_ms)}"
    if found.metadata:
        yield "  Metadata:"
        yield from (f"    {key}: {value}" for key, value in sorted(found.metadata.items()))
    if attempts and not found.attempts:
        yield "\nNo attempt yet"
    for attempt in found.attempts:
        yield ""
        yield from _attempt_lines(attempt)


def _attempt_lines(attempt: pb.JobAttempt) -> Iterator[str]:
    yield f"Attempt {attempt.attempt_number}"
    yield f"  Task ID:        {attempt.task_id}"
    yield f"  Status:         {_attempt_status(attempt.status)}"
    yield f"  Started:        {moment(attempt.started_at_ms)}"
    if attempt.HasField("finished_at_ms"):
        yield f"  Finished:       {moment(attempt.finished_at_ms)}"
    if attempt.HasField("error_code"):
        yield f"  Error Code:     {attempt.error_code}"
        yield f"  Error Data:     {as_json(attempt.error_data.msgpack)}".rstrip()


@job.command("result")
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["hex", "base64", "msgpack"]),
    default="hex",
    help="How to show bytes; default hex.",
)
@_arguments
def result(target: Target, shard: str, job_id: str, form: str) -> None:
    """Show how a job ended."""
    request = pb.GetJobResultRequest(shard=shard, id=job_id, tenant=target.tenant)
    found = target.connect().owner_of(shard).call("GetJobResult", request)
    forms: dict[str, Callable[[bytes], str]] = {"hex": _hex, "base64": _base64, "msgpack": _decoded}
    shown = forms[form]
    values: dict[str, Any] = {
        "id": found.id,
        "status": _job_status(found.status),
        "finished_at_ms": found.finished_at_ms,
    }
    lines = [f"Job: {found.id}", f"Status: {values['status']}"]
    match found.WhichOneof("result"):
        case "success_data":
            values["result"] = shown(found.success_data.msgpack)
            lines.append(f"Result: {values['result']}")
        case "failure":
            values["error_code"] = found.failure.error_code
            values["error_data"] = shown(found.failure.error_data.msgpack)
            lines += [f"Error Code: {values['error_code']}", f"Error Data: {values['error_data']}"]
        case "cancelled":
            values["cancelled_at_ms"] = found.cancelled.cancelled_at_ms
            del values["finished_at_ms"]
            lines.append(f"Cancelled at: {moment(found.cancelled.cancelled_at_ms)}")
    target.show(values, "\n".join(lines))


def _hex(data: bytes) -> str:
    return data.hex()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(data: bytes) -> str:
    return as_json(data, indent=2)


# --- moving along ------------------------------------------------------------------------------------------------------


def _act(target: Target, rpc: str, shard: str, job_id: str, *, done: str) -> None:
    request = getattr(pb, f"{rpc}Request")(shard=shard, id=job_id, tenant=target.tenant)
    target.connect().owner_of(shard).call(rpc, request)
    target.show({"status": done, "job_id": job_id}, f"Job {job_id} {done} successfully")


@job.command("cancel")
@_arguments
def cancel(target: Target, shard: str, job_id: str) -> None:
    """Cancel a job: at once if it waits, through its worker if it runs."""
    _act(target, "CancelJob", shard, job_id, done="cancelled")


@job.command("restart")
@_arguments
def restart(target: Target, shard: str, job_id: str) -> None:
    """Give a failed or cancelled job another run."""
    _act(target, "RestartJob", shard, job_id, done="restarted")


@job.command("expedite")
@_arguments
def expedite(target: Target, shard: str, job_id: str) -> None:
    """Let a job that waits for its time start now."""
    _act(target, "ExpediteJob", shard, job_id, done="expedited")


@job.command("delete")
@_arguments
def delete(target: Target, shard: str, job_id: str) -> None:
    """Remove a job that has ended."""
    _act(target, "DeleteJob", shard, job_id, done="deleted")


@job.command("erase")
@_arguments
def erase(target: Target, shard: str, job_id: str) -> None:
    """Erase what an ended job carried: its payload, results and error data, in its rows and in the log.

    Its history stays, without them.  It works for a job that was deleted, too.
    """
    request = ext.EraseRequest(shard=shard, id=job_id, tenant=target.tenant)
    reply = target.connect().owner_of(shard).call("Erase", request, service=HISTORY)
    target.show(
        {"status": "erased", "job_id": job_id, "seq": reply.seq},
        f"Job {job_id} erased; the log follows soon, and says ErasureFinished (requested_seq {reply.seq})",
    )


def _job_status(number: int) -> str:
    return JobStatus(number).name.lower() if number in set(JobStatus) else "unknown"


def _attempt_status(number: int) -> str:
    return AttemptStatus(number).name.lower() if number in set(AttemptStatus) else "unknown"
