"""An event loop with virtual time, in which processes live that can crash and pause.

Nothing waits: when nobody can go on, the clock jumps to the next timer.  What asyncio promises is kept (callbacks run in the
order in which they were scheduled), and what it does not promise is up to chance: timers are a little late, each by its own
seeded delay, so those that are due together come in any order.

A *process* is a mark that every task and callback inherits from whoever made it.  A process that pauses keeps its callbacks
for later, as one does that the system has stopped.  One that has crashed is never run again: no `finally`, no `except`, just
as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

LATE_S_MAX = 0.0002
"""How late a timer is at most."""

STEPS_MAX = 150_000
"""More callbacks than this, and nothing will come of it any more; a history needs ten thousand at most."""


class Deadlock(Exception):
    """Everybody waits for somebody, and nobody for a time."""


class NoProgress(Exception):
    """The callbacks go on without end."""


class Process:
    """What can crash or pause as a whole.

    Attributes:
        gone: done when it has crashed; whoever waits for something that it does waits for this as well.
    """

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.gone: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._paused = 0
        self._held: deque[events.Handle] = deque()
        self._fuse: tuple[int, Callable[[], None]] | None = None
        self._context = copy_context()
        self._context.run(_PROCESS.set, self)

    def start(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run a coroutine in this process."""
        return self._loop.create_task(work, name=name or self.name, context=self._context.copy())

    def crash(self) -> None:
        """Stop for ever, between two callbacks."""
        self.is_alive = False
        self._held.clear()
        if not self.gone.done():
            self.gone.set_result(None)

    def light_fuse(self, callbacks: int, blown: Callable[[], None]) -> None:
        """After so many more callbacks of this process, call `blown`, which may crash it: at any `await` of anything."""
        self._fuse = (callbacks, blown)

    def pause(self) -> None:
        """Run nothing until `go_on`, which must be called as often."""
        self._paused += 1

    def go_on(self) -> None:
        self._paused -= 1
        if not self._paused:
            self._loop.resume(self._held)

    def may_run(self, handle: events.Handle) -> bool:
        """Whether a callback runs now.  If the process is paused, it is kept for later."""
        if self._paused and self.is_alive:
            self._held.append(handle)
        elif self._fuse is not None:
            left, blown = self._fuse
            self._fuse = (left - 1, blown) if left else None
            if not left:
                blown()
        return self.is_alive and not self._paused

    def __repr__(self) -> str:
        return f"Process({self.name})"


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """Run `simulate` on it, once."""

    _ready: deque[events.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.steps = 0
        self._now = 0.0
        self._chance = chance
        # Tasks of processes that have crashed are neither run nor told; they only must not be missed.
        self.set_task_factory(_quiet_task)
        self._all: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """Seconds since the world began."""
        return self._now

    def simulate(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end.  Raises what it raised, Deadlock or NoProgress."""
        asyncio.set_event_loop(self)
        try:
            return self.run_until_complete(main)
        finally:
            self._bury()
            asyncio.set_event_loop(None)
            self.close()

    def _bury(self) -> None:
        """Close what was never to go on, now and in order rather than whenever the collector comes by."""
        self.set_exception_handler(lambda _, __: None)
        for task in self._all:
            if not task.done():
                # Its `finally` may want to wait, or find its world gone; whatever it says, nobody is there to hear it.
                with contextlib.suppress(BaseException):
                    task.get_coro().close()
        self._all.clear()

    def note_task(self, task: asyncio.Task[Any]) -> None:
        """Keep a task to the end: one that were collected while it waits would run its `finally` at any time."""
        self._all.append(task)
        if len(self._all) > 4096:
            self._all = [each for each in self._all if not each.done()]

    def resume(self, held: deque[events.Handle]) -> None:
        """Schedule callbacks that a process has kept."""
        self._ready.extend(held)
        held.clear()

    # --- what BaseEventLoop leaves to its heirs --------------------------------------------------------------------------

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        late_s = self._chance.random() * LATE_S_MAX
        return super().call_at(when + late_s, callback, *args, context=context)

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)
        if not ready:
            if not scheduled:
                raise Deadlock(self._who_waits())
            self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now:
            ready.append(heapq.heappop(scheduled))
        self.steps += len(ready)
        if self.steps > STEPS_MAX:
            raise NoProgress(f"{STEPS_MAX:,} callbacks, and no end")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                process = handle._context.get(_PROCESS)  # type: ignore[attr-defined]
                if process is None or process.may_run(handle):
                    handle._run()

    def _who_waits(self) -> str:
        waiting = [task.get_name() for task in self._all if not task.done()]
        return f"nobody can go on; there are {', '.join(waiting) or 'no tasks'}"

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        raise NotImplementedError(
            "there are no threads in a simulated world: they would not be decided by its seed"
        )


def _quiet_task(loop: asyncio.AbstractEventLoop, work: Any, **arguments: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, **arguments)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert isinstance(loop, SimulatedLoop)
    loop.note_task(task)
    return task
