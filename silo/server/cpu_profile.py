"""Where does this process spend its CPU time?  A sampling profiler, whose answer pprof can read.

A thread looks at all others many times a second.  To the stack that it sees in each it ascribes the CPU time that the
thread has used since the last look, as the kernel counts it; a thread that only waits has used none and is left out.
A look needs Python's lock.  Left to itself it would get that only where a thread lets go of it to wait, and would see no
calculation that is done within 5 ms; so while a profile is made, Python is told to hand the lock over at once.

Threads of SlateDB and gRPC that run no Python have no stack that could be seen.  What they have used is told as one sum.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType

import attrs

from silo.errors import NotSupported
from silo.pb import pprof_pb2 as pprof

SECONDS, SECONDS_MAX = 30, 300
HZ, HZ_MAX = 100, 1_000

SWITCH_S = 50e-6
"""How long a thread may keep Python's lock from the one that looks."""

DEPTH_MAX = 200
"""Calls of one stack that are kept, from the innermost outwards."""

NATIVE = "(threads without Python)"


@attrs.frozen
class Site:
    """A line at which a function was at work."""

    module: str
    code: CodeType
    line: int


@attrs.frozen
class Stack:
    """The calls of a thread, the innermost first."""

    thread: str
    sites: tuple[Site, ...]


@attrs.define
class Used:
    """How often a stack was seen at work, and the CPU time that it used."""

    looks: int = 0
    cpu_ns: int = 0


@attrs.frozen(kw_only=True)
class CpuProfile:
    """A profile that is done.  `pprof` is its bytes, not compressed; `looks` counts the stacks seen at work."""

    pprof: bytes
    looks: int


def within_bounds(seconds: int, frequency: int) -> tuple[int, int]:
    """What a caller gets who asks for so many seconds, and looks a second; 0 asks for what is usual."""
    return min(seconds or SECONDS, SECONDS_MAX), min(frequency or HZ, HZ_MAX)


async def record(*, seconds: float, frequency: int) -> CpuProfile:
    """Watch this process.  A caller that is cancelled ends it at once.

    Args:
        seconds: for how long.
        frequency: looks a second.

    Raises NotSupported where the kernel does not count for each thread.
    """
    if sys.platform != "linux":
        raise NotSupported("CPU profiles need Linux; py-spy can attach to the process")
    sampler = Sampler(frequency)
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        return await asyncio.to_thread(sampler.run, seconds)
    finally:
        sampler.stopped.set()
        sys.setswitchinterval(usual_s)


class Sampler:
    """Watches the threads of this process, until it is `stopped` or its time is over."""

    def __init__(self, frequency: int) -> None:
        self.stopped = threading.Event()
        self._period_ns = 1_000_000_000 // frequency
        self._used: dict[Stack, Used] = {}
        self._clocks: dict[int, int] = {}

    def run(self, seconds: float) -> CpuProfile:
        """Watch for so long; in a thread of its own, which is watched, too."""
        began_at_ns, began_ns, process_ns = time.time_ns(), time.monotonic_ns(), time.process_time_ns()
        ends_ns = began_ns + round(seconds * 1e9)
        self._look()
        self._used.clear()
        looks = 0
        while (now_ns := time.monotonic_ns()) < ends_ns:
            # Looks that were missed, as Python's lock was held, are not made up for.
            looks = max(looks + 1, (now_ns - began_ns) // self._period_ns)
            next_ns = min(began_ns + looks * self._period_ns, ends_ns)
            if self.stopped.wait(max(next_ns - now_ns, 0) / 1e9):
                break
            self._look()
        python_ns = sum(used.cpu_ns for used in self._used.values())
        return CpuProfile(
            pprof=_Writer().written(
                self._used,
                native_ns=time.process_time_ns() - process_ns - python_ns,
                period_ns=self._period_ns,
                began_at_ns=began_at_ns,
                took_ns=time.monotonic_ns() - began_ns,
            ),
            looks=sum(used.looks for used in self._used.values()),
        )

    def _look(self) -> None:
        frames = sys._current_frames()
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if frame is None or thread.native_id is None:
                continue
            cpu_ns = self._used_since(thread.native_id)
            if cpu_ns > 0:
                used = self._used.setdefault(Stack(thread.name, tuple(_sites(frame))), Used())
                used.looks += 1
                used.cpu_ns += cpu_ns

    def _used_since(self, thread_id: int) -> int:
        """The CPU time of a thread since the last look, in nanoseconds."""
        try:
            # The kernel's clock of a thread by its id.  Python would make one from the handle of the C library, which
            # crashes the process if the thread has ended meanwhile.
            now_ns = time.clock_gettime_ns((~thread_id << 3) | 6)
        except OSError:
            return 0
        before_ns = self._clocks.get(thread_id, 0)
        self._clocks[thread_id] = now_ns
        return now_ns - before_ns


def _sites(frame: FrameType | None) -> Iterator[Site]:
    for _ in range(DEPTH_MAX):
        if frame is None:
            break
        yield Site(frame.f_globals.get("__name__", "?"), frame.f_code, frame.f_lineno or 0)
        frame = frame.f_back


class _Writer:
    """Makes pprof's form of a profile, in which every text, function and line stands once."""

    def __init__(self) -> None:
        self._profile = pprof.Profile()
        self._texts: dict[str, int] = {}
        self._functions: dict[tuple[str, str, int], int] = {}
        self._locations: dict[tuple[int, int], int] = {}
        self._text("")

    def written(
        self, used: dict[Stack, Used], *, native_ns: int, period_ns: int, began_at_ns: int, took_ns: int
    ) -> bytes:
        profile = self._profile
        nanoseconds = self._type("cpu", "nanoseconds")
        profile.sample_type.extend((self._type("samples", "count"), nanoseconds))
        profile.period_type.CopyFrom(nanoseconds)
        profile.period, profile.time_nanos, profile.duration_nanos = period_ns, began_at_ns, took_ns
        thread = self._text("thread")
        for stack, what in used.items():
            profile.sample.add(
                location_id=map(self._location_of, stack.sites),
                value=(what.looks, what.cpu_ns),
                label=[pprof.Label(key=thread, str=self._text(stack.thread))],
            )
        if native_ns > 0:
            profile.sample.add(location_id=[self._location(NATIVE, "", 0, 0)], value=(0, native_ns))
        return profile.SerializeToString()

    def _type(self, kind: str, unit: str) -> pprof.ValueType:
        return pprof.ValueType(type=self._text(kind), unit=self._text(unit))

    def _location_of(self, site: Site) -> int:
        code = site.code
        return self._location(
            f"{site.module}.{code.co_qualname}", code.co_filename, code.co_firstlineno, site.line
        )

    def _location(self, name: str, file: str, first_line: int, line: int) -> int:
        function = self._function(name, file, first_line)
        known = self._locations.get((function, line))
        if known is None:
            known = self._locations[function, line] = len(self._locations) + 1
            self._profile.location.add(id=known, line=[pprof.Line(function_id=function, line=line)])
        return known

    def _function(self, name: str, file: str, first_line: int) -> int:
        known = self._functions.get((name, file, first_line))
        if known is None:
            known = self._functions[name, file, first_line] = len(self._functions) + 1
            self._profile.function.add(
                id=known,
                name=self._text(name),
                system_name=self._text(name),
                filename=self._text(file),
                start_line=first_line,
            )
        return known

    def _text(self, text: str) -> int:
        if text not in self._texts:
            self._texts[text] = len(self._texts)
            self._profile.string_table.append(text)
        return self._texts[text]
