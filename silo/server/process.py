"""One node as the whole process: from its start to a signal, or to an error that ends it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import uvloop

from silo.server.node import Node
from silo.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, on uvloop's event loop: a call over gRPC costs a twelfth less there."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def serve(settings: Settings) -> int:
    """Run a node until SIGINT or SIGTERM.

    Returns the exit code: 0 after a signal, 1 if the node could not go on.  Raises what `Node.start` raises.
    """
    _spare_memory()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)

    node = Node(settings)
    asking = asyncio.create_task(asked.wait(), name="signal")
    failing = asyncio.create_task(node.failed.wait(), name="failure")
    starting = asyncio.create_task(node.start(), name="start")
    try:
        await asyncio.wait([starting, asking], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
            return 0
        await starting
        _spare_the_collector()
        await asyncio.wait([asking, failing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        asking.cancel()
        failing.cancel()

    logger.info("server stops")
    failure = node.failure
    await node.stop()
    if failure:
        logger.error("server stopped: %s", failure)
        return 1
    logger.info("server stopped")
    return 0


def leave(code: int) -> NoReturn:
    """End the process, now that its node has stopped.

    Not by `sys.exit`: SlateDB and obstore have threads that go on, and one that calls into an interpreter which is
    just ending aborts the process, which then ends with 134 and a core dump whatever the code should be.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _spare_memory() -> None:
    """Keep the C library from giving each of SlateDB's threads a heap: with a long backlog that comes to 150 MB."""
    m_arena_max = -8
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Only glibc has it, and only glibc needs it.
    if mallopt is not None:
        mallopt(m_arena_max, 2)


def _spare_the_collector() -> None:
    """Rows live long and hold no cycles, so looking through them again and again for garbage would only cost time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
