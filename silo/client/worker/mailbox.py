"""From one thread's event loop to another's.  Much that is sent at once wakes the other loop once."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """Calls functions in the loop that it was made for, in the order in which others ask for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._letters: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._waking = False
        self._lock = threading.Lock()

    def send(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have `call(*arguments)` made there, soon.  From any thread; after the loop has closed nothing happens."""
        self._letters.append((call, arguments))
        with self._lock:
            if self._waking:
                return
            self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _deliver(self) -> None:
        with self._lock:
            self._waking = False
        while self._letters:
            call, arguments = self._letters.popleft()
            call(*arguments)
