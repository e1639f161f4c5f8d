from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.ratelimit.intervals import Interval, span

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

moments = st.timedeltas(timedelta(days=-700_000), timedelta(days=2_900_000)).map(EPOCH.__add__)
"""What `datetime` knows of the calendar: the years 53 to 9909."""

int64 = st.integers(-(1 << 63), (1 << 63) - 1)


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def at(text: str) -> int:
    return ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("interval", "moment", "begin", "end"),
    [
        pytest.param(0, "2024-02-29T23:59:59.999", "2024-02-29T23:59", "2024-03-01T00:00", id="last minute"),
        pytest.param(1, "2024-02-29T23:59:59.999", "2024-02-29T23:00", "2024-03-01T00:00", id="last hour"),
        pytest.param(2, "2024-02-29T23:59:59.999", "2024-02-29", "2024-03-01", id="a leap day"),
        pytest.param(3, "2024-12-31T12:00", "2024-12-30", "2025-01-06", id="a week goes over new year"),
        pytest.param(3, "2024-12-30T00:00", "2024-12-30", "2025-01-06", id="a week begins on Monday"),
        pytest.param(3, "2024-12-29T23:59:59.999", "2024-12-23", "2024-12-30", id="and ends with Sunday"),
        pytest.param(4, "2024-02-29T12:00", "2024-02-01", "2024-03-01", id="February with a leap day"),
        pytest.param(4, "2023-02-28T12:00", "2023-02-01", "2023-03-01", id="February without one"),
        pytest.param(4, "2100-02-28T12:00", "2100-02-01", "2100-03-01", id="centuries have none"),
        pytest.param(4, "2000-02-29T12:00", "2000-02-01", "2000-03-01", id="every fourth one has"),
        pytest.param(4, "2024-12-31T23:59:59.999", "2024-12-01", "2025-01-01", id="December"),
        pytest.param(5, "2024-12-31T23:59:59.999", "2024-01-01", "2025-01-01", id="last day of a leap year"),
        pytest.param(5, "2025-01-01T00:00", "2025-01-01", "2026-01-01", id="new year"),
    ],
)
def test_the_calendar_has_intervals(interval, moment, begin, end):
    assert span(Interval(interval), at(moment)) == (at(begin), at(end))


@given(moment=moments)
def test_days_months_and_years_are_those_of_the_calendar(moment):
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    month, year = day.replace(day=1), day.replace(day=1, month=1)
    week = day - timedelta(days=day.weekday())
    next_month = (month + timedelta(days=31)).replace(day=1)

    assert span(Interval.DAY, ms(moment)) == (ms(day), ms(day + timedelta(days=1)))
    assert span(Interval.WEEK, ms(moment)) == (ms(week), ms(week + timedelta(days=7)))
    assert span(Interval.MONTH, ms(moment)) == (ms(month), ms(next_month))
    assert span(Interval.YEAR, ms(moment)) == (ms(year), ms(year.replace(year=year.year + 1)))


@given(interval=st.sampled_from(Interval), at_ms=int64)
def test_intervals_follow_one_another_without_a_gap_as_far_as_64_bits_go(interval, at_ms):
    begin_ms, end_ms = span(interval, at_ms)

    assert begin_ms <= at_ms < end_ms
    assert span(interval, begin_ms) == span(interval, end_ms - 1) == (begin_ms, end_ms)
    assert span(interval, end_ms)[0] == end_ms
    assert span(interval, begin_ms - 1)[1] == begin_ms
