"""Rate limits as one would explain them: a list of who has passed when, and fractions for what has leaked.

Slow, and without any bound on memory.  tests/ratelimit/test_buckets.py compares the real ones with this.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil, floor

from silo.domain.limits import Algorithm, Behavior, RateLimit

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Naive:
    """The hits under one name and key.  Limits that can never pass are not its affair."""

    def __init__(self) -> None:
        self.began_ms: int | None = None
        self.passed: list[tuple[int, Fraction]] = []

    def ask(self, limit: RateLimit, now_ms: int) -> tuple[bool, int, int]:
        """Whether it may pass, what remains then, and when everything would be free again."""
        if limit.behavior & Behavior.RESET_REMAINING or (
            self.began_ms is not None and now_ms >= ends_ms(limit, self.began_ms)
        ):
            self.passed, self.began_ms = [], None
        level = self.level(limit, now_ms)
        allowed = level + max(limit.hits, 1) <= limit.limit
        if allowed and limit.hits:
            self.take(Fraction(limit.hits), limit, now_ms)
        elif not allowed and limit.hits and limit.behavior & Behavior.DRAIN_OVER_LIMIT:
            self.take(limit.limit - level, limit, now_ms)
        level = self.level(limit, now_ms)
        return allowed, floor(limit.limit - level), self.free_ms(limit, level, now_ms)

    def take(self, hits: Fraction, limit: RateLimit, now_ms: int) -> None:
        if hits:
            self.passed.append((now_ms, hits))
            # A window begins with its first hit; a leaky bucket begins with its last one.
            if self.began_ms is None or limit.algorithm is Algorithm.LEAKY_BUCKET:
                self.began_ms = now_ms

    def level(self, limit: RateLimit, now_ms: int) -> Fraction:
        """What counts against the limit at this time."""
        if limit.algorithm is Algorithm.TOKEN_BUCKET:
            return sum((hits for _, hits in self.passed), Fraction(0))
        level, at_ms = Fraction(0), self.passed[0][0] if self.passed else now_ms
        for passed_ms, hits in self.passed:
            level = max(Fraction(0), level - rate(limit, passed_ms) * (passed_ms - at_ms)) + hits
            at_ms = passed_ms
        return max(Fraction(0), level - rate(limit, at_ms) * (now_ms - at_ms))

    def free_ms(self, limit: RateLimit, level: Fraction, now_ms: int) -> int:
        if not level or self.began_ms is None:
            return now_ms
        end_ms = ends_ms(limit, self.began_ms)
        if limit.algorithm is Algorithm.TOKEN_BUCKET:
            return end_ms
        return min(end_ms, ceil(now_ms + level / rate(limit, self.began_ms)))


def rate(limit: RateLimit, at_ms: int) -> Fraction:
    """Hits that leak in a millisecond."""
    return Fraction(limit.limit, ends_ms(limit, at_ms) - begins_ms(limit, at_ms))


def begins_ms(limit: RateLimit, at_ms: int) -> int:
    if not limit.behavior & Behavior.DURATION_IS_GREGORIAN:
        return at_ms
    return ms(begin(limit.duration_ms, EPOCH + timedelta(milliseconds=at_ms)))


def ends_ms(limit: RateLimit, at_ms: int) -> int:
    if not limit.behavior & Behavior.DURATION_IS_GREGORIAN:
        return at_ms + limit.duration_ms
    first = begin(limit.duration_ms, EPOCH + timedelta(milliseconds=at_ms))
    # Long enough to be in the next interval, and not in the one after.
    return ms(
        begin(
            limit.duration_ms,
            first
            + timedelta(days=(0, 0, 1, 7, 31, 366)[limit.duration_ms])
            + timedelta(minutes=(1, 60, 0, 0, 0, 0)[limit.duration_ms]),
        )
    )


def begin(interval: int, at: datetime) -> datetime:
    """The begin of the calendar's interval, by the calendar of Python."""
    minute = at.replace(second=0, microsecond=0)
    day = minute.replace(hour=0, minute=0)
    return (
        minute,
        minute.replace(minute=0),
        day,
        day - timedelta(days=day.weekday()),
        day.replace(day=1),
        day.replace(day=1, month=1),
    )[interval]


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
