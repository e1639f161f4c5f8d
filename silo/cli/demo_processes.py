"""The processes of the demo: a broker and some workers, all started here and all stopped here, by their ids.

They are programs of their own, started by exec.  Each is the leader of a group, so that Ctrl-C reaches the demo alone, which
then stops them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import attrs

Reply = TypeVar("Reply")

STOP_S = 8.0
LAST_LINES = 5


class DemoFailed(Exception):
    """Something is not as promised; the text says what."""


@attrs.define
class Started:
    """One process, and the file that has what it says on standard error."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    told_to_end: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    def why_ended(self) -> DemoFailed:
        """The error for a process that has ended by itself."""
        last = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        said = "".join(f"\n    {line}" for line in last)
        return DemoFailed(
            f"{self.name} (pid {self.pid}) ended with exit code {self.process.returncode}; {self.log} ends with:{said}"
        )

    async def guard(self) -> None:
        """Wait for the end of the process.  Raises DemoFailed if it was not told to end."""
        await self.process.wait()
        if not self.told_to_end:
            raise self.why_ended()

    async def or_ended(self, work: Awaitable[Reply]) -> Reply:
        """What `work` returns.  Raises DemoFailed if the process ends first."""
        working, ending = asyncio.ensure_future(work), asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait([working, ending], return_when=asyncio.FIRST_COMPLETED)
            if ending.done() and not working.done():
                raise self.why_ended()
            return await working
        finally:
            ending.cancel()
            working.cancel()

    async def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed, nothing saved."""
        self.told_to_end = True
        self.process.kill()
        await self.process.wait()

    async def stop(self, ask: Callable[[asyncio.subprocess.Process], None]) -> int:
        """Ask the process to end, and kill it if it does not.  Returns its exit code."""
        self.told_to_end = True
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                ask(self.process)
        try:
            return await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            await self.kill()
            return self.process.returncode or 0


class Processes:
    """Starts the processes of one demo.

    Attributes:
        broker: the one that runs, or ran last.
    """

    broker: Started

    def __init__(self, home: Path) -> None:
        self.workers: list[Started] = []
        self._home = home
        self._brokers: list[Started] = []

    async def start_broker(self, config: Path) -> Started:
        """A broker, which does not serve yet."""
        arguments = ("-m", "silo.cli.main", "serve", "-c", str(config))
        self.broker = await self._start("the broker", "broker.log", arguments, asyncio.subprocess.DEVNULL)
        self._brokers.append(self.broker)
        return self.broker

    async def start_worker(self, address: str, worker_id: str) -> Started:
        """A worker; it tells on standard output what it has done."""
        arguments = ("-m", "silo.cli.demo_worker", address, worker_id)
        worker = await self._start(worker_id, f"{worker_id}.log", arguments, asyncio.subprocess.PIPE)
        self.workers.append(worker)
        return worker

    async def _start(self, name: str, log: str, arguments: tuple[str, ...], pipe: int) -> Started:
        path = self._home / log
        with path.open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=pipe,
                stdout=pipe,
                stderr=said,
                process_group=0,
            )
        return Started(name, process, path)

    async def stop_workers(self) -> None:
        """Workers end when their standard input does."""
        await asyncio.gather(*(worker.stop(_close_input) for worker in self.workers))

    async def stop_broker(self) -> int:
        """SIGTERM, as an operator would.  Returns the exit code."""
        return await self.broker.stop(lambda process: process.terminate())

    async def stop_all(self) -> None:
        """Whatever still runs."""
        await self.stop_workers()
        for broker in self._brokers:
            await broker.stop(lambda process: process.terminate())


def _close_input(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()


@contextlib.asynccontextmanager
async def processes(home: Path) -> AsyncIterator[Processes]:
    """Processes that end with the block, whatever ends it."""
    made = Processes(home)
    try:
        yield made
    finally:
        await asyncio.shield(made.stop_all())
