"""As much of a client as the demo needs.  A client library for programs comes in a later release.

It shows the three things that every client does:

- *Routing.*  GetClusterInfo says which shard owns which part of the hash line; a tenant's shard is where its hash lies.
- *Trying again.*  UNAVAILABLE means that the broker cannot say, so the call is sent again, with a pause that grows.
- *Lost replies.*  A call that is sent again may have taken effect the first time.  With ids of its own choice the client
  can tell: to the second try the broker answers that the job exists, or that it is cancelled already.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import xxhash

from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.pb.silo_ext_pb2_grpc import InspectionStub
from silo.pb.silo_pb2_grpc import SiloStub

TASK_GROUP = "demo"

GIVE_UP_S = 20.0
CALL_S = 15.0
PAUSE_S = (0.05, 0.1, 0.2, 0.4)
"""Before each further try; the last holds for all that follow."""

TRY_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

CHANNEL = [
    # A broker that was killed is back within a second or two; gRPC's own habit is to look again ever more rarely.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
]


class Client:
    """A connection to the broker.

    Attributes:
        sent_again: how many calls were not answered, or with UNAVAILABLE, and so were sent again.
    """

    def __init__(self, address: str, *, actor: str) -> None:
        self.sent_again = 0
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL)
        self._stub: Any = SiloStub(self._channel)
        self._inspection: Any = InspectionStub(self._channel)
        self._metadata = (("x-silo-actor", actor),)
        self._owners: list[pb.ShardOwner] = []

    async def connect(self) -> None:
        """Wait until the broker answers, and learn which shard owns which tenants."""
        info = await self.call("GetClusterInfo", pb.GetClusterInfoRequest())
        self._owners = sorted(info.shard_owners, key=lambda owner: owner.range_start)

    async def close(self) -> None:
        await self._channel.close()

    def shard_of(self, tenant: str) -> str:
        """The id of the shard that owns a tenant."""
        place = xxhash.xxh64_hexdigest(tenant.encode())
        return [owner.shard_id for owner in self._owners if owner.range_start <= place][-1]

    async def call(self, rpc: str, request: Any, *, done: grpc.StatusCode | None = None) -> Any:
        """Call a method, again and again while the broker is away.

        Args:
            done: the answer to a second try which says that the first has done it; then there is no reply.

        Raises:
            grpc.aio.AioRpcError: any other answer, or still none after `GIVE_UP_S`.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + GIVE_UP_S
        tries = 0
        while True:
            try:
                return await getattr(self._stub, rpc)(request, timeout=CALL_S, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                if tries and error.code() is done:
                    return None
                if error.code() not in TRY_AGAIN or loop.time() > give_up:
                    raise
            self.sent_again += 1
            await asyncio.sleep(PAUSE_S[min(tries, len(PAUSE_S) - 1)])
            tries += 1

    # --- for those who have work done ------------------------------------------------------------------------------------

    async def enqueue(self, request: pb.EnqueueRequest) -> None:
        """Hand over a job, which must have an id."""
        request.shard = self.shard_of(request.tenant)
        await self.call("Enqueue", request, done=grpc.StatusCode.ALREADY_EXISTS)

    async def cancel(self, tenant: str, job_id: str) -> None:
        """Ask for the end of a job."""
        request = pb.CancelJobRequest(shard=self.shard_of(tenant), tenant=tenant, id=job_id)
        await self.call("CancelJob", request, done=grpc.StatusCode.FAILED_PRECONDITION)

    async def status(self, tenant: str, job_id: str) -> pb.JobStatus:
        """Where a job stands."""
        request = pb.GetJobRequest(shard=self.shard_of(tenant), tenant=tenant, id=job_id)
        reply = await self.call("GetJob", request)
        status: pb.JobStatus = reply.status
        return status

    async def explain(self, tenant: str, job_id: str) -> str:
        """Why a job is not running, in a sentence."""
        request = ext.ExplainJobRequest(shard=self.shard_of(tenant), tenant=tenant, id=job_id)
        reply = await self._inspection.ExplainJob(request, timeout=CALL_S, metadata=self._metadata)
        return str(reply.summary)

    async def totals(self) -> tuple[int, int]:
        """How many jobs the broker has, and how many of them have ended."""
        info = await self.call("GetNodeInfo", pb.GetNodeInfoRequest())
        shards = info.owned_shards
        return sum(shard.total_jobs for shard in shards), sum(shard.completed_jobs for shard in shards)

    # --- for those who do the work ---------------------------------------------------------------------------------------

    async def lease(self, worker_id: str, max_tasks: int) -> list[pb.Task]:
        """Up to so many tasks, of whatever tenant.  The broker answers at once, also if there are none."""
        request = pb.LeaseTasksRequest(worker_id=worker_id, max_tasks=max_tasks, task_group=TASK_GROUP)
        reply = await self.call("LeaseTasks", request)
        return list(reply.tasks)

    async def heartbeat(self, task: pb.Task, worker_id: str) -> bool:
        """Say that a task is still being worked on.  Returns whether its job was cancelled."""
        request = pb.HeartbeatRequest(
            shard=task.shard, worker_id=worker_id, task_id=task.id, tenant_id=task.tenant_id
        )
        reply = await self.call("Heartbeat", request)
        return bool(reply.cancelled)

    async def report(self, request: pb.ReportOutcomeRequest, task: pb.Task) -> bool:
        """Say how a task ended.  Returns False if its lease was lost, so that somebody else will do the work."""
        request.shard, request.task_id, request.tenant_id = task.shard, task.id, task.tenant_id
        try:
            await self.call("ReportOutcome", request, done=grpc.StatusCode.NOT_FOUND)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True
