"""How long each lease really lasts: the logged expiry, moved on by what is known in memory only.

A heartbeat always renews, but becomes an event only when half a lease has passed since the last one that did.  In between
it is kept here.  A shard that opens grants every live lease a full one from that moment, so that the time in which nobody
could send a heartbeat does not count against the workers.

All of this is outside the log on purpose: it only ever delays `LeaseExpired`, which is an event.
"""

from __future__ import annotations

FORGET_AT = 10_000


class LeaseClock:
    """The heartbeats of one shard since it opened.

    Args:
        not_before_ms: no lease expires before this time.
    """

    def __init__(self, *, not_before_ms: int = 0) -> None:
        self._not_before_ms = not_before_ms
        self._renewed: dict[str, int] = {}
        self._forget_at = FORGET_AT

    def expires_ms(self, task_id: str, logged_ms: int) -> int:
        """When the lease expires whose last logged expiry is this."""
        return max(logged_ms, self._renewed.get(task_id, 0), self._not_before_ms)

    def renew(self, task_id: str, expires_ms: int, *, now_ms: int) -> None:
        """Note a heartbeat that is not logged.  It never shortens a lease, even if the clock went back."""
        self._renewed[task_id] = max(expires_ms, self._renewed.get(task_id, 0))
        if len(self._renewed) > self._forget_at:
            self._renewed = {task: at for task, at in self._renewed.items() if at > now_ms}
            self._forget_at = max(FORGET_AT, 2 * len(self._renewed))
