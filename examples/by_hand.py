"""Hand over a job, do its work, print its result: a client and a worker in one program, with all that either needs.

    silo serve                              in another terminal, or: make serve
    python examples/by_hand.py [HOST:PORT]    the broker, if it is not at 127.0.0.1:7450

docs/clients.md says why each step is as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import msgpack
import xxhash

from silo.pb import silo_pb2 as pb
from silo.pb.silo_pb2_grpc import SiloStub

TASK_GROUP = "hello"
WORKER_ID = "hello-worker"
TENANT = "-"  # the tenant of all jobs while tenancy is off; it decides the shard, and is not sent

CALL_S = 10
PAUSES_S = (0.1, 0.2, 0.5, 1, 2, 2, 2, 2, 2)  # before each further try of a call
LOOK_AGAIN_S = 0.1


# --- calls that reach their shard ------------------------------------------------------------------------------------


class Broker:
    """Sends each call to the node that has its shard, and again while nobody can say what became of it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stubs: dict[str, Any] = {}
        self._shards: list[pb.ShardOwner] = []

    def shard_of(self, tenant: str) -> str:
        """The shard whose range of the hash line has the tenant's hash."""
        place = xxhash.xxh64_hexdigest(
            tenant.encode()
        )  # seed 0; 16 lower-case hex digits, which sort as their numbers
        return [shard.shard_id for shard in self._shards if shard.range_start <= place][-1]

    async def call(self, rpc: str, request: Any, shard: Callable[[], str]) -> Any:
        """The reply.  `shard` is asked before each try, as the shards may be others by then.  Raises AioRpcError."""
        pauses_s = iter(PAUSES_S)
        while True:
            try:
                if not self._shards:
                    await self._find_shards()
                request.shard = shard()
                return await getattr(self._stub(self._node_of(request.shard)), rpc)(request, timeout=CALL_S)
            except grpc.aio.AioRpcError as error:
                pause_s = next(pauses_s, None)
                if pause_s is None or not is_worth_another_try(error):
                    raise
            self._shards = []
            await asyncio.sleep(pause_s)

    async def _find_shards(self) -> None:
        info = await self._stub(self._address).GetClusterInfo(pb.GetClusterInfoRequest(), timeout=CALL_S)
        self._shards = sorted(info.shard_owners, key=lambda shard: shard.range_start)

    def _node_of(self, shard_id: str) -> str:
        nodes = [shard.grpc_addr for shard in self._shards if shard.shard_id == shard_id and shard.grpc_addr]
        return nodes[0] if nodes else self._address

    def _stub(self, address: str) -> Any:
        if address not in self._stubs:
            self._stubs[address] = SiloStub(grpc.aio.insecure_channel(address))
        return self._stubs[address]


def is_worth_another_try(error: grpc.aio.AioRpcError) -> bool:
    """Whether the broker was away or overloaded, or another one has the shard by now."""
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return "shard not found" in (error.details() or "")
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


# --- the client ------------------------------------------------------------------------------------------------------


async def enqueue(broker: Broker, payload: Any) -> str:
    """Hand over a job.  Returns its id."""
    # With an id of our own a call that is sent twice makes one job, not two.
    job_id = str(uuid.uuid4())
    request = pb.EnqueueRequest(
        id=job_id,
        task_group=TASK_GROUP,
        priority=50,
        payload=pb.SerializedBytes(msgpack=msgpack.packb(payload)),
        retry_policy=pb.RetryPolicy(
            retry_count=3, initial_interval_ms=500, max_interval_ms=10_000, backoff_factor=2
        ),
    )
    try:
        await broker.call("Enqueue", request, lambda: broker.shard_of(TENANT))
    except grpc.aio.AioRpcError as error:
        # The first try took effect, and its reply was lost.
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
    return job_id


