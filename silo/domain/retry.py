"""When is a failed attempt tried again?

The arithmetic is that of the existing servers of this protocol, to the last bit, as their jobs may be
imported with their histories: IEEE doubles, rounded half away from zero, saturated to 64-bit integers.  Two
of its habits surprise: the first retry already waits `initial_interval_ms * backoff_factor`, and a
`max_interval_ms` of 0 means no wait at all, not a wait without bound.  Values out of any sensible range are
not refused; they saturate.
"""

from __future__ import annotations

import attrs

from silo.domain.int64 import power, rounded, saturated

_UINT64 = (1 << 64) - 1


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently a job is tried again, as its client stated it.

    A run of the job has at most `retry_count + 1` attempts.
    """

    retry_count: int
    initial_interval_ms: int
    max_interval_ms: int
    randomize_interval: bool
    backoff_factor: float

    def next_attempt_ms(self, finished_at_ms: int, relative_attempt: int) -> int | None:
        """When the attempt after this failed one is due, in epoch ms; None if it was the last.

        `relative_attempt` numbers the failed attempt within its run: 1 for the first.
        """
        if relative_attempt > self.retry_count:
            return None

        delay_ms = rounded(self.initial_interval_ms * power(self.backoff_factor, relative_attempt))
        if self.randomize_interval:
            delay_ms = rounded(delay_ms * _jitter(finished_at_ms, relative_attempt))
        return saturated(finished_at_ms + min(delay_ms, self.max_interval_ms))


def _jitter(finished_at_ms: int, relative_attempt: int) -> float:
    """A multiplier in [1, 2] that looks random and is not: the same failure always waits equally long."""
    seed = (finished_at_ms & _UINT64) ^ (relative_attempt << 32 & _UINT64)
    scattered = seed * 6364136223846793005 + 1 & _UINT64
    return 1 + (scattered >> 32) / 0xFFFF_FFFF
