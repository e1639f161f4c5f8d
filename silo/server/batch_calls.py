"""silo.ext.v1.Batches: the calls of clients and workers that have much to do at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from silo.errors import Refused
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.server import convert
from silo.server.callers import client, worker
from silo.server.interceptors import Context
from silo.server.shards import Shards
from silo.server.statuses import details_of, status_of
from silo.shard.batches import ITEMS_PER_COMMAND_MAX, enqueue_all, heartbeat_all, report_all
from silo.shard.draft import Caller, Draft
from silo.shard.enqueue import NewJob
from silo.shard.lease import Heartbeat
from silo.shard.outcome import ReportOutcome
from silo.shard.shard import Shard

Command = TypeVar("Command")
Decide = Callable[[Sequence[Any], Draft], list[Any]]

SERVICE = ext.DESCRIPTOR.services_by_name["Batches"]


class Batches:
    """The service."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    async def EnqueueBatch(
        self, request: ext.EnqueueBatchRequest, context: Context
    ) -> ext.EnqueueBatchResponse:
        shard = self.shards.resolve(request.shard).shard

        def command(job: pb.EnqueueRequest) -> NewJob:
            _, tenant = self.shards.for_tenant(request.shard, job.tenant)
            return convert.new_job(job, tenant)

        caller = client("EnqueueBatch", context)
        replies = await _run(shard, enqueue_all, command, request.jobs, caller)
        return ext.EnqueueBatchResponse(
            results=[
                ext.EnqueueResult(refusal=_refusal(reply))
                if isinstance(reply, Refused)
                else ext.EnqueueResult(id=reply)
                for reply in replies
            ]
        )

    async def ReportOutcomes(
        self, request: ext.ReportOutcomesRequest, context: Context
    ) -> ext.ReportOutcomesResponse:
        shard = self.shards.resolve(request.shard).shard

        def command(report: pb.ReportOutcomeRequest) -> ReportOutcome:
            self.shards.for_worker(request.shard, report.tenant_id)
            return ReportOutcome(report.task_id, convert.outcome(report))

        replies = await _run(shard, report_all, command, request.reports, worker("ReportOutcomes", context))
        return ext.ReportOutcomesResponse(
            results=[
                ext.ReportResult(refusal=_refusal(reply))
                if isinstance(reply, Refused)
                else ext.ReportResult()
                for reply in replies
            ]
        )

    async def Heartbeats(self, request: ext.HeartbeatsRequest, context: Context) -> ext.HeartbeatsResponse:
        shard = self.shards.resolve(request.shard).shard

        def command(each: pb.HeartbeatRequest) -> Heartbeat:
            self.shards.for_worker(request.shard, each.tenant_id)
            return Heartbeat(task_id=each.task_id, worker_id=each.worker_id)

        replies = await _run(shard, heartbeat_all, command, request.heartbeats, worker("Heartbeats", context))
        return ext.HeartbeatsResponse(results=[_heartbeat(reply) for reply in replies])


def _heartbeat(reply: int | Refused | None) -> ext.HeartbeatResult:
    if isinstance(reply, Refused):
        return ext.HeartbeatResult(refusal=_refusal(reply))
    told = pb.HeartbeatResponse(cancelled=reply is not None, cancelled_at_ms=reply)
    return ext.HeartbeatResult(heartbeat=told)


async def _run(
    shard: Shard,
    decide: Decide,
    convert_item: Callable[[Any], Any],
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
            command = convert_item(item)
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


def _refusal(refused: Refused) -> ext.Refusal:
    return ext.Refusal(code=status_of(refused).value[0], message=details_of(refused))
