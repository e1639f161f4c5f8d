"""A client of a running node, for tests that read as a client's or a worker's day.

    job_id = silo.enqueue(priority=3)
    [task] = silo.lease()
    silo.report(task, success=b"\\x01")

    assert silo.refusal("CancelJob", id=job_id) == (FAILED_PRECONDITION, "job is already in terminal state")

The node and its clients share one event loop, which runs while a call is under way: so tests are plain functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from silo.domain.tenants import DEFAULT_TENANT
from silo.pb import silo_pb2 as pb
from silo.server.service import SERVICE
from tests.server.running import IN_S, RunningNode, running_node

LATER_MS = 4_102_444_800_000
"""The year 2100: a start that does not come while a test runs."""

NIL = "00000000-0000-0000-0000-000000000000"
"""A shard id that no shard has."""

NEXT_LOOK_S = 0.02


class Refusal(NamedTuple):
    code: grpc.StatusCode
    details: str


class Nodes:
    """Starts nodes on one event loop, and stops them all at the end."""

    def __init__(self) -> None:
        # Not an asyncio.Runner, which writes out every result: seconds for a large one.
        self._loop = asyncio.new_event_loop()
        self._running: list[Any] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, IN_S))

    def start(self, **options: Any) -> Silo:
        running = running_node(**options)
        node = self.run(running.__aenter__())
        self._running.append(running)
        return Silo(self, node)

    def stop(self) -> None:
        for running in self._running:
            self.run(running.__aexit__(None, None, None))
        self.run(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class Silo:
    """A client of one node.

    Attributes:
        node: the node, in this process.
        tenant: for whom its calls are, unless they say otherwise; None: for nobody in particular.
        group: a task group of this object's own, so that tests can share the node.
    """

    _groups = count(1)

    def __init__(self, nodes: Nodes, node: RunningNode, tenant: str | None = None) -> None:
        self.nodes = nodes
        self.node = node
        self.tenant = tenant
        self.group = f"group-{next(self._groups)}"
        self._ids = (f"{self.group}-job-{number}" for number in count(1))

    # --- any call --------------------------------------------------------------------------------------------------------

    def request(self, rpc: str, **fields: Any) -> Any:
        """A request.  If it names no shard, it gets the one that owns its tenant."""
        kind: Any = GetMessageClass(SERVICE.methods_by_name[rpc].input_type)
        for field in ("tenant", "tenant_id"):
            if self.tenant is not None and field in kind.DESCRIPTOR.fields_by_name:
                fields.setdefault(field, self.tenant)
        tenant = fields.get("tenant") or fields.get("tenant_id") or DEFAULT_TENANT
        for field in ("shard", "shard_id"):
            if field in kind.DESCRIPTOR.fields_by_name and rpc != "LeaseTasks":
                fields.setdefault(field, self.node.shard_of(tenant))
        return kind(**fields)

    def send(self, rpc: str, request: Message, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """The reply; for a call that streams, the list of them.  Raises AioRpcError."""
        return self.nodes.run(self._send(rpc, request, metadata))

    async def _send(self, rpc: str, request: Message, metadata: tuple[tuple[str, str], ...]) -> Any:
        call = self.node.call(rpc, request, metadata)
        if SERVICE.methods_by_name[rpc].server_streaming:
            return [reply async for reply in call]
        return await call

    def call(self, rpc: str, **fields: Any) -> Any:
        return self.send(rpc, self.request(rpc, **fields))

    def at_once_or_refused(self, rpc: str, *requests: dict[str, Any]) -> list[Any]:
        """The same, with a `Refusal` in the place of each call that was refused."""

        async def one(fields: dict[str, Any]) -> Any:
            try:
                return await self._send(rpc, self.request(rpc, **fields), ())
            except grpc.aio.AioRpcError as error:
                return Refusal(error.code(), error.details() or "")

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*map(one, requests))

        return list(self.nodes.run(all_of_them()))

    def at_once(self, rpc: str, *requests: dict[str, Any]) -> list[Any]:
        """The replies to many calls that are under way together."""

        async def all_of_them() -> list[Any]:
            calls = (self._send(rpc, self.request(rpc, **fields), ()) for fields in requests)
            return await asyncio.gather(*calls)

        return list(self.nodes.run(all_of_them()))

    def error(self, rpc: str, **fields: Any) -> grpc.aio.AioRpcError:
        """The error that a call ends with."""
        return self.error_of(rpc, self.request(rpc, **fields))

    def error_of(
        self, rpc: str, request: Message, metadata: tuple[tuple[str, str], ...] = ()
    ) -> grpc.aio.AioRpcError:
        try:
            reply = self.send(rpc, request, metadata)
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError(f"{rpc} was answered with {{{reply}}}")

    def refusal(self, rpc: str, **fields: Any) -> Refusal:
        """Code and text of the error that a call ends with."""
        error = self.error(rpc, **fields)
        return Refusal(error.code(), error.details() or "")

    # --- a client's calls ------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        return next(self._ids)

    def job_fields(self, **but: Any) -> dict[str, Any]:
        """What Enqueue needs, with an id and a group that nobody else uses."""
        return {"id": self.new_id(), "task_group": self.group, "payload": data(b"\xc0"), **but}

    def enqueue(self, **but: Any) -> str:
        return str(self.call("Enqueue", **self.job_fields(**but)).id)

    def job(self, job_id: str, **fields: Any) -> Any:
        """The job with its attempts."""
        return self.call("GetJob", id=job_id, include_attempts=True, **fields)

    def has(self, job_id: str, **fields: Any) -> bool:
        try:
            self.call("GetJob", id=job_id, **fields)
        except grpc.aio.AioRpcError as error:
            if (error.code(), error.details()) != (grpc.StatusCode.NOT_FOUND, "job not found"):
                raise
            return False
        return True

    def import_jobs(self, *jobs: dict[str, Any]) -> list[Any]:
        return list(self.call("ImportJobs", jobs=[self.import_entry(**job) for job in jobs]).results)

    def import_entry(self, **but: Any) -> Any:
        fields = {"task_group": self.group, "payload": data(b"\xc0"), "tenant": self.tenant, **but}
        fields.setdefault("id", self.new_id())
        fields.setdefault("shard", self.node.shard_of(fields.get("tenant") or DEFAULT_TENANT))
        return pb.ImportJobRequest(**fields)

    def drop_holders(self) -> int:
        """Take away all slots of the tenant; the only way in which a client learns how many were held."""
        return int(self.call("DropTenantHolders").holders_dropped)

    # --- a worker's calls ------------------------------------------------------------------------------------------------

    def work(self, max_tasks: int = 10, **but: Any) -> Any:
        """Whatever is there for the group: tasks, and limits to be refreshed."""
        fields = {"worker_id": "w", "task_group": self.group, "max_tasks": max_tasks, **but}
        return self.call("LeaseTasks", **fields)

    def lease(self, max_tasks: int = 10, **but: Any) -> list[Any]:
        """The tasks that are ready in the group."""
        return list(self.work(max_tasks, **but).tasks)

    def lease_one(self, **but: Any) -> Any:
        [task] = self.lease(**but)
        return task

    def report(self, task: Any, **outcome: Any) -> None:
        self.call("ReportOutcome", **self.report_fields(task, **outcome))

    def report_fields(
        self,
        task: Any,
        *,
        success: bytes | None = None,
        failure: tuple[str, bytes] | None = None,
        cancelled: bool = False,
    ) -> dict[str, Any]:
        fields: dict[str, Any] = {"shard": task.shard, "task_id": task.id}
        if task.HasField("tenant_id"):
            fields["tenant_id"] = task.tenant_id
        if success is not None:
            fields["success"] = data(success)
        if failure is not None:
            fields["failure"] = pb.Failure(code=failure[0], data=data(failure[1]))
        if cancelled:
            fields["cancelled"] = pb.Cancelled()
        return fields

    def finish(self, task: Any) -> str:
        """Report success.  Returns the job."""
        self.report(task, success=b"")
        return str(task.job_id)

    def finish_all(self, max_tasks: int = 10) -> list[str]:
        """Do all the work that there is, and what follows from it.  Returns the jobs in the order in which they ran."""
        done: list[str] = []
        while tasks := self.lease(max_tasks):
            done += [self.finish(task) for task in tasks]
        return done

    def report_refresh(self, refresh: Any, maximum: int | None) -> None:
        """Say what the maximum of a limit is now; None: it could not be found out."""
        fields: dict[str, Any] = {
            "shard": refresh.shard,
            "task_id": refresh.id,
            "tenant_id": refresh.tenant_id,
        }
        if maximum is None:
            self.call("ReportRefreshOutcome", failure=pb.RefreshFailure(code="E", message="m"), **fields)
        else:
            success = pb.RefreshSuccess(new_max_concurrency=maximum)
            self.call("ReportRefreshOutcome", success=success, **fields)

    def wait_until(self, seen: Callable[[], bool]) -> None:
        """Look again and again until it is so; what the clock does, nobody tells a client."""

        async def pause() -> None:
            await asyncio.sleep(NEXT_LOOK_S)

        for _ in range(round(IN_S / NEXT_LOOK_S)):
            if seen():
                return
            self.nodes.run(pause())
        raise AssertionError("it did not come to be so")


def data(raw: bytes) -> pb.SerializedBytes:
    return pb.SerializedBytes(msgpack=raw)


def is_data(message: Any, raw: bytes) -> bool:
    """Whether the wrapper carries these bytes, and says so also if there are none."""
    return message.WhichOneof("encoding") == "msgpack" and bool(message.msgpack == raw)
