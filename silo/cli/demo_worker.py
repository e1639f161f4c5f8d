"""A worker of the demo, a process of its own: leases tasks, works, sends heartbeats, reports how each one ended.

python -m silo.cli.demo_worker ADDRESS WORKER_ID

It ends when its standard input does, so that it never outlives the demo.  What it has done it tells on standard output,
a line of JSON now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator

import attrs
import grpc
import msgpack

from silo.cli.demo_client import Client
from silo.cli.demo_plan import SHIP_S, Kind, work
from silo.pb import silo_pb2 as pb

TASKS_MAX = 24
"""So many tasks at once."""

IDLE_S = 0.02
HEARTBEAT_S = 1.0
"""A lease lasts ten seconds, so that several heartbeats may go astray."""

TELL_EVERY_S = 0.2
INTERRUPTED_AFTER_S = 60.0
"""How long the one job runs that waits to be cancelled."""


@attrs.define
class Tally:
    """What a worker has done so far."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retries: int = 0
    sent_again: int = 0


class Worker:
    """Leases and runs tasks until it is cancelled."""

    def __init__(self, client: Client, worker_id: str) -> None:
        self.tally = Tally()
        self._client = client
        self._id = worker_id
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        await self._client.connect()
        async with asyncio.TaskGroup() as group:
            while True:
                tasks = await self._client.lease(self._id, TASKS_MAX - len(self._running))
                for task in tasks:
                    running = group.create_task(self._do(task))
                    self._running.add(running)
                    running.add_done_callback(self._running.discard)
                if not tasks:
                    await asyncio.sleep(IDLE_S)
                while len(self._running) >= TASKS_MAX:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def _do(self, task: pb.Task) -> None:
        async with self._heartbeats(task) as cancelled:
            outcome = await self._outcome(task, cancelled)
        if not await self._client.report(outcome, task):
            return
        match outcome.WhichOneof("outcome"):
            case "success":
                self.tally.succeeded += 1
            case "cancelled":
                self.tally.cancelled += 1
            case _ if task.is_last_attempt:
                self.tally.failed += 1
            case _:
                self.tally.retries += 1

    async def _outcome(self, task: pb.Task, cancelled: asyncio.Event) -> pb.ReportOutcomeRequest:
        payload = task.payload.msgpack
        job = msgpack.unpackb(payload)
        if job["kind"] == Kind.INTERRUPTED.value:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cancelled.wait(), INTERRUPTED_AFTER_S)
        if job["kind"] == Kind.LIMITED.value:
            await asyncio.sleep(SHIP_S)
        if cancelled.is_set():
            return pb.ReportOutcomeRequest(cancelled=pb.Cancelled())
        if task.relative_attempt_number <= job["fails"]:
            why: bytes = msgpack.packb("the demo wants this attempt to fail")
            return pb.ReportOutcomeRequest(
                failure=pb.Failure(code="DEMO_FAILURE", data=pb.SerializedBytes(msgpack=why))
            )
        return pb.ReportOutcomeRequest(success=pb.SerializedBytes(msgpack=work(payload)))

    @contextlib.asynccontextmanager
    async def _heartbeats(self, task: pb.Task) -> AsyncIterator[asyncio.Event]:
        """Keep the lease while the body runs; the event is set when there is no use in going on."""
        over = asyncio.Event()
        beating = asyncio.create_task(self._beat(task, over))
        try:
            yield over
        finally:
            beating.cancel()

    async def _beat(self, task: pb.Task, over: asyncio.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(HEARTBEAT_S)
            try:
                cancelled = await self._client.heartbeat(task, self._id)
            except grpc.aio.AioRpcError as error:
                # The lease may be somebody else's by now.  Any other error says nothing about it.
                cancelled = error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
            if cancelled:
                over.set()


async def _tell(worker: Worker, client: Client) -> None:
    told = ""
    while True:
        worker.tally.sent_again = client.sent_again
        line = json.dumps(attrs.asdict(worker.tally))
        if line != told:
            print(line, flush=True)
            told = line
        await asyncio.sleep(TELL_EVERY_S)


async def _input_ends() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def main(address: str, worker_id: str) -> None:
    client = Client(address, actor=worker_id)
    worker = Worker(client, worker_id)
    parts = (worker.run(), _tell(worker, client), _input_ends())
    done, others = await asyncio.wait(map(asyncio.create_task, parts), return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
    await asyncio.wait(others)
    await client.close()
    for part in done:
        part.result()


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    asyncio.run(main(*sys.argv[1:]))
