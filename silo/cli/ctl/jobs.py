"""`siloctl job`: one job, looked at or moved along."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import click
import msgpack

from silo.cli.ctl.connection import Target, global_flags, pass_target, table
from silo.domain.jobs import AttemptStatus, JobStatus
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
    target.show(_values(found, attempts), "\n".join(_lines(found)))


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
        values["attempts"] = [
            {
                "attempt_number": attempt.attempt_number,
                "task_id": attempt.task_id,
                "status": _attempt_status(attempt.status),
                "started_at_ms": attempt.started_at_ms,
                "finished_at_ms": attempt.finished_at_ms if attempt.HasField("finished_at_ms") else None,
            }
            for attempt in found.attempts
        ]
    return values


def _lines(found: pb.GetJobResponse) -> Iterator[str]:
    yield "Job Details"
    yield f"  ID:             {found.id}"
    yield f"  Status:         {_job_status(found.status)}"
    yield f"  Priority:       {found.priority}"
    yield f"  Task Group:     {found.task_group}"
    yield f"  Enqueued:       {_time(found.enqueue_time_ms)}"
    yield f"  Status Changed: {_time(found.status_changed_at_ms)}"
    if found.HasField("next_attempt_starts_after_ms"):
        yield f"  Next Attempt:   {_time(found.next_attempt_starts_after_ms)}"
    if found.metadata:
        yield "  Metadata:"
        yield from (f"    {key}: {value}" for key, value in sorted(found.metadata.items()))
    if found.attempts:
        rows = [
            [
                str(attempt.attempt_number),
                attempt.task_id,
                _attempt_status(attempt.status),
                _time(attempt.finished_at_ms) if attempt.HasField("finished_at_ms") else "-",
            ]
            for attempt in found.attempts
        ]
        yield "\nAttempts:"
        yield table(["Attempt", "Task ID", "Status", "Finished"], rows)


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
            lines.append(f"Cancelled at: {_time(found.cancelled.cancelled_at_ms)}")
    target.show(values, "\n".join(lines))


def _hex(data: bytes) -> str:
    return data.hex()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(data: bytes) -> str:
    """MessagePack as JSON; what cannot be read, or has no counterpart in JSON, as hex."""
    if not data:
        return ""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, msgpack.UnpackException):
        return data.hex()
    return json.dumps(value, indent=2, ensure_ascii=False, default=_as_text)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


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


def _job_status(number: int) -> str:
    return JobStatus(number).name.lower() if number in set(JobStatus) else "unknown"


def _attempt_status(number: int) -> str:
    return AttemptStatus(number).name.lower() if number in set(AttemptStatus) else "unknown"


def _time(ms: int) -> str:
    return f"{ms // 1000} ({ms}ms)"
