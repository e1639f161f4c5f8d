"""Makes the files of an image in a process of its own, so that nobody who is served waits for it.

It reads nothing but the archive.  The broker tells it on standard input what to make, and hears on standard output how far
it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from silo.archive.archive import Archive
from silo.archive.files import Image
from silo.archive.folder import folder_from
from silo.errors import StoreFailed
from silo.shard.beside import Progress
from silo.shard.seal import make_image

NICENESS = 10
TELL_EVERY = 10_000


async def in_child(archive: Archive, image: Image, directory: Path, progress: Progress) -> None:
    """`make_image` in a process of its own, which ends with this call.  Raises StoreFailed if it fails."""
    wanted = {
        "folder": archive.folder.described(),
        "seq": image.seq,
        "time_ms": image.time_ms,
        "directory": str(directory),
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    complaints = asyncio.create_task(child.stderr.read(), name="what the maker of an image complains of")
    try:
        child.stdin.write(json.dumps(wanted).encode())
        child.stdin.write_eof()
        async for line in child.stdout:
            progress(int(line))
        if await child.wait() != 0:
            said = (await complaints).decode(errors="replace").split("\n")
            reason = next((line for line in reversed(said) if line), f"exit code {child.returncode}")
            raise StoreFailed(f"the image of event {image.seq} could not be made: {reason}")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        await complaints


def main() -> None:
    """Make one image."""
    os.nice(NICENESS)
    wanted: dict[str, Any] = json.load(sys.stdin)
    archive = Archive(folder_from(wanted["folder"]))
    archive.look()
    progress = _Told()
    asyncio.run(
        make_image(archive, Image(wanted["seq"], wanted["time_ms"]), Path(wanted["directory"]), progress)
    )
    sys.stdout.flush()
    # SlateDB and obstore have threads that go on, and may call into an interpreter that is ending.
    os._exit(0)


class _Told(Progress):
    def __call__(self, seq: int) -> None:
        if seq - self.seq >= TELL_EVERY:
            self.seq = seq
            print(seq, flush=True)


if __name__ == "__main__":
    main()
