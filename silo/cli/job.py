"""`silo job`: questions about one job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from silo.cli.ctl.connection import Target, global_flags, pass_target, shard_of_tenant
from silo.cli.ctl.texts import moment
from silo.domain.tenants import DEFAULT_TENANT
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb

INSPECTION = ext.DESCRIPTOR.services_by_name["Inspection"]
MARKS = {
    ext.Gate.STATE_PASSED: "passed",
    ext.Gate.STATE_HERE: "here",
    ext.Gate.STATE_AHEAD: "ahead",
}


@click.group()
def job() -> None:
    """Ask about one job."""


@job.command("explain")
@click.argument("job_id")
@global_flags
@pass_target
def explain(target: Target, job_id: str) -> None:
    """Say why a job is not running: where it stands, behind whom, and what has to happen next.

    \b
    Examples:
      silo job explain report-7
      silo job explain report-7 --tenant acme --address http://silo-3:7450
    """
    node = target.connect()
    shard = shard_of_tenant(node.cluster(), target.tenant or DEFAULT_TENANT).shard_id
    request = ext.ExplainJobRequest(shard=shard, id=job_id, tenant=target.tenant)
    told = node.owner_of(shard).call("ExplainJob", request, service=INSPECTION)
    values = MessageToDict(told, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    target.show(_with_numbers(values), "\n".join(_lines(told)))


def _with_numbers(value: Any) -> Any:
    """Times as numbers, where protobuf's JSON has texts for fear of JavaScript."""
    if isinstance(value, list):
        return [_with_numbers(one) for one in value]
    if isinstance(value, dict):
        return {
            key: int(inner) if key.endswith("_ms") else _with_numbers(inner) for key, inner in value.items()
        }
    return value


def _lines(told: ext.ExplainJobResponse) -> Iterator[str]:
    attempt = f", attempt {told.attempt}" if told.attempt else ""
    yield f"Job {told.id}{attempt}"
    yield f"  {_sentence(told.summary)}"
    yield f"  Since:  {moment(told.since_ms)}"
    yield f"  Next:   {_sentence(told.next)}"
    if told.HasField("next_ms"):
        yield f"  When:   {moment(told.next_ms)}"
    if told.gates:
        yield "\nLimits, in the order in which it passes them"
    for number, gate in enumerate(told.gates, start=1):
        yield f"  {number}  {MARKS[gate.state]:<7} {_limit(gate)}"
    if told.line.first:
        more = told.line.ahead - len(told.line.first)
        rest = f" and {'more than ' if told.line.more_ahead else ''}{more:,} more" if more else ""
        yield f"\nBefore it in line for {told.line.name}: {', '.join(told.line.first)}{rest}"
    if told.holders:
        yield f"\nHolders of {told.line.name}, the longest first"
    for holder in told.holders:
        who = f"run by {holder.worker_id}" if holder.worker_id else "not running yet"
        yield f"  {holder.job_id}  since {moment(holder.since_ms)}, {who}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _limit(gate: ext.Gate) -> str:
    match gate.limit.WhichOneof("limit"):
        case "concurrency":
            return f"{gate.limit.concurrency.key}: {_queue(gate)}"
        case "floating_concurrency":
            return f"{gate.limit.floating_concurrency.key} (floating): {_queue(gate)}"
        case _:
            return f"{gate.limit.rate_limit.name}:{gate.limit.rate_limit.unique_key}: {_rate(gate)}"


def _queue(gate: ext.Gate) -> str:
    return f"{gate.holders} of {gate.maximum} slots held, {_jobs(gate.waiters)} waiting"


def _rate(gate: ext.Gate) -> str:
    rate: pb.GubernatorRateLimit = gate.limit.rate_limit
    stated = f"{rate.limit} per {rate.duration_ms} ms"
    if not gate.HasField("remaining"):
        return f"{stated}, counted outside"
    return f"{stated}, {gate.remaining} left, {_jobs(gate.waiters)} waiting"


def _jobs(count: int) -> str:
    return f"{count:,} {'job' if count == 1 else 'jobs'}"
