"""Enqueues that gather: what is asked for within a millisecond of each other goes to the broker in one call.

Many callers who enqueue one job each then cost little more than one who enqueues many.  Each is answered by itself.  Who
comes alone does not wait: only while a call is under way, those who come meanwhile are kept for a millisecond.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence

import attrs

from silo.client.calls import Calls, DoneBefore, Place, Tries, is_worth_another_try
from silo.client.errors import CODES, ClientError, JobExists, NotSupported, error_for
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb

BATCH_JOBS_MAX = 500
BATCH_BYTES_MAX = 4 << 20


@attrs.define
class _Gathering:
    """What will be in the next call to one shard."""

    requests: list[pb.EnqueueRequest] = attrs.field(factory=list)
    replies: list[asyncio.Future[str]] = attrs.field(factory=list)
    size: int = 0
    timer: asyncio.Handle | None = None


class Enqueuer:
    """Enqueues jobs.

    Args:
        gather_s: how long a job waits for others, in seconds, while a call is under way; 0: each goes alone.
    """

    def __init__(self, calls: Calls, *, gather_s: float) -> None:
        self._calls = calls
        self._gather_s = gather_s
        self._gathering: dict[str, _Gathering] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._has_batches = True

    async def enqueue(self, request: pb.EnqueueRequest, *, timeout_s: float | None) -> str:
        """Enqueue one job, which must have an id.  Returns its id.  Raises ClientError."""
        if not self._gather_s or timeout_s is not None or not self._has_batches:
            return await self._alone(request, timeout_s)
        topology = await self._calls.topology()
        return await self._gather(topology.shard_of(request.tenant).id, request)

    async def enqueue_all(
        self, requests: Sequence[pb.EnqueueRequest], *, timeout_s: float | None
    ) -> list[str | ClientError]:
        """Enqueue many jobs, of whatever tenants.  Returns the id of each, or why it was not taken in."""
        topology = await self._calls.topology()
        batches: dict[str, list[list[int]]] = {}
        sizes: dict[str, int] = {}
        for number, request in enumerate(requests):
            shard_id = topology.shard_of(request.tenant).id
            size = request.ByteSize()
            of_shard = batches.setdefault(shard_id, [[]])
            full = len(of_shard[-1]) >= BATCH_JOBS_MAX or sizes.get(shard_id, 0) + size > BATCH_BYTES_MAX
            if full and of_shard[-1]:
                of_shard.append([])
                sizes[shard_id] = 0
            of_shard[-1].append(number)
            sizes[shard_id] = sizes.get(shard_id, 0) + size
        answers: list[str | ClientError] = [""] * len(requests)

        async def send(numbers: list[int]) -> None:
            found = await self._send_batch([requests[number] for number in numbers], timeout_s)
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer

        await asyncio.gather(*(send(numbers) for of_shard in batches.values() for numbers in of_shard))
        return answers

    async def close(self) -> None:
        """Send what has gathered, and wait for the answers."""
        for shard_id in list(self._gathering):
            self._flush(shard_id)
        while self._sending:
            await asyncio.wait(self._sending)

    # --- gathering -------------------------------------------------------------------------------------------------------

    def _gather(self, shard_id: str, request: pb.EnqueueRequest) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        gathering = self._gathering.get(shard_id)
        if gathering is None:
            gathering = self._gathering[shard_id] = _Gathering()
            gathering.timer = (
                loop.call_later(self._gather_s, self._flush, shard_id)
                if self._sending
                else loop.call_soon(self._flush, shard_id)
            )
        reply: asyncio.Future[str] = loop.create_future()
        gathering.requests.append(request)
        gathering.replies.append(reply)
        gathering.size += request.ByteSize()
        if len(gathering.requests) >= BATCH_JOBS_MAX or gathering.size >= BATCH_BYTES_MAX:
            self._flush(shard_id)
        return reply

    def _flush(self, shard_id: str) -> None:
        gathering = self._gathering.pop(shard_id)
        if gathering.timer is not None:
            gathering.timer.cancel()
        task = asyncio.create_task(self._send(gathering), name="enqueue what has gathered")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, gathering: _Gathering) -> None:
        try:
            answers = await self._send_batch(gathering.requests, None)
        except BaseException as error:
            for reply in gathering.replies:
                if not reply.done():
                    reply.set_exception(copy.copy(error))
            if not isinstance(error, Exception):
                raise
            return
        for reply, answer in zip(gathering.replies, answers, strict=True):
            # A caller that has gone away no longer wants to know.
            if reply.done():
                continue
            if isinstance(answer, ClientError):
                reply.set_exception(answer)
            else:
                reply.set_result(answer)

    # --- sending ---------------------------------------------------------------------------------------------------------

    async def _alone(self, request: pb.EnqueueRequest, timeout_s: float | None) -> str:
        reply = await self._calls.call(
            "Silo",
            "Enqueue",
            request,
            Place(request.tenant),
            timeout_s=timeout_s,
            means_done=lambda error: isinstance(error, JobExists),
        )
        return request.id if isinstance(reply, DoneBefore) else str(reply.id)

    async def _each_alone(
        self, requests: Sequence[pb.EnqueueRequest], timeout_s: float | None
    ) -> list[str | ClientError]:
        if len(requests) == 1:
            return [await self._tried(requests[0], timeout_s)]
        return list(await asyncio.gather(*(self._tried(request, timeout_s) for request in requests)))

    async def _tried(self, request: pb.EnqueueRequest, timeout_s: float | None) -> str | ClientError:
        try:
            return await self._alone(request, timeout_s)
        except ClientError as error:
            return error

    async def _send_batch(
        self, requests: Sequence[pb.EnqueueRequest], timeout_s: float | None
    ) -> list[str | ClientError]:
        """Send jobs of one shard, as the shards were a moment ago."""
        if len(requests) == 1 or not self._has_batches:
            return await self._each_alone(requests, timeout_s)
        batch = ext.EnqueueBatchRequest(jobs=requests)
        tries = Tries()
        try:
            reply = await self._calls.call(
                "Batches", "EnqueueBatch", batch, Place(requests[0].tenant), timeout_s=timeout_s, tries=tries
            )
        except NotSupported:
            # A broker that speaks silo.v1 alone.
            self._has_batches = False
            return await self._each_alone(requests, timeout_s)
        answers: list[str | ClientError] = []
        again: list[int] = []
        for number, (request, result) in enumerate(zip(requests, reply.results, strict=True)):
            if not result.HasField("refusal"):
                answers.append(result.id)
                continue
            code = CODES[result.refusal.code]
            error = error_for(code, result.refusal.message)
            if isinstance(error, JobExists) and tries.more:
                answers.append(request.id)
                continue
            if is_worth_another_try(code, result.refusal.message):
                again.append(number)
            answers.append(error)
        # Its tenant has moved to another shard than that of the others.
        retried = await self._each_alone([requests[number] for number in again], timeout_s)
        for number, answer in zip(again, retried, strict=True):
            answers[number] = answer
        return answers
