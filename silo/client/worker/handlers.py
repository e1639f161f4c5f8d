"""How a handler is called: on the event loop, in a thread or in a process, and what becomes of how it ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import multiprocessing
import traceback
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import attrs

from silo.client.payloads import Codec
from silo.client.worker.task import Task
from silo.pb import silo_pb2 as pb

Call: TypeAlias = Callable[[Task], Awaitable[Any]]
Middleware: TypeAlias = Callable[[Task, Call], Awaitable[Any]]

ERROR_TEXT_CHARS_MAX = 8_000

OURS = (str(Path(__file__).parent), str(Path(concurrent.futures.__file__).parent), asyncio.__path__[0])
"""Where the functions are that call a handler."""


class Mode(Enum):
    """Where a handler runs."""

    ASYNC = "async"
    """On the event loop: an `async def`."""

    THREAD = "thread"
    """In a thread: a function that waits for files, networks, databases."""

    PROCESS = "process"
    """In a process of its own, for work that keeps a processor busy.  The function must be importable, and gets the payload
    alone."""


@attrs.frozen(kw_only=True)
class Handler:
    """A function that does the work of a task group."""

    task_group: str
    function: Callable[..., Any]
    mode: Mode
    concurrency: int
    takes_task: bool


def handler_of(
    function: Callable[..., Any], *, task_group: str, mode: str | None, concurrency: int
) -> Handler:
    """Look at a function: where it is to run, and whether it wants the task besides the payload.

    Raises:
        TypeError: it takes no payload, or more than payload and task.
        ValueError: it cannot run in this mode.
    """
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    chosen = Mode(mode) if mode is not None else Mode.ASYNC if is_async else Mode.THREAD
    if is_async != (chosen is Mode.ASYNC):
        kind = (
            "an async function runs on the event loop"
            if is_async
            else "a plain function runs in a thread or process"
        )
        raise ValueError(f"{name}: {kind}, not in mode {chosen.value!r}")
    positional = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        and (each.default is each.empty or each.name == "task")
    ]
    most = 1 if chosen is Mode.PROCESS else 2
    if not 1 <= len(positional) <= most:
        wants = "the payload" if chosen is Mode.PROCESS else "the payload, or the payload and the task"
        raise TypeError(f"{name}: a handler in mode {chosen.value!r} takes {wants}")
    return Handler(
        task_group=task_group,
        function=function,
        mode=chosen,
        concurrency=concurrency,
        takes_task=len(positional) == 2,
    )


class Pools:
    """The threads and processes that handlers run in, made when the first one needs them."""

    def __init__(self) -> None:
        # By task group, each of which has one handler.
        self._pools: dict[str, concurrent.futures.Executor] = {}

    def of(self, handler: Handler) -> concurrent.futures.Executor:
        pool = self._pools.get(handler.task_group)
        if pool is None:
            if handler.mode is Mode.THREAD:
                pool = concurrent.futures.ThreadPoolExecutor(
                    handler.concurrency, f"silo {handler.task_group}"
                )
            else:
                # Not fork: it would copy threads' locks without the threads.
                pool = concurrent.futures.ProcessPoolExecutor(
                    handler.concurrency, multiprocessing.get_context("spawn")
                )
            self._pools[handler.task_group] = pool
        return pool

    def renew(self, handler: Handler) -> None:
        """One of its processes has died, and with that the pool."""
        pool = self._pools.pop(handler.task_group, None)
        if pool is not None:
            pool.shutdown(wait=False)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


class Exited(Exception):
    """A handler has called `sys.exit`.  It ends its attempt, not the worker."""


async def call(handler: Handler, task: Task, pools: Pools) -> Any:
    """Run a handler on a task.  Returns what it returns, raises what it raises."""
    try:
        return await _call(handler, task, pools)
    except SystemExit as error:
        raise Exited(f"the handler called sys.exit({error.code!r})") from error


async def _call(handler: Handler, task: Task, pools: Pools) -> Any:
    arguments = (task.payload, task) if handler.takes_task else (task.payload,)
    if handler.mode is Mode.ASYNC:
        return await handler.function(*arguments)
    loop = asyncio.get_running_loop()
    if handler.mode is Mode.THREAD:
        run = functools.partial(contextvars.copy_context().run, handler.function, *arguments)
        return await loop.run_in_executor(pools.of(handler), run)
    try:
        return await loop.run_in_executor(pools.of(handler), handler.function, *arguments)
    except concurrent.futures.process.BrokenProcessPool:
        pools.renew(handler)
        raise


def success(value: Any, codec: Codec) -> pb.ReportOutcomeRequest:
    """What to report for a handler that has returned.  Raises what the codec raises."""
    return pb.ReportOutcomeRequest(success=pb.SerializedBytes(msgpack=codec.encode(value)))


def failure(error: BaseException, codec: Codec) -> pb.ReportOutcomeRequest:
    """What to report for a handler that has failed: the error's class as the code, its text and trace as the data."""
    trace = "".join(traceback.format_exception(type(error), error, _of_handler(error)))[
        -ERROR_TEXT_CHARS_MAX:
    ]
    data = {"message": str(error)[:ERROR_TEXT_CHARS_MAX], "traceback": trace}
    try:
        packed = codec.encode(data)
    except (TypeError, ValueError):
        packed = str(error).encode()
    return pb.ReportOutcomeRequest(
        failure=pb.Failure(code=type(error).__name__, data=pb.SerializedBytes(msgpack=packed))
    )


def _of_handler(error: BaseException) -> TracebackType | None:
    """An error's trace from the handler on, or from a middleware: how it was called tells nobody anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OURS):
        trace = trace.tb_next
    return trace or error.__traceback__


def cancelled() -> pb.ReportOutcomeRequest:
    """What to report for a handler that has stopped because it was to."""
    return pb.ReportOutcomeRequest(cancelled=pb.Cancelled())
