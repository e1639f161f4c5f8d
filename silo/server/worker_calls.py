"""The calls of those who do the work: tasks are leased, kept alive by heartbeats, and reported."""

from __future__ import annotations

import logging

from silo.errors import Invalid, SiloError
from silo.pb import silo_pb2 as pb
from silo.server import convert
from silo.server.callers import worker
from silo.server.interceptors import Context
from silo.server.items import heartbeat_response
from silo.server.shards import Shards
from silo.shard.draft import Caller
from silo.shard.jobs import JobName
from silo.shard.lease import (
    LEASED_BYTES_MAX,
    TASKS_PER_COMMAND_MAX,
    Heartbeat,
    LeaseTask,
    LeaseTasks,
    heartbeat,
    lease_task,
)
from silo.shard.outcome import ReportOutcome, report_outcome
from silo.shard.refresh import ReportRefresh, lease_work, report_refresh
from silo.shard.shard import Shard

logger = logging.getLogger(__name__)


class WorkerCalls:
    """Mixed into the service, which has the shards."""

    shards: Shards

    async def LeaseTask(self, request: pb.LeaseTaskRequest, context: Context) -> pb.LeaseTaskResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        command = LeaseTask(job=JobName(tenant, request.id), worker_id=request.worker_id)
        caller = worker("LeaseTask", context, request.worker_id)
        leased = await shard.execute(lease_task, command, caller=caller)
        return pb.LeaseTaskResponse(task=convert.task(leased, request.shard))

    async def LeaseTasks(self, request: pb.LeaseTasksRequest, context: Context) -> pb.LeaseTasksResponse:
        if not request.task_group:
            raise Invalid("task_group is required")
        caller = worker("LeaseTasks", context, request.worker_id)
        named = request.HasField("shard")
        reply = pb.LeaseTasksResponse()
        for shard in [self.shards.resolve(request.shard)] if named else self.shards.in_random_order():
            try:
                await _lease(shard.shard, request, caller, reply)
            except SiloError as error:
                # What is leased already must reach the worker, also when a later shard fails.
                if named and not (reply.tasks or reply.refresh_tasks):
                    raise
                logger.warning("shard %s gave no tasks: %s", shard.id, error)
        return reply

    async def ReportOutcome(
        self, request: pb.ReportOutcomeRequest, context: Context
    ) -> pb.ReportOutcomeResponse:
        shard = self.shards.for_worker(request.shard, request.tenant_id)
        command = ReportOutcome(request.task_id, convert.outcome(request))
        caller = worker("ReportOutcome", context)
        await shard.execute(report_outcome, command, caller=caller, size=request.ByteSize())
        return pb.ReportOutcomeResponse()

    async def ReportRefreshOutcome(
        self, request: pb.ReportRefreshOutcomeRequest, context: Context
    ) -> pb.ReportRefreshOutcomeResponse:
        shard = self.shards.for_worker(request.shard, request.tenant_id)
        command = ReportRefresh(request.task_id, convert.refresh_outcome(request))
        await shard.execute(report_refresh, command, caller=worker("ReportRefreshOutcome", context))
        return pb.ReportRefreshOutcomeResponse()

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        shard = self.shards.for_worker(request.shard, request.tenant_id)
        command = Heartbeat(task_id=request.task_id, worker_id=request.worker_id)
        caller = worker("Heartbeat", context, request.worker_id)
        cancelled_ms = await shard.execute(heartbeat, command, caller=caller)
        return heartbeat_response(cancelled_ms)


async def _lease(
    shard: Shard, request: pb.LeaseTasksRequest, caller: Caller, reply: pb.LeaseTasksResponse
) -> None:
    """Add to the reply what the shard has ready now, until the worker has all that it asked for or the reply is full."""
    # Whole tasks, not payloads only: a reply that is larger than a message would leave its tasks leased to nobody.
    size = reply.ByteSize()
    while len(reply.tasks) < request.max_tasks and size < LEASED_BYTES_MAX:
        command = LeaseTasks(
            worker_id=request.worker_id,
            task_group=request.task_group,
            max_tasks=min(request.max_tasks - len(reply.tasks), TASKS_PER_COMMAND_MAX),
            bytes_max=LEASED_BYTES_MAX - size,
        )
        leased = await shard.execute(lease_work, command, caller=caller)
        reply.refresh_tasks.extend(convert.refresh_task(task, shard.shard_id) for task in leased.refreshes)
        more = [convert.task(task, shard.shard_id) for task in leased.tasks]
        reply.tasks.extend(more)
        size += sum(task.ByteSize() for task in more)
        if len(leased.tasks) < command.max_tasks:
            return
