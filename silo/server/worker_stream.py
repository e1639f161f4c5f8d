"""silo.ext.v1.Workers: a worker's stream.

    read      what the worker says: credits, reports, heartbeats
    lease     one for each shard: leases when there are credits and something is ready, at the moment that it is
    Outbox    gathers what there is to say, so that much goes out in one message while the worker is slow to read

Underneath are the commands of the calls that say the same: LeaseTasks, ReportOutcome, ReportRefreshOutcome, Heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import attrs

from silo.errors import Invalid, LeaseNotFound, SiloError, Unavailable
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.server import convert
from silo.server.callers import worker
from silo.server.interceptors import Context
from silo.server.items import beat_each, heartbeat_response, refusal, report_each
from silo.server.shards import OpenShard, Shards, stopping
from silo.shard.draft import Caller
from silo.shard.jobs import JobName
from silo.shard.lease import LEASED_BYTES_MAX, TASKS_PER_COMMAND_MAX, LeaseTasks
from silo.shard.refresh import ReportRefresh, has_work, lease_work, report_refresh
from silo.shard.shard import Shard

SERVICE = ext.DESCRIPTOR.services_by_name["Workers"]

MESSAGES_AT_ONCE_MAX = 64
"""Of one worker; the next is not read before one of them is answered."""

CREDITS_MAX = 1 << 20
LEASE_AGAIN_S = 0.2
"""When a shard did not answer."""


class Workers:
    """The service."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    async def Work(
        self, requests: AsyncIterator[ext.FromWorker], context: Context
    ) -> AsyncIterator[ext.ToWorker]:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        if not first.task_group:
            raise Invalid("task_group is required")
        if not first.worker_id:
            raise Invalid("worker_id is required")
        shards = [self.shards.resolve(first.shard)] if first.HasField("shard") else list(self.shards)
        stream = _Stream(self.shards, first, partial(worker, context=context, worker_id=first.worker_id))
        stream.start(stream.read(first, requests), *(stream.lease(shard) for shard in shards))
        try:
            while message := await stream.next_message():
                yield message
        finally:
            await stream.close()


@attrs.frozen
class _Leased:
    """A task that went out on a stream, to be told of its cancellation."""

    shard_id: str
    job: JobName
    tell: Callable[[int], None]


