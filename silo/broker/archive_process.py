"""Makes the files of an archive in a process of its own, so that nobody who is served waits for it.

The broker tells it on standard input what to make, and for a file of events sends the records of the log after that, as
they are; it hears on standard output how far the work is, or what came of it.  The process reads nothing but that and the
archive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from silo.archive.archive import Archive, Record
from silo.archive.files import Image, Stretch
from silo.archive.folder import folder_from
from silo.errors import Corrupt, SiloError, StoreFailed
from silo.events.erasing import Target, Targets
from silo.events.log import first_seq_of, record_key
from silo.shard.beside import Progress
from silo.shard.elsewhere import Home
from silo.shard.seal import make_image, write_stretch

Process = subprocess.Popen[bytes]

NICENESS = 10
TELL_EVERY = 10_000
EXIT_FAILED, EXIT_CORRUPT = 1, 2
FRAME = struct.Struct(">QQ")
"""Before each record: its first sequence number, and its length."""


class InChild:
    """`Maker`, each time in a process that ends with the call.  Raises Corrupt for what it found, else StoreFailed."""

    async def events(
        self, archive: Archive, stretch: Stretch, pages: AsyncIterator[list[Record]], file: Path
    ) -> None:
        child = _Child(
            f"the file of the events {stretch.first} to {stretch.last}",
            file.parent,
            {"first": stretch.first, "last": stretch.last, "file": str(file)},
        )
        await child.run(partial(_send, Home().pulled(pages)))

    async def image(self, archive: Archive, image: Image, directory: Path, progress: Progress) -> None:
        child = _Child(
            f"the image of event {image.seq}",
            directory,
            {
                "folder": archive.folder.described(),
                "seq": image.seq,
                "time_ms": image.time_ms,
                "directory": str(directory),
            },
        )
        await child.run(partial(_listen, progress))

    async def erase(self, archive: Archive, targets: Targets, directory: Path) -> int:
        child = _Child(
            "the archive without what is to be erased",
            directory,
            {
                "folder": archive.folder.described(),
                "erased": [[target.tenant, target.job_id, target.before] for target in targets.each],
            },
        )
        counts: list[int] = []
        await child.run(partial(_listen, counts.append))
        return sum(counts)


def _send(pages: Iterator[list[Record]], process: Process) -> None:
    assert process.stdin is not None
    for page in pages:
        for key, record in page:
            process.stdin.write(FRAME.pack(first_seq_of(key), len(record)) + record)
    process.stdin.close()


def _listen(tell: Callable[[int], None], process: Process) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        tell(int(line))


class _Child:
    """A process that makes something, with a thread that talks to it.

    Not by asyncio: uvloop now and then closes the pipes of a process that has just begun.
    """

    def __init__(self, what: str, directory: Path, wanted: dict[str, Any]) -> None:
        self._what = what
        self._directory = str(directory)
        self._wanted = wanted
        self._process: Process | None = None
        self._is_over = False

    async def run(self, talk: Callable[[Process], None]) -> None:
        """Start it, talk to it, wait for its end.  It is killed if that fails, or is cancelled."""
        try:
            await asyncio.to_thread(self._run, talk)
        finally:
            self._is_over = True
            if self._process is not None:
                self._process.kill()

    def _run(self, talk: Callable[[Process], None]) -> None:
        with tempfile.TemporaryFile() as complaints:
            command = [sys.executable, "-m", __name__]
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                # What it leaves if it is killed goes with the directory.
                env={**os.environ, "TMPDIR": self._directory},
            )
            self._process = process
            # If it has ended, it says why.
            with contextlib.suppress(BrokenPipeError), process:
                try:
                    self._talk(process, talk)
                except BaseException:
                    process.kill()
                    raise
            if process.wait() != 0:
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").split("\n")
                reason = next((line for line in reversed(said) if line), f"exit code {process.returncode}")
                kind = Corrupt if process.returncode == EXIT_CORRUPT else StoreFailed
                raise kind(f"{self._what} could not be made: {reason}")

    def _talk(self, process: Process, talk: Callable[[Process], None]) -> None:
        assert process.stdin is not None
        if self._is_over:
            process.kill()
        process.stdin.write(json.dumps(self._wanted).encode() + b"\n")
        process.stdin.flush()
        talk(process)
        process.wait()


# --- the process itself ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Make what is wanted.  Standard error says in its last line why that failed."""
    os.nice(NICENESS)
    status = 0
    try:
        _make(json.loads(sys.stdin.buffer.readline()))
    except SiloError as error:
        print(error, file=sys.stderr, flush=True)
        status = EXIT_CORRUPT if isinstance(error, Corrupt) else EXIT_FAILED
    sys.stdout.flush()
    # SlateDB and obstore have threads that go on, and may call into an interpreter that is ending.
    os._exit(status)


def _make(wanted: dict[str, Any]) -> None:
    if "first" in wanted:
        stretch = Stretch(wanted["first"], wanted["last"])
        write_stretch(stretch, _records(sys.stdin.buffer), Path(wanted["file"]))
        return
    archive = Archive(folder_from(wanted["folder"]))
    archive.look()
    if "erased" in wanted:
        print(archive.erase(Targets(Target(*each) for each in wanted["erased"])))
    else:
        image = Image(wanted["seq"], wanted["time_ms"])
        asyncio.run(make_image(archive, image, Path(wanted["directory"]), _Told()))


def _records(source: BinaryIO) -> Iterator[list[Record]]:
    while frame := source.read(FRAME.size):
        first_seq, length = FRAME.unpack(frame)
        yield [(record_key(first_seq), source.read(length))]


class _Told(Progress):
    def __call__(self, seq: int) -> None:
        if seq - self.seq >= TELL_EVERY:
            self.seq = seq
            print(seq, flush=True)


if __name__ == "__main__":
    main()
