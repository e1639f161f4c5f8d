"""A worker's side of the wire, in a thread of its own: heartbeats go on whatever the handlers do with theirs.

    Link       asks for tasks of one task group from every node, and keeps the leases of those that it has got
    _stream    over a stream, on which the broker pushes tasks
    _poll      over plain calls of silo.v1, for a broker without streams
    _beat      heartbeats

What a stream does not answer goes on in plain calls, with all tries that those have: reports above all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable
from typing import Any, Protocol

import attrs
import grpc

from silo.client.calls import Calls, Place, is_worth_another_try
from silo.client.errors import CODES, BrokerUnavailable, ClientError, LeaseLost, error_for
from silo.client.routing import Topology
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb

logger = logging.getLogger("silo.worker")

BEATS_A_LEASE = 4
BEAT_S_MIN = 0.05
CONNECT_AGAIN_S = (0.05, 0.2, 0.5, 1.0, 2.0)
LOOK_FOR_NODES_S = 10.0
POLL_S = (0.01, 0.5)
"""How soon to ask again after nothing was found, at first and at last."""

POLL_TASKS_MAX = 256
REPORT_WITHIN_S = 60.0
"""So long a report is tried; a broker that was away gives every lease a full lease when it is back."""


class Receiver(Protocol):
    """Who works on what the link gets.  Called in the thread of the link."""

    def tasks(self, tasks: Iterable[pb.Task]) -> None: ...
    def refreshes(self, refreshes: Iterable[pb.RefreshFloatingLimitTask]) -> None: ...
    def reported(self, task_id: str, error: ClientError | None) -> None: ...
    def over(self, task_id: str, *, lost: bool) -> None: ...


@attrs.define
class _Held:
    """A task that is leased to this worker."""

    message: pb.Task | pb.RefreshFloatingLimitTask
    address: str
    is_done: bool = False


class Link:
    """What one worker does for one task group.  Of one event loop; `run` it there.

    Args:
        capacity: how many tasks it may have at once.
    """

    def __init__(
        self, calls: Calls, receiver: Receiver, *, worker_id: str, task_group: str, capacity: int
    ) -> None:
        self._calls = calls
        self._receiver = receiver
        self._worker_id = worker_id
        self._task_group = task_group
        self._capacity = capacity
        self._held: dict[str, _Held] = {}
        self._sessions: dict[str, _Session] = {}
        self._streaming = True
        self._draining = asyncio.Event()
        self._let_go = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat_s = 1.0

    # --- life ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask every node for tasks, until `drain`.  Raises ClientError if the broker refuses this worker for good."""
        beating = asyncio.create_task(self._beat())
        nodes: dict[str, asyncio.Task[None]] = {}
        draining = asyncio.create_task(self._draining.wait())
        try:
            while not self._draining.is_set():
                topology = await self._topology(draining)
                if topology is None:
                    break
                addresses = topology.addresses or self._calls.nodes.options.addresses
                for address in addresses:
                    if address not in nodes or nodes[address].done():
                        share = -(-self._capacity // len(addresses))
                        nodes[address] = asyncio.create_task(self._keep_asking(address, share))
                await asyncio.wait(
                    [draining, *nodes.values()],
                    timeout=LOOK_FOR_NODES_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in nodes.values():
                    if task.done():
                        task.result()
                self._calls.ask_again()
            for address, task in nodes.items():
                # A stream ends when the broker has said its last word on it; nobody else has anything to wait for.
                if address not in self._sessions:
                    task.cancel()
            if nodes:
                await asyncio.wait(nodes.values(), timeout=REPORT_WITHIN_S)
            while self._held:
                self._let_go.clear()
                await self._let_go.wait()
        finally:
            ending: list[asyncio.Task[Any]] = [beating, draining, *nodes.values(), *self._tasks]
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)

    def drain(self) -> None:
        """Take no more tasks; `run` returns when those that are here have been reported."""
        self._draining.set()
        for session in self._sessions.values():
            session.end()

    async def _topology(self, draining: asyncio.Task[Any]) -> Topology | None:
        """Where the nodes are; None when the worker drains before anybody tells."""
        while not draining.done():
            asking = asyncio.create_task(self._calls.topology())
            await asyncio.wait([draining, asking], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                asking.cancel()
                return None
            try:
                return asking.result()
            except BrokerUnavailable as error:
                logger.warning("no broker yet: %s", error)
        return None

    async def _keep_asking(self, address: str, share: int) -> None:
        """Ask one node for tasks, again and again; returns when it no longer has shards, or when the worker drains."""
        tries = 0
        while not self._draining.is_set():
            try:
                if self._streaming:
                    tries = 0 if await self._stream(address, share) else tries + 1
                else:
                    await self._poll(address, share)
                continue
            except grpc.aio.AioRpcError as error:
                code, text = error.code(), error.details() or ""
                if code is grpc.StatusCode.UNIMPLEMENTED and self._streaming:
                    logger.info("the broker at %s has no streams; asking for tasks in plain calls", address)
                    self._streaming = False
                    continue
                transient = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
                if not is_worth_another_try(code, text) and code not in transient:
                    raise error_for(code, text) from None
                if not tries:
                    logger.warning("the stream to %s broke: %s", address, text)
            self._calls.ask_again()
            await asyncio.sleep(
                CONNECT_AGAIN_S[min(tries, len(CONNECT_AGAIN_S) - 1)] * random.uniform(0.5, 1)
            )
            tries += 1
            with contextlib.suppress(BrokerUnavailable):
                if address not in (await self._calls.topology()).addresses:
                    return

    # --- tasks that come -------------------------------------------------------------------------------------------------

    async def _stream(self, address: str, share: int) -> bool:
        """Take tasks from a stream until it ends.  Returns whether anything came."""
        workers = self._calls.nodes[address].services["Workers"]
        call = workers.Work(metadata=self._calls.nodes.options.metadata)
        session = self._sessions[address] = _Session(call)
        session.message.worker_id = self._worker_id
        session.message.task_group = self._task_group
        session.message.credits = max(share - self._busy(address), 0)
        writing = asyncio.create_task(session.write())
        heard = False
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                heard = True
                self._hear(message, address, session)
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                raise grpc.aio.AioRpcError(
                    code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
                )
            return heard
        finally:
            call.cancel()
            writing.cancel()
            if self._sessions.get(address) is session:
                del self._sessions[address]
            for request in session.unanswered.values():
                self._spawn(self._report_alone(request))

    def _hear(self, message: ext.ToWorker, address: str, session: _Session) -> None:
        self._take(message, address)
        for reply in message.reports:
            request = session.unanswered.pop(reply.task_id, None)
            if not reply.HasField("refusal"):
                self._reported(reply.task_id, None)
                continue
            code, text = CODES[reply.refusal.code], reply.refusal.message
            if request is not None and is_worth_another_try(code, text):
                self._spawn(self._report_alone(request))
            else:
                self._reported(reply.task_id, error_for(code, text))
        for beat in message.heartbeats:
            error = (
                error_for(CODES[beat.refusal.code], beat.refusal.message)
                if beat.HasField("refusal")
                else None
            )
            self._beaten(beat.task_id, beat.heartbeat.cancelled, error)

    async def _poll(self, address: str, share: int) -> None:
        """Ask for tasks again and again, until the worker drains."""
        silo = self._calls.nodes[address].services["Silo"]
        pause_s = POLL_S[0]
        while not self._draining.is_set():
            room = share - self._busy(address)
            found = False
            if room > 0:
                request = pb.LeaseTasksRequest(
                    worker_id=self._worker_id,
                    task_group=self._task_group,
                    max_tasks=min(room, POLL_TASKS_MAX),
                )
                reply = await silo.LeaseTasks(
                    request, metadata=self._calls.nodes.options.metadata, timeout=10
                )
                found = bool(reply.tasks or reply.refresh_tasks)
                self._take(reply, address)
            pause_s = POLL_S[0] if found or room <= 0 else min(pause_s * 1.5, POLL_S[1])
            if not found or room <= len(reply.tasks):
                await asyncio.sleep(pause_s * random.uniform(0.8, 1))

    def _take(self, given: ext.ToWorker | pb.LeaseTasksResponse, address: str) -> None:
        """Hold what a node has given, and pass it on."""
        if given.tasks:
            self._hold(given.tasks, address)
            self._receiver.tasks(given.tasks)
        if given.refresh_tasks:
            self._hold(given.refresh_tasks, address)
            self._receiver.refreshes(given.refresh_tasks)

    def _busy(self, address: str) -> int:
        """How many tasks of a node are being worked on."""
        return sum(
            held.address == address and not held.is_done and isinstance(held.message, pb.Task)
            for held in self._held.values()
        )

    def _hold(
        self, messages: Iterable[pb.Task] | Iterable[pb.RefreshFloatingLimitTask], address: str
    ) -> None:
        for message in messages:
            self._held[message.id] = _Held(message, address)
            if message.lease_ms:
                self._beat_s = max(message.lease_ms / 1000 / BEATS_A_LEASE, BEAT_S_MIN)

    # --- tasks that end --------------------------------------------------------------------------------------------------

    def done(self, task_id: str) -> None:
        """The handler has finished: there is room for another task."""
        held = self._held.get(task_id)
        if held is None or held.is_done:
            return
        held.is_done = True
        if isinstance(held.message, pb.Task):
            session = self._sessions.get(held.address)
            if session is not None and not self._draining.is_set():
                session.message.credits += 1
                session.filled.set()

    def report(self, request: pb.ReportOutcomeRequest | pb.ReportRefreshOutcomeRequest) -> None:
        """Say how a task ended; the receiver is told what the broker answers."""
        held = self._held.get(request.task_id)
        if held is None:
            self._receiver.reported(request.task_id, None)
            return
        request.shard = held.message.shard
        if held.message.HasField("tenant_id"):
            request.tenant_id = held.message.tenant_id
        session = self._sessions.get(held.address)
        if session is None or session.is_ending:
            self._spawn(self._report_alone(request))
            return
        session.unanswered[request.task_id] = request
        if isinstance(request, pb.ReportOutcomeRequest):
            session.message.reports.append(request)
        else:
            session.message.refresh_reports.append(request)
        session.filled.set()

    def drop(self, task_id: str) -> None:
        """Keep the lease no longer: it is reported, or lost."""
        self._held.pop(task_id, None)
        self._let_go.set()

    async def _report_alone(self, request: pb.ReportOutcomeRequest | pb.ReportRefreshOutcomeRequest) -> None:
        rpc = "ReportOutcome" if isinstance(request, pb.ReportOutcomeRequest) else "ReportRefreshOutcome"
        error: ClientError | None = None
        try:
            await self._calls.call(
                "Silo",
                rpc,
                request,
                # By the shard that leased it: only that one has the lease.
                Place(shard_id=request.shard),
                timeout_s=REPORT_WITHIN_S,
                means_done=lambda error: isinstance(error, LeaseLost),
            )
        except ClientError as failure:
            error = failure
        self._reported(request.task_id, error)

    def _reported(self, task_id: str, error: ClientError | None) -> None:
        self.drop(task_id)
        self._receiver.reported(task_id, error)

    # --- heartbeats ------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Say of every task that is here that it is being worked on, several times a lease."""
        while True:
            await asyncio.sleep(self._beat_s)
            for address in {held.address for held in self._held.values()}:
                beats = [
                    self._heartbeat(task_id, held)
                    for task_id, held in self._held.items()
                    if held.address == address
                ]
                session = self._sessions.get(address)
                if session is not None and not session.is_ending:
                    session.message.heartbeats.extend(beats)
                    session.filled.set()
                else:
                    for beat in beats:
                        self._spawn(self._beat_alone(beat))

    def _heartbeat(self, task_id: str, held: _Held) -> pb.HeartbeatRequest:
        beat = pb.HeartbeatRequest(shard=held.message.shard, worker_id=self._worker_id, task_id=task_id)
        if held.message.HasField("tenant_id"):
            beat.tenant_id = held.message.tenant_id
        return beat

    async def _beat_alone(self, beat: pb.HeartbeatRequest) -> None:
        try:
            reply = await self._calls.call(
                "Silo", "Heartbeat", beat, Place(shard_id=beat.shard), timeout_s=self._beat_s
            )
        except ClientError as error:
            self._beaten(beat.task_id, False, error)
        else:
            self._beaten(beat.task_id, reply.cancelled, None)

    def _beaten(self, task_id: str, cancelled: bool, error: ClientError | None) -> None:
        if task_id not in self._held:
            return
        # Any other error says nothing about the lease.
        if isinstance(error, LeaseLost):
            self._receiver.over(task_id, lost=True)
        elif cancelled:
            self._receiver.over(task_id, lost=False)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Session:
    """One stream: what is to be said on it, and which reports it has not answered yet."""

    def __init__(self, call: Any) -> None:
        self.message = ext.FromWorker()
        self.filled = asyncio.Event()
        self.filled.set()
        self.unanswered: dict[str, pb.ReportOutcomeRequest | pb.ReportRefreshOutcomeRequest] = {}
        self.is_ending = False
        self._call = call

    def end(self) -> None:
        """Say no more than what there is to say already; the broker then ends the stream, and sends no more tasks."""
        self.is_ending = True
        self.filled.set()

    async def write(self) -> None:
        """Say what there is to say, until the stream ends."""
        while True:
            await self.filled.wait()
            self.filled.clear()
            message, self.message = self.message, ext.FromWorker()
            if self.is_ending:
                message.credits = 0
            try:
                if message.ListFields():
                    await self._call.write(message)
                if self.is_ending:
                    await self._call.done_writing()
                    return
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # Whoever reads finds out why.
                return
