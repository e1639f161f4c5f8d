"""Which minute, hour, day, week, month or year holds a moment?  In UTC, a week beginning on Monday.

Plain integers rather than `datetime`, which ends with the year 9999: a moment here is whatever 64 bits can say.
"""

from __future__ import annotations

from enum import IntEnum


class Interval(IntEnum):
    """The intervals that a rate limit can be stated for; the numbers are those of the wire."""

    MINUTE = 0
    HOUR = 1
    DAY = 2
    WEEK = 3
    MONTH = 4
    YEAR = 5


MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

MONDAY = -3
"""A Monday, as days since 1970-01-01, which was a Thursday."""

DAYS_BEFORE_1970 = 719_162
"""From the first day of the year 1 on."""

DAYS_IN_400_YEARS = 146_097

MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def span(interval: Interval, at_ms: int) -> tuple[int, int]:
    """The interval that holds a moment: when it begins, and when the next one does, in epoch ms."""
    match interval:
        case Interval.MINUTE:
            return _regular(MINUTE_MS, at_ms)
        case Interval.HOUR:
            return _regular(HOUR_MS, at_ms)
        case Interval.DAY:
            return _regular(DAY_MS, at_ms)
        case Interval.WEEK:
            return _regular(7 * DAY_MS, at_ms, MONDAY * DAY_MS)
        case Interval.MONTH:
            first, end = _month(at_ms // DAY_MS)
        case Interval.YEAR:
            year = _year(at_ms // DAY_MS)
            first, end = _new_year(year), _new_year(year + 1)
    return first * DAY_MS, end * DAY_MS


def _regular(length_ms: int, at_ms: int, first_ms: int = 0) -> tuple[int, int]:
    begin_ms = at_ms - (at_ms - first_ms) % length_ms
    return begin_ms, begin_ms + length_ms


def _month(day: int) -> tuple[int, int]:
    """The month that holds a day: its first day, and that of the next month, as days since 1970."""
    year = _year(day)
    first = _new_year(year)
    is_leap = _new_year(year + 1) - first == 366
    for month, days in enumerate(MONTHS):
        end = first + days + (month == 1 and is_leap)
        if day < end:
            break
        first = end
    return first, end


def _year(day: int) -> int:
    """The year that holds a day."""
    # Years are of nearly the same length, so that the guess is one off at most.
    year = 1970 + day * 400 // DAYS_IN_400_YEARS
    if day < _new_year(year):
        return year - 1
    return year + (day >= _new_year(year + 1))


def _new_year(year: int) -> int:
    """The first day of a year, as days since 1970."""
    before = year - 1
    return 365 * before + before // 4 - before // 100 + before // 400 - DAYS_BEFORE_1970
