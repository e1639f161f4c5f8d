from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import contextmanager

import pytest

from silo.pb import pprof_pb2 as pprof
from silo.server.cpu_profile import NATIVE, Sampler, _sites, record, within_bounds
from tests.serving import run


def calculate(until: threading.Event) -> None:
    while not until.is_set():
        sum(range(100))


@contextmanager
def at_work(name, work):
    """A thread that works until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Read:
    """A profile, read as pprof reads it."""

    def __init__(self, written: bytes) -> None:
        self.raw = raw = pprof.Profile.FromString(written)
        self.texts = list(raw.string_table)
        self._functions = {function.id: self.texts[function.name] for function in raw.function}
        self._locations = {location.id: location for location in raw.location}
        self.types = [(self.texts[kind.type], self.texts[kind.unit]) for kind in raw.sample_type]

    def stacks(self):
        """Each sample: the thread, the functions from the innermost, the values."""
        for sample in self.raw.sample:
            threads = [self.texts[label.str] for label in sample.label if self.texts[label.key] == "thread"]
            lines = [line for at in sample.location_id for line in self._locations[at].line]
            calls = [self._functions[line.function_id] for line in lines]
            yield (threads or [""])[0], calls, list(sample.value)


def test_a_thread_that_calculates_is_seen_with_its_calls_and_one_that_waits_is_not():
    with at_work("busy", calculate), at_work("idle", threading.Event.wait):
        profile = run(record(seconds=0.5, frequency=200))

    read = Read(profile.pprof)
    assert read.texts[0] == ""
    assert read.types == [("samples", "count"), ("cpu", "nanoseconds")]
    assert (read.raw.period, read.raw.time_nanos > 0) == (5_000_000, True)
    stacks = list(read.stacks())
    assert sum(values[0] for _, _, values in stacks) == profile.looks > 0
    busy = [(calls, values) for thread, calls, values in stacks if thread == "busy"]
    assert busy
    for calls, (looks, cpu_ns) in busy:
        assert calls[-1] == "threading.Thread._bootstrap"
        assert looks > 0
        assert cpu_ns > 0
    assert any("tests.server.test_cpu_profile.calculate" in calls[0] for calls, _ in busy)
    # At most on its way to where it waits.
    assert sum(values[0] for thread, _, values in stacks if thread == "idle") <= 1


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        pytest.param((0, 0), (30, 100), id="the usual"),
        pytest.param((7, 7), (7, 7), id="what is asked for"),
        pytest.param((4_000_000_000, 4_000_000_000), (300, 1_000), id="no more than is good"),
    ],
)
def test_a_profile_takes_as_long_and_looks_as_often_as_is_good(asked, given):
    assert within_bounds(*asked) == given


def test_threads_without_python_are_told_as_one_sum():
    written = Sampler(100).run(0)
    # Nobody was looked at, so all that the process used is not Python's.
    assert written.looks == 0
    assert [calls for _, calls, _ in Read(written.pprof).stacks()] in ([], [[NATIVE]])


def test_a_caller_that_goes_away_ends_the_profile():
    usual = sys.getswitchinterval()

    async def go_away():
        profiling = asyncio.create_task(record(seconds=300, frequency=1))
        while not any("Sampler.run" in calls for calls in sampling()):  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.01)
        profiling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await profiling
        # The loop's own threads are waited for when it ends: 300 s, if the profile went on.
        await asyncio.get_running_loop().shutdown_default_executor()
        assert sys.getswitchinterval() == usual

    run(go_away())


def sampling():
    """The calls that are under way in each thread."""
    for frame in sys._current_frames().values():
        yield [site.code.co_qualname for site in _sites(frame)]
