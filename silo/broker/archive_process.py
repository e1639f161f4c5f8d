"""Makes the files of an archive in a process of its own, so that nobody who is served waits for it.

The broker tells it on standard input what to make, and for a file of events sends the records of the log after that, as
they are; it hears on standard output how far the work is.  The process reads nothing but that and the archive.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

from silo.archive.archive import Archive, Record
from silo.archive.files import Image, Stretch
from silo.archive.folder import folder_from
from silo.errors import StoreFailed
from silo.events.log import first_seq_of, record_key
from silo.shard.beside import Progress
from silo.shard.seal import make_image, write_stretch

NICENESS = 10
TELL_EVERY = 10_000
FRAME = struct.Struct(">QQ")
"""Before each record: its first sequence number, and its length."""


class InChild:
    """`Maker`, each time in a process that ends with the call.  Raises StoreFailed if that fails."""

    async def events(
        self, archive: Archive, stretch: Stretch, pages: AsyncIterator[list[Record]], file: Path
    ) -> None:
        wanted = {"first": stretch.first, "last": stretch.last, "file": str(file)}
        async with _child(f"the file of the events {stretch.first} to {stretch.last}", wanted) as child:
            assert child.stdin is not None
            try:
                async for page in pages:
                    for key, record in page:
                        child.stdin.write(FRAME.pack(first_seq_of(key), len(record)) + record)
                    await child.stdin.drain()
                child.stdin.close()
            except ConnectionError:
                # It has ended, and says why.
                pass

    async def image(self, archive: Archive, image: Image, directory: Path, progress: Progress) -> None:
        wanted = {
            "folder": archive.folder.described(),
            "seq": image.seq,
            "time_ms": image.time_ms,
            "directory": str(directory),
        }
        async with _child(f"the image of event {image.seq}", wanted) as child:
            assert child.stdout is not None
            async for line in child.stdout:
                progress(int(line))


@asynccontextmanager
async def _child(what: str, wanted: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that makes this; after the block it is waited for.  It is killed if the block fails, or is cancelled."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stderr is not None
    complaints = asyncio.create_task(child.stderr.read(), name=f"what the maker of {what} complains of")
    try:
        child.stdin.write(json.dumps(wanted).encode() + b"\n")
        yield child
        if await child.wait() != 0:
            said = (await complaints).decode(errors="replace").split("\n")
            reason = next((line for line in reversed(said) if line), f"exit code {child.returncode}")
            raise StoreFailed(f"{what} could not be made: {reason}")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        await complaints


# --- the process itself ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Make what is wanted."""
    os.nice(NICENESS)
    wanted: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    if "first" in wanted:
        stretch = Stretch(wanted["first"], wanted["last"])
        write_stretch(stretch, _records(sys.stdin.buffer), Path(wanted["file"]))
    else:
        archive = Archive(folder_from(wanted["folder"]))
        archive.look()
        image = Image(wanted["seq"], wanted["time_ms"])
        asyncio.run(make_image(archive, image, Path(wanted["directory"]), _Told()))
    sys.stdout.flush()
    # SlateDB and obstore have threads that go on, and may call into an interpreter that is ending.
    os._exit(0)


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