async def result_of(broker: Broker, job_id: str) -> Any:
    """Wait until a job has ended, and return its result.  Raises RuntimeError if it has none."""
    request = pb.GetJobResultRequest(id=job_id)
    while True:
        try:
            reply = await broker.call("GetJobResult", request, lambda: broker.shard_of(TENANT))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            await asyncio.sleep(LOOK_AGAIN_S)  # it has not ended yet
            continue
        match reply.WhichOneof("result"):
            case "success_data":
                return msgpack.unpackb(reply.success_data.msgpack)
            case "failure":
                why = msgpack.unpackb(reply.failure.error_data.msgpack)
                raise RuntimeError(f"job {job_id} failed: {reply.failure.error_code}: {why}")
            case _:
                raise RuntimeError(f"job {job_id} was cancelled")


# --- the worker ------------------------------------------------------------------------------------------------------


def greet(payload: Any) -> str:
    """The work itself."""
    return f"Hello, {payload['name']}!"


async def work(broker: Broker) -> None:
    """Do one task after the other, until cancelled.  Any number of workers may do so at the same time."""
    while True:
        # Without tenants all jobs are in one shard.  Otherwise leave `shard` out: a node then gives tasks of all its shards.
        request = pb.LeaseTasksRequest(worker_id=WORKER_ID, max_tasks=1, task_group=TASK_GROUP)
        reply = await broker.call("LeaseTasks", request, lambda: broker.shard_of(TENANT))
        for task in reply.tasks:
            await do(broker, task)
        if not reply.tasks:
            await asyncio.sleep(LOOK_AGAIN_S)  # the broker answers at once, also if there is nothing to do


async def do(broker: Broker, task: pb.Task) -> None:
    """Do one task and say how it ended."""
    report = pb.ReportOutcomeRequest(task_id=task.id, tenant_id=task.tenant_id)
    async with heartbeats(broker, task) as is_over:
        try:
            done = await asyncio.to_thread(greet, msgpack.unpackb(task.payload.msgpack))
            report.success.msgpack = msgpack.packb(done)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in the work is its outcome
            report.failure.CopyFrom(pb.Failure(code=type(error).__name__, data=packed(str(error))))
    if is_over.is_set():
        report.cancelled.SetInParent()
    try:
        await broker.call("ReportOutcome", report, lambda: task.shard)
    except grpc.aio.AioRpcError as error:
        # The lease is gone: an earlier try of this report took effect, or another worker has the task by now.
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


def packed(value: Any) -> pb.SerializedBytes:
    return pb.SerializedBytes(msgpack=msgpack.packb(value))


@contextlib.asynccontextmanager
async def heartbeats(broker: Broker, task: pb.Task) -> AsyncIterator[asyncio.Event]:
    """Keep the lease for as long as the block lasts.  The event is set when there is no use in going on."""
    is_over = asyncio.Event()
    beating = asyncio.create_task(beat(broker, task, is_over))
    try:
        yield is_over
    finally:
        beating.cancel()


async def beat(broker: Broker, task: pb.Task, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        await asyncio.sleep(task.lease_ms / 1000 / 4)
        request = pb.HeartbeatRequest(worker_id=WORKER_ID, task_id=task.id, tenant_id=task.tenant_id)
        try:
            reply = await broker.call("Heartbeat", request, lambda: task.shard)
        except grpc.aio.AioRpcError as error:
            # Only these say that the lease is lost; after any other the next heartbeat may get through.
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                is_over.set()
        else:
            if reply.cancelled:
                is_over.set()


# --- both ------------------------------------------------------------------------------------------------------------


async def main(address: str) -> None:
    broker = Broker(address)
    refused: Any = None
    try:
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work(broker))
            job_id = await enqueue(broker, {"name": "world"})
            print(await result_of(broker, job_id))
            working.cancel()
    except* grpc.aio.AioRpcError as errors:
        # What is raised in here would come out in a group again.
        refused = errors.exceptions[0]
    if refused:
        sys.exit(f"the broker at {address}: {refused.code().name}: {refused.details()}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["127.0.0.1:7450"]))
