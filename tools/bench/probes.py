"""What is read from outside: memory, time of the processor, stalls of the event loop, objects written, percentiles."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs

from silo.storage.database import Database, Row

LOOK_EVERY_S = 0.5


def memory_mb(pid: int | str = "self") -> tuple[float, float]:
    """What a process has in memory, and the most that it ever had."""
    now = most = 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            mb = int(value.split()[0]) * 1024 / 1e6
            now, most = (mb, most) if name == "VmRSS" else (now, mb)
    return now, most


def processor_s(pid: int) -> float:
    """The time that a process has spent on processors, all of its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


# --- objects written -----------------------------------------------------------------------------------------------------


@attrs.define
class Objects:
    """Objects that appeared below a directory, or changed, by the folder that they lie in.

    On an object store each is a PUT.
    """

    written: dict[str, int] = attrs.field(factory=dict)

    @property
    def total(self) -> int:
        return sum(self.written.values())

    def __str__(self) -> str:
        return ", ".join(f"{folder} {count}" for folder, count in sorted(self.written.items())) or "none"


@asynccontextmanager
async def objects_written(directory: str) -> AsyncIterator[Objects]:
    """Count from here to the end of the block.  No file lives shorter than we look (SlateDB keeps them for 10 s)."""
    objects = Objects()
    known = _files(directory)

    def look() -> None:
        for path, about in _files(directory).items():
            if known.get(path) != about:
                known[path] = about
                folder = os.path.basename(os.path.dirname(path))
                folder = (
                    folder if folder in ("wal", "manifest", "compacted", "compactions", "gc") else "other"
                )
                objects.written[folder] = objects.written.get(folder, 0) + 1

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            look()

    looking = asyncio.create_task(keep_looking(), name="objects")
    try:
        yield objects
    finally:
        looking.cancel()
        look()


def _files(directory: str) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            # "x#1" is one that is still being written.
            if "#" not in name and name.endswith((".sst", ".manifest", ".compactions", ".boundary")):
                try:
                    about = os.stat(path)
                except FileNotFoundError:
                    continue
                found[path] = (about.st_mtime_ns, about.st_size)
    return found


# --- stalls --------------------------------------------------------------------------------------------------------------


@attrs.define
class Stalls:
    """The longest that the event loop was kept from everything else, and by whom.

    Attributes:
        step_ms: the longest step of one task (or callback), without a turn for others.
        collector_ms: the longest run of Python's garbage collector; it counts in a step as well.
    """

    step_ms: float = 0.0
    step: str = ""
    over_20_ms: int = 0
    collector_ms: float = 0.0


@contextmanager
def stalls_noted() -> Iterator[Stalls]:
    """Time each step of the event loop, which must be asyncio's own; that costs about half a microsecond each."""
    stalls = Stalls()
    # Through Any: what we change here is nobody's interface.
    handles: Any = asyncio.Handle
    clock, run = time.perf_counter, handles._run
    collecting = 0.0

    def timed(handle: Any) -> None:
        began = clock()
        run(handle)
        took_ms = (clock() - began) * 1000
        if took_ms > stalls.step_ms:
            stalls.step_ms, stalls.step = took_ms, _name(handle)
        if took_ms > 20:
            stalls.over_20_ms += 1

    def collector(phase: str, _: dict[str, int]) -> None:
        nonlocal collecting
        if phase == "start":
            collecting = clock()
        else:
            stalls.collector_ms = max(stalls.collector_ms, (clock() - collecting) * 1000)

    handles._run = timed
    gc.callbacks.append(collector)
    try:
        yield stalls
    finally:
        handles._run = run
        gc.callbacks.remove(collector)


def _name(handle: Any) -> str:
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return owner.get_name()
    return getattr(callback, "__qualname__", repr(callback))


# --- reads of the database -----------------------------------------------------------------------------------------------


@attrs.define
class Reads:
    """What a shard has asked of its database."""

    gets: int = 0
    scans: int = 0
    rows_scanned: int = 0

    def count(self, database: Database) -> Database:
        """Let a database count here from now on."""
        get, scan = database.get, database.scan

        async def counted_get(key: bytes) -> bytes | None:
            self.gets += 1
            return await get(key)

        async def counted_scan(first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
            rows = await scan(first, end, limit=limit, reverse=reverse)
            self.scans += 1
            self.rows_scanned += len(rows)
            return rows

        database.get = counted_get  # type: ignore[method-assign]
        database.scan = counted_scan  # type: ignore[method-assign]
        return database
