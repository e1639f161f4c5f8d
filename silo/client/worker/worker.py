"""A worker: the handlers of one or more task groups, and what runs them.

Two threads share the work.  The one that calls `run` has the event loop of the handlers.  The other has the wire (link.py),
so that leases are kept while a handler blocks its loop.  They speak through mailboxes (mailbox.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import attrs

from silo.client.client import AsyncClient
from silo.client.connection import addresses_of
from silo.client.errors import ClientError, LeaseLost
from silo.client.payloads import Codec
from silo.client.sync import LoopThread
from silo.client.tracing import working_on
from silo.client.values import moment
from silo.client.worker import handlers
from silo.client.worker.handlers import Call, Handler, Middleware, Mode, Pools, handler_of
from silo.client.worker.link import Link
from silo.client.worker.mailbox import Mailbox
from silo.client.worker.metrics import Metrics
from silo.client.worker.task import Cancelled, Refresh, Task, current
from silo.pb import silo_pb2 as pb

logger = logging.getLogger("silo.worker")

F = TypeVar("F", bound=Callable[..., Any])

CONCURRENCY = 16
DRAIN_S = 30.0


class Worker:
    """Does the jobs of one or more task groups.

        worker = Worker("127.0.0.1:7450")

        @worker.task("emails")
        async def send(payload):
            ...

        worker.main()

    Args:
        broker: a client, whose connection settings and codec the worker takes over; or what `AsyncClient` takes as address.
        worker_id: its name in events and SQL; None: of this host and process.
        concurrency: how many tasks of a group at once, unless `task` says otherwise.
        drain_s: how long tasks that run when it is told to stop may still take, in seconds.

    Attributes:
        metrics: what it has done so far, by task group.
    """

    def __init__(
        self,
        broker: AsyncClient | str | Sequence[str] | None = None,
        *,
        worker_id: str | None = None,
        concurrency: int = CONCURRENCY,
        drain_s: float = DRAIN_S,
    ) -> None:
        self.client = broker if isinstance(broker, AsyncClient) else AsyncClient(broker)
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.metrics: dict[str, Metrics] = {}
        self._concurrency = concurrency
        self._drain_s = drain_s
        self._handlers: dict[str, Handler] = {}
        self._refreshers: dict[str, Callable[[Refresh], Any]] = {}
        self._middlewares: list[Middleware] = []
        self._groups: list[_Group] = []
        self._stopping: asyncio.Event | None = None
        self._left_behind = False

    # --- what it does ----------------------------------------------------------------------------------------------------

    def task(
        self, task_group: str, *, concurrency: int | None = None, mode: str | None = None
    ) -> Callable[[F], F]:
        """Make a function, or an object that can be called, the handler of a task group.

        It gets the payload, and if it has a second parameter the `Task`.  What it returns is the job's result.  What it
        raises is the failure of the attempt, with the name of the error's class as its code.

        Args:
            concurrency: how many of its tasks at once.
            mode: `async` for an `async def`, `thread` for others (both by themselves), or `process`, see `Mode`.

        Raises:
            ValueError, TypeError: the group has a handler, or the function cannot be one.
        """
        if task_group in self._handlers:
            raise ValueError(f"the task group {task_group!r} has a handler already")

        def register(function: F) -> F:
            self._handlers[task_group] = handler_of(
                function,
                task_group=task_group,
                mode=mode,
                concurrency=concurrency if concurrency is not None else self._concurrency,
            )
            self.metrics[task_group] = Metrics()
            return function

        return register

    def refresh(self, task_group: str) -> Callable[[F], F]:
        """Make a function the one that finds out the maxima of floating limits of this group's jobs.

        It gets a `Refresh`, and returns the maximum.
        """

        def register(function: F) -> F:
            self._refreshers[task_group] = function
            return function

        return register

    def middleware(self, function: Middleware) -> Middleware:
        """Put a function around every handler: `async def around(task, call): return await call(task)`.

        The first one that is registered is the outermost.
        """
        self._middlewares.append(function)
        return function

    # --- running ---------------------------------------------------------------------------------------------------------

    def connect_to(self, address: str | Sequence[str]) -> None:
        """Take another broker, with the same token, certificates and codec.  Raises ValueError if an address is none."""
        self.client.options = attrs.evolve(self.client.options, addresses=addresses_of(address))

    def main(self, beside: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Run until SIGINT or SIGTERM, then let what runs end; a second signal ends it at once.  Returns when it has.

        Args:
            beside: runs on the same event loop meanwhile, such as a view; it is cancelled at the end.
        """
        try:
            asyncio.run(self._until_signal(beside))
        except KeyboardInterrupt:
            sys.exit(130)
        if self._left_behind:
            # A thread that did not end in time would keep the process; nobody can end it otherwise.
            logging.shutdown()
            os._exit(1)

    async def _until_signal(self, beside: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        loop = asyncio.get_running_loop()
        told = False

        def stop(number: int) -> None:
            nonlocal told
            if told:
                os._exit(128 + number)
            told = True
            logger.info("stopping: no new tasks; those that run have %g s", self._drain_s)
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        other = asyncio.create_task(beside()) if beside is not None else None
        try:
            await self.run()
        finally:
            if other is not None:
                other.cancel()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def run(self) -> None:
        """Run until `stop`, then until what runs has ended, at most `drain_s`.

        Raises:
            ClientError: the broker refuses this worker, say for its token.
            ValueError: it has no handlers.
        """
        if not self._handlers:
            raise ValueError("a worker needs a handler: @worker.task('a task group')")
        self._stopping = asyncio.Event()
        pools = Pools()
        wire = LoopThread(f"silo worker {self.worker_id}")
        calls = wire.run(_calls_of(self.client))
        self._groups = [
            _Group(self, handler, self._refreshers.get(group), calls, wire, pools)
            for group, handler in self._handlers.items()
        ]
        logger.info(
            "worker %s does %s at %s",
            self.worker_id,
            ", ".join(self._handlers),
            ", ".join(self.client.options.addresses),
        )
        running: list[asyncio.Task[Any]] = [asyncio.create_task(group.run()) for group in self._groups]
        stopping: asyncio.Task[Any] = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
            for group in self._groups:
                group.drain()
            _, late = await asyncio.wait(running, timeout=self._drain_s)
            if late:
                left = sum(len(group.at_work) for group in self._groups)
                self._left_behind = True
                logger.warning(
                    "%d tasks did not end in time; other workers get them when their leases end", left
                )
            for task in running:
                if task.done():
                    task.result()
        finally:
            for task in (stopping, *running):
                task.cancel()
            await asyncio.wait([stopping, *running])
            for group in self._groups:
                group.close()
            await asyncio.to_thread(wire.run, calls.close())
            wire.close()
            pools.close()

    def stop(self) -> None:
        """Take no more tasks, and let `run` return when those that run have ended.  On the event loop of `run`."""
        if self._stopping is not None:
            self._stopping.set()

    def wrapped(self, inner: Call) -> Call:
        """A call with all middlewares around it."""
        for middleware in reversed(self._middlewares):
            inner = partial(_through, middleware, inner)
        return inner


async def _calls_of(client: AsyncClient) -> Any:
    return client.calls


async def _through(middleware: Middleware, inner: Call, task: Task) -> Any:
    return await middleware(task, inner)


class _Group:
    """One task group of a worker at work: the receiver of its link.

    Attributes:
        at_work: the tasks whose handlers run, with what runs them.
    """

    def __init__(
        self,
        worker: Worker,
        handler: Handler,
        refresher: Callable[[Refresh], Any] | None,
        calls: Any,
        wire: LoopThread,
        pools: Pools,
    ) -> None:
        self.at_work: dict[str, tuple[Task, asyncio.Task[None]]] = {}
        self._worker = worker
        self._codec: Codec = worker.client.codec
        self._handler = handler
        self._refresher = refresher
        self._pools = pools
        self._metrics = worker.metrics[handler.task_group]
        self._call = worker.wrapped(self._call_handler)
        self._refreshing: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(handler.concurrency)
        self._here = Mailbox(asyncio.get_running_loop())
        self._wire = wire
        self._there = Mailbox(wire.loop)
        self._calls = calls
        self._link: Link | None = None

    # --- life; on the loop of the handlers -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until drained.  Raises ClientError if the broker refuses the worker."""
        future = asyncio.run_coroutine_threadsafe(self._run_link(), self._wire.loop)
        await asyncio.wrap_future(future)

    async def _run_link(self) -> None:
        # On the wire's loop, where the link lives.
        self._link = Link(
            self._calls,
            self,
            worker_id=self._worker.worker_id,
            task_group=self._handler.task_group,
            capacity=self._handler.concurrency,
        )
        await self._link.run()

    def drain(self) -> None:
        self._there.send(self._drain_link)

    def _drain_link(self) -> None:
        if self._link is not None:
            self._link.drain()

    def close(self) -> None:
        """End the handlers that still run."""
        for _, running in self.at_work.values():
            running.cancel()
        for refreshing in self._refreshing:
            refreshing.cancel()

    # --- from the link, in its thread ------------------------------------------------------------------------------------

    def tasks(self, tasks: Iterable[pb.Task]) -> None:
        self._here.send(self._begin, tasks)

    def refreshes(self, refreshes: Iterable[pb.RefreshFloatingLimitTask]) -> None:
        self._here.send(self._begin_refreshes, refreshes)

    def reported(self, task_id: str, error: ClientError | None) -> None:
        if error is not None:
            self._here.send(self._note_unreported, task_id, error)

    def over(self, task_id: str, *, lost: bool) -> None:
        self._here.send(self._end, task_id, lost)

    # --- handlers --------------------------------------------------------------------------------------------------------

    def _begin(self, messages: Iterable[pb.Task]) -> None:
        for message in messages:
            task = Task.of(message)
            running = asyncio.create_task(self._work(task), name=f"job {task.job_id}")
            self.at_work[task.id] = task, running

    def _end(self, task_id: str, lost: bool) -> None:
        """The work is no longer wanted."""
        if task_id not in self.at_work:
            if lost:
                self._tell("drop", task_id)
            return
        task, _ = self.at_work[task_id]
        task.end(lost=lost)

    def _tell(self, what: str, *arguments: Any) -> None:
        assert self._link is not None
        self._there.send(getattr(self._link, what), *arguments)

    async def _work(self, task: Task) -> None:
        metrics = self._metrics
        report: pb.ReportOutcomeRequest | None = None
        began_s = time.monotonic()
        async with self._room:
            metrics.running += 1
            try:
                report = await self._outcome(task)
            finally:
                metrics.running -= 1
                metrics.busy_s += time.monotonic() - began_s
                self.at_work.pop(task.id, None)
                self._tell("done", task.id)
        fields = {"job_id": task.job_id, "tenant": task.tenant, "attempt": task.attempt, "task_id": task.id}
        if task.is_lost:
            metrics.lost += 1
            logger.warning("lost the lease of job %s, attempt %d", task.job_id, task.attempt, extra=fields)
            self._tell("drop", task.id)
            return
        match report.WhichOneof("outcome"):
            case "success":
                metrics.succeeded += 1
                logger.debug("job %s succeeded", task.job_id, extra=fields)
            case "cancelled":
                metrics.cancelled += 1
                logger.info("job %s was cancelled", task.job_id, extra=fields)
            case _:
                metrics.failed += 1
        report.task_id = task.id
        self._tell("report", report)

    async def _outcome(self, task: Task) -> pb.ReportOutcomeRequest:
        """Call the handler.  Returns what is to be reported."""
        token = current.set(task)
        try:
            task.payload = self._codec.decode(task.message.payload.msgpack)
            task.check()
            return handlers.success(await self._called(task), self._codec)
        except Exception as error:
            # Whatever goes wrong in the work is its outcome.
            if isinstance(error, Cancelled) and task.is_cancelled:
                return handlers.cancelled()
            logger.warning(
                "job %s failed in attempt %d%s: %s: %s",
                task.job_id,
                task.attempt,
                " (the last one)" if task.is_last_attempt else "",
                type(error).__name__,
                error,
                exc_info=logger.isEnabledFor(logging.DEBUG),
                extra={"job_id": task.job_id, "tenant": task.tenant, "attempt": task.attempt},
            )
            return handlers.failure(error, self._codec)
        finally:
            current.reset(token)

    async def _called(self, task: Task) -> Any:
        """Run middlewares and handler; end an async handler by a cancellation when its work is no longer wanted."""
        running = asyncio.ensure_future(self._traced(task))
        # Nobody can end a thread: it looks by itself, and what it does is waited for.
        if self._handler.mode is Mode.ASYNC:
            task.when_over(running.cancel)
        this = asyncio.current_task()
        assert this is not None
        try:
            return await running
        except asyncio.CancelledError:
            if this.cancelling():
                running.cancel()
                raise
            # Of the handler: either it was to stop, or it has cancelled itself, which is a failure like any other.
            raise Cancelled("the handler was cancelled") from None

    async def _traced(self, task: Task) -> Any:
        attributes = {"silo.job_id": task.job_id, "silo.attempt": task.attempt}
        with working_on(f"{task.task_group} process", task.metadata, attributes):
            return await self._call(task)

    async def _call_handler(self, task: Task) -> Any:
        return await handlers.call(self._handler, task, self._pools)

    def _note_unreported(self, task_id: str, error: ClientError) -> None:
        self._metrics.unreported += 1
        if isinstance(error, LeaseLost):
            logger.warning("task %s ended too late: its lease was lost before the report", task_id)
        else:
            logger.error("the broker did not take the report of task %s: %s", task_id, error)

    # --- floating limits -------------------------------------------------------------------------------------------------

    def _begin_refreshes(self, messages: Iterable[pb.RefreshFloatingLimitTask]) -> None:
        for message in messages:
            running = asyncio.create_task(self._refresh(message), name=f"refresh {message.queue_key}")
            self._refreshing.add(running)
            running.add_done_callback(self._refreshing.discard)

    async def _refresh(self, message: pb.RefreshFloatingLimitTask) -> None:
        report = pb.ReportRefreshOutcomeRequest(task_id=message.id)
        refresh = Refresh(
            key=message.queue_key,
            tenant=message.tenant_id if message.HasField("tenant_id") else None,
            task_group=message.task_group,
            maximum=message.current_max_concurrency,
            refreshed_at=moment(message.last_refreshed_at_ms),
            metadata=dict(message.metadata),
        )
        try:
            report.success.new_max_concurrency = await self._maximum(refresh)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the outcome
            logger.warning("cannot find out the maximum of %s: %s", refresh.key, error)
            report.failure.code, report.failure.message = type(error).__name__, str(error)
        self._tell("report", report)

    async def _maximum(self, refresh: Refresh) -> int:
        if self._refresher is None:
            raise NotImplementedError(
                f"this worker has no @worker.refresh({refresh.task_group!r}), which finds out maxima"
            )
        found = self._refresher(refresh)
        return int(await found if isinstance(found, Awaitable) else found)


@contextlib.asynccontextmanager
async def running(worker: Worker) -> Any:
    """Run a worker for as long as the block lasts; then let it finish what it has."""
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task