class _Stream:
    """One worker's stream.

    Args:
        first: its first message, which says who asks for what.
        caller: the worker as the caller of an rpc.
    """

    def __init__(self, shards: Shards, first: ext.FromWorker, caller: Callable[[str], Caller]) -> None:
        self._shards = shards
        self._worker_id = first.worker_id
        self._task_group = first.task_group
        self._caller = caller
        self._credits = 0
        self._outbox = _Outbox()
        self._short: dict[asyncio.Event, None] = {}
        self._leased: dict[str, _Leased] = {}
        self._running: list[asyncio.Task[None]] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MESSAGES_AT_ONCE_MAX)
        self._is_ending = False
        self._leasing = 0
        self._none_leasing = asyncio.Event()
        self._none_leasing.set()
        self._failure: BaseException | None = None

    # --- life ------------------------------------------------------------------------------------------------------------

    def start(self, *parts: Coroutine[Any, Any, None]) -> None:
        """Run the parts of the stream, until it is closed."""
        for part in (*parts, self._leave()):
            task = asyncio.create_task(part, name=f"stream of {self._worker_id}")
            task.add_done_callback(self._note_failure)
            self._running.append(task)

    async def next_message(self) -> ext.ToWorker | None:
        """The next message for the worker; None when it has said its last word and all is answered.

        Raises whatever a part of the stream failed with.
        """
        while True:
            await self._outbox.filled.wait()
            message = self._outbox.take()
            if message is not None:
                return message
            if self._failure is not None:
                raise self._failure
            if self._outbox.is_last:
                return None

    async def close(self) -> None:
        """End all parts.  The leases go on, and so does what was decided."""
        ending = [*self._running, *self._answering]
        for task in ending:
            task.cancel()
        await asyncio.wait(ending)
        for task_id in list(self._leased):
            self._forget(task_id)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._outbox.filled.set()

    async def _leave(self) -> None:
        """When the server stops, answer what the worker has said so far, and send it away."""
        await self._shards.leaving.wait()
        # It reads no more: the first of the parts.
        self._running[0].cancel()
        await self._finish()
        raise stopping()

    async def _finish(self) -> None:
        """Lease no more, and wait for all that is under way.  What is leased then is sent: it must not be nobody's."""
        self._is_ending = True
        await self._none_leasing.wait()
        while self._answering:
            await asyncio.wait(self._answering)

    # --- what the worker says --------------------------------------------------------------------------------------------

    async def read(self, first: ext.FromWorker, requests: AsyncIterator[ext.FromWorker]) -> None:
        """Hear the worker until it closes its side."""
        await self._hear(first)
        async for message in requests:
            await self._hear(message)
        await self._finish()
        self._outbox.end()

    async def _hear(self, message: ext.FromWorker) -> None:
        self._add_credits(min(message.credits, CREDITS_MAX - self._credits))
        for shard_id, reports in _by_shard(message.reports).items():
            await self._answer(self._report(shard_id, reports))
        for shard_id, heartbeats in _by_shard(message.heartbeats).items():
            await self._answer(self._beat(shard_id, heartbeats))
        for report in message.refresh_reports:
            await self._answer(self._report_refresh(report))

    async def _answer(self, answer: Coroutine[Any, Any, None]) -> None:
        """Let it run beside what the worker says next."""
        await self._room.acquire()
        task = asyncio.create_task(answer)
        self._answering.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._room.release()
        self._answering.discard(task)
        self._note_failure(task)

    async def _report(self, shard_id: str, reports: list[pb.ReportOutcomeRequest]) -> None:
        try:
            replies = await report_each(self._shards, shard_id, reports, self._caller("ReportOutcome"))
        except SiloError as error:
            replies = [error] * len(reports)
        for report, reply in zip(reports, replies, strict=True):
            self._reply(report.task_id, reply)

    async def _report_refresh(self, report: pb.ReportRefreshOutcomeRequest) -> None:
        reply: SiloError | None = None
        try:
            shard = self._shards.for_worker(report.shard, report.tenant_id)
            command = ReportRefresh(report.task_id, convert.refresh_outcome(report))
            await shard.execute(report_refresh, command, caller=self._caller("ReportRefreshOutcome"))
        except SiloError as error:
            reply = error
        self._reply(report.task_id, reply)

    def _reply(self, task_id: str, reply: SiloError | None) -> None:
        if reply is None or isinstance(reply, LeaseNotFound):
            self._forget(task_id)
        told = ext.ReportReply(task_id=task_id, refusal=refusal(reply) if reply is not None else None)
        self._outbox.message.reports.append(told)
        self._outbox.filled.set()

    async def _beat(self, shard_id: str, heartbeats: list[pb.HeartbeatRequest]) -> None:
        try:
            replies = await beat_each(self._shards, shard_id, heartbeats, self._caller("Heartbeat"))
        except SiloError as error:
            replies = [error] * len(heartbeats)
        for each, reply in zip(heartbeats, replies, strict=True):
            told = ext.HeartbeatReply(task_id=each.task_id)
            if isinstance(reply, SiloError):
                told.refusal.CopyFrom(refusal(reply))
            else:
                told.heartbeat.CopyFrom(heartbeat_response(reply))
            self._outbox.message.heartbeats.append(told)
        self._outbox.filled.set()

    # --- what the worker gets --------------------------------------------------------------------------------------------

    async def lease(self, opened: OpenShard) -> None:
        """Send what one shard has ready, whenever there is something and the worker has credits."""
        shard = opened.shard
        with shard.listening() as wake:
            while True:
                await wake.wait()
                wake.clear()
                try:
                    while self._can_lease(opened, wake):
                        # In this task, not in one of its own: a turn of the event loop later the commit of what made the
                        # task ready has begun, and this one would wait for the next.
                        await self._lease_some(shard)
                        # What is leased already must be out before more is.
                        await self._outbox.taken.wait()
                except Unavailable:
                    await asyncio.sleep(LEASE_AGAIN_S)
                    wake.set()

    def _can_lease(self, opened: OpenShard, wake: asyncio.Event) -> bool:
        if not self._credits:
            # They may come from the worker, or back from a shard that had less to give than it took them for.
            self._short[wake] = None
            return False
        return not self._is_ending and opened.is_serving and has_work(self._task_group, opened.shard.rows)

    def _add_credits(self, more: int) -> None:
        """Take in credits, and let those shards look again that were short of them."""
        if more > 0:
            self._credits += more
            for wake in self._short:
                wake.set()
            self._short.clear()

    async def _lease_some(self, shard: Shard) -> None:
        # Taken before the command waits, so that no other shard gives for the same credits.
        most = min(self._credits, TASKS_PER_COMMAND_MAX)
        self._credits -= most
        command = LeaseTasks(
            worker_id=self._worker_id,
            task_group=self._task_group,
            max_tasks=most,
            bytes_max=LEASED_BYTES_MAX,
        )
        leased = None
        self._leasing += 1
        self._none_leasing.clear()
        try:
            leased = await shard.execute(lease_work, command, caller=self._caller("LeaseTasks"))
        finally:
            self._add_credits(most - (len(leased.tasks) if leased is not None else 0))
            self._leasing -= 1
            if not self._leasing:
                self._none_leasing.set()
        if not (leased.tasks or leased.refreshes):
            return
        for task in leased.tasks:
            name, tell = JobName(task.tenant, task.job_id), partial(self._tell_cancelled, task.task_id)
            self._leased[task.task_id] = _Leased(shard.shard_id, name, tell)
            self._shards.cancellations.listen(shard.shard_id, name, tell)
        self._outbox.message.tasks.extend(convert.task(task, shard.shard_id) for task in leased.tasks)
        self._outbox.message.refresh_tasks.extend(
            convert.refresh_task(refresh, shard.shard_id) for refresh in leased.refreshes
        )
        self._outbox.taken.clear()
        self._outbox.filled.set()

    def _tell_cancelled(self, task_id: str, cancelled_ms: int) -> None:
        told = ext.HeartbeatReply(task_id=task_id, heartbeat=heartbeat_response(cancelled_ms))
        self._outbox.message.heartbeats.append(told)
        self._outbox.filled.set()

    def _forget(self, task_id: str) -> None:
        leased = self._leased.pop(task_id, None)
        if leased is not None:
            self._shards.cancellations.forget(leased.shard_id, leased.job, leased.tell)


class _Outbox:
    """What is to be said next.

    Attributes:
        message: to be added to.
        filled: set when there is something to take, or to find out.
        taken: whether all tasks that were put in have been taken out.
        is_last: whether nothing more will come.
    """

    def __init__(self) -> None:
        self.message = ext.ToWorker()
        self.filled = asyncio.Event()
        self.taken = asyncio.Event()
        self.taken.set()
        self.is_last = False

    def take(self) -> ext.ToWorker | None:
        """All there is, if there is something."""
        self.filled.clear()
        if self.is_last:
            self.filled.set()
        message = self.message
        if not message.ListFields():
            return None
        self.message = ext.ToWorker()
        self.taken.set()
        return message

    def end(self) -> None:
        self.is_last = True
        self.filled.set()


def _by_shard(items: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(item.shard, []).append(item)
    return found
