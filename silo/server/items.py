"""Many items in one message: each is decided as in a call of its own, and answered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from silo.errors import Refused, SiloError
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.server import convert
from silo.server.shards import Shards
from silo.server.statuses import details_of, status_of
from silo.shard.batches import ITEMS_PER_COMMAND_MAX, heartbeat_all, report_all
from silo.shard.draft import Caller, Draft
from silo.shard.lease import Heartbeat
from silo.shard.outcome import ReportOutcome
from silo.shard.shard import Shard

Decide = Callable[[Sequence[Any], Draft], list[Any]]


async def decide_each(
    shard: Shard,
    decide: Decide,
    command_of: Callable[[Any], Any],
    items: Sequence[Message],
    caller: Caller,
) -> list[Any]:
    """Decide all items that are well-formed, in order; the replies, or refusals, in the order of the items.

    Pieces are decided one right after the other, so that they become durable together.
    """
    replies: list[Any] = []
    places: list[int] = []
    commands: list[Any] = []
    for place, item in enumerate(items):
        try:
            command = command_of(item)
        except Refused as refused:
            replies.append(refused)
        else:
            replies.append(None)
            places.append(place)
            commands.append(command)
    pieces = [
        commands[at : at + ITEMS_PER_COMMAND_MAX] for at in range(0, len(commands), ITEMS_PER_COMMAND_MAX)
    ]
    size = sum(item.ByteSize() for item in items) // max(len(pieces), 1)
    decided = await asyncio.gather(
        *(shard.execute(decide, piece, caller=caller, size=size) for piece in pieces)
    )
    for place, reply in zip(places, (reply for piece in decided for reply in piece), strict=True):
        replies[place] = reply
    return replies


async def report_each(
    shards: Shards, shard_id: str, reports: Sequence[pb.ReportOutcomeRequest], caller: Caller
) -> list[Any]:
    """End attempts that one shard has leased; for each None, or why not.  Raises what finding the shard does."""

    def command(report: pb.ReportOutcomeRequest) -> ReportOutcome:
        shards.for_worker(shard_id, report.tenant_id)
        return ReportOutcome(report.task_id, convert.outcome(report))

    return await decide_each(shards.resolve(shard_id).shard, report_all, command, reports, caller)


async def beat_each(
    shards: Shards, shard_id: str, heartbeats: Sequence[pb.HeartbeatRequest], caller: Caller
) -> list[Any]:
    """Renew leases of one shard; for each what `heartbeat` replies, or why not.  Raises as `report_each` does."""

    def command(each: pb.HeartbeatRequest) -> Heartbeat:
        shards.for_worker(shard_id, each.tenant_id)
        return Heartbeat(task_id=each.task_id, worker_id=each.worker_id)

    return await decide_each(shards.resolve(shard_id).shard, heartbeat_all, command, heartbeats, caller)


def refusal(error: SiloError) -> ext.Refusal:
    """The status that a call of its own would have had."""
    return ext.Refusal(code=status_of(error).value[0], message=details_of(error))


def heartbeat_response(cancelled_ms: int | None) -> pb.HeartbeatResponse:
    return pb.HeartbeatResponse(cancelled=cancelled_ms is not None, cancelled_at_ms=cancelled_ms)
