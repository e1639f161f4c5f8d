"""A part of a row: a coroutine that runs in a process of its own, started by exec.

The process is `python -m tools.bench.part MODULE:NAME ARGUMENTS`.  It says on standard output, a line of JSON each, how far
it is and at last what it found.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec

import attrs

from silo.server.process import run

ROOT = Path(__file__).resolve().parent.parent.parent

P = ParamSpec("P")
Found = dict[str, Any]
Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class PartFailed(Exception):
    """A part ended without a result; the text ends with what it said last."""


@attrs.define
class Say:
    """How a part tells its parent."""

    out: IO[str]

    def progress(self, done: int, total: int) -> None:
        self._line({"done": done, "total": total})

    def found(self, found: Found) -> None:
        self._line({"found": found})

    def _line(self, said: dict[str, Any]) -> None:
        # If the parent is gone, this raises BrokenPipeError and the part ends.
        print(json.dumps(said), file=self.out, flush=True)


Part = Callable[Concatenate[Say, P], Awaitable[Found]]


def run_part(
    part: Part[P], progress: Progress, errors: Path, /, *args: P.args, **arguments: P.kwargs
) -> Found:
    """Run a part to its end.  A part that kills itself after it has told its result is fine: some are about crashes.

    Args:
        errors: a file for what it says on standard error.
    """
    assert not args, "the arguments of a part have names"
    name = f"{part.__module__}:{part.__name__}"
    found: Found | None = None
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.part", name, json.dumps(arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                if "found" in said:
                    found = said["found"]
                else:
                    progress(said["done"], said["total"])
        finally:
            if found is None and process.poll() is None:
                process.terminate()
            process.wait()
    if found is None:
        last = "\n".join(errors.read_text(errors="replace").splitlines()[-15:])
        raise PartFailed(f"{name} ended with {process.returncode}\n{last}")
    return found


def crash() -> None:
    """End this process as a crash would: nothing is flushed, nothing is closed."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def on_asyncios_own_loop(part: Part[P]) -> Part[P]:
    """For a part that looks into the event loop: it does not run on the server's."""
    part.own_loop = True  # type: ignore[attr-defined]
    return part


async def _run(part: Part[...], arguments: Found, say: Say) -> None:
    # SIGTERM unwinds what is open, such as the server that the part has started.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    say.found(await part(say, **arguments))


def main() -> None:
    say = Say(sys.stdout)
    # Whoever else prints, prints elsewhere.
    sys.stdout = sys.stderr
    module, _, function = sys.argv[1].partition(":")
    part = getattr(importlib.import_module(module), function)
    running = _run(part, json.loads(sys.argv[2]), say)
    if getattr(part, "own_loop", False):
        asyncio.run(running)
    else:
        run(running)


if __name__ == "__main__":
    main()
