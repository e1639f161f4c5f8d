"""silo.ext.v1.Batches: the calls of clients and workers that have much to do at once."""

from __future__ import annotations

from silo.errors import Refused
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.server import convert
from silo.server.callers import client, worker
from silo.server.interceptors import Context
from silo.server.items import beat_each, decide_each, heartbeat_response, refusal, report_each
from silo.server.shards import Shards
from silo.shard.batches import enqueue_all
from silo.shard.enqueue import NewJob

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
        replies = await decide_each(shard, enqueue_all, command, request.jobs, caller)
        return ext.EnqueueBatchResponse(
            results=[
                ext.EnqueueResult(refusal=refusal(reply))
                if isinstance(reply, Refused)
                else ext.EnqueueResult(id=reply)
                for reply in replies
            ]
        )

    async def ReportOutcomes(
        self, request: ext.ReportOutcomesRequest, context: Context
    ) -> ext.ReportOutcomesResponse:
        caller = worker("ReportOutcomes", context)
        replies = await report_each(self.shards, request.shard, request.reports, caller)
        return ext.ReportOutcomesResponse(
            results=[
                ext.ReportResult(refusal=refusal(reply)) if isinstance(reply, Refused) else ext.ReportResult()
                for reply in replies
            ]
        )

    async def Heartbeats(self, request: ext.HeartbeatsRequest, context: Context) -> ext.HeartbeatsResponse:
        caller = worker("Heartbeats", context)
        replies = await beat_each(self.shards, request.shard, request.heartbeats, caller)
        return ext.HeartbeatsResponse(results=[_heartbeat(reply) for reply in replies])


def _heartbeat(reply: int | Refused | None) -> ext.HeartbeatResult:
    if isinstance(reply, Refused):
        return ext.HeartbeatResult(refusal=refusal(reply))
    return ext.HeartbeatResult(heartbeat=heartbeat_response(reply))
