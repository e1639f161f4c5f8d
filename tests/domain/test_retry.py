"""The delay before a retry, to the millisecond."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.domain.retry import RetryPolicy

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1

int64 = st.integers(INT64_MIN, INT64_MAX)
attempts = st.integers(1, (1 << 32) - 1)


def policy(**but: Any) -> RetryPolicy:
    return RetryPolicy(
        **{
            "retry_count": 5,
            "initial_interval_ms": 1_000,
            "max_interval_ms": INT64_MAX,
            "randomize_interval": False,
            "backoff_factor": 2.0,
            **but,
        }
    )


def vector(
    finished: int, attempt: int, count: int, initial: int, longest: int, jitter: bool, factor: float
) -> int | None:
    stated = RetryPolicy(
        retry_count=count,
        initial_interval_ms=initial,
        max_interval_ms=longest,
        randomize_interval=jitter,
        backoff_factor=factor,
    )
    return stated.next_attempt_ms(finished, attempt)


NOON = 1_700_000_000_000


@pytest.mark.parametrize(
    ("given", "due"),
    [
        pytest.param(
            (1_000_000, 1, 5, 1000, INT64_MAX, False, 2),
            1_002_000,
            id="the first retry has the factor already",
        ),
        pytest.param((NOON, 2, 3, 1500, 60_000, False, 1.5), NOON + 3_375, id="the factor is a fraction"),
        pytest.param((NOON, 1, 3, 1000, 30_000, True, 2), NOON + 2_428, id="jitter, first failure"),
        pytest.param((NOON, 2, 3, 1000, 30_000, True, 2), NOON + 7_659, id="jitter, second failure"),
        pytest.param((NOON, 3, 3, 1000, 30_000, True, 2), NOON + 12_924, id="jitter, third failure"),
        pytest.param((NOON, 4, 3, 1000, 30_000, True, 2), None, id="no retries left"),
        pytest.param(
            (NOON + 123, 1, 3, 1000, 30_000, True, 2), NOON + 3_421, id="jitter follows the time of failure"
        ),
        pytest.param((1_234_567, 1, 5, 10, 1_000_000, True, 2), 1_234_598, id="jitter on a short interval"),
        pytest.param((1_000_000, 1, 5, 1000, 0, False, 2), 1_000_000, id="a maximum of 0 is no wait"),
        pytest.param((1_000_000, 1, 5, 1000, 60_000, False, 0), 1_000_000, id="a factor of 0 is no wait"),
    ],
)
def test_a_retry_is_due_when_the_wire_contract_says(given: tuple[Any, ...], due: int | None) -> None:
    assert vector(*given) == due


def test_the_maximum_holds_after_the_jitter() -> None:
    assert vector(NOON, 1, 3, 1000, 2_100, True, 2) == NOON + 2_100


@pytest.mark.parametrize(
    ("interval_ms", "factor", "delay_ms"),
    [
        pytest.param(5, 0.5, 3, id="2.5 to 3"),
        pytest.param(5, -0.5, -3, id="-2.5 to -3"),
        pytest.param(1, 0.49999999999999994, 0, id="just under a half to 0"),
        pytest.param(1, -0.5, -1, id="-0.5 to -1"),
    ],
)
def test_halves_round_away_from_zero(interval_ms: int, factor: float, delay_ms: int) -> None:
    assert policy(initial_interval_ms=interval_ms, backoff_factor=factor).next_attempt_ms(0, 1) == delay_ms


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize(
    ("interval_ms", "factor", "attempt", "delay_ms"),
    [
        pytest.param(1_000, math.nan, 1, 0, id="a factor that is no number waits 0"),
        pytest.param(0, math.inf, 1, 0, id="nothing times infinity waits 0"),
        pytest.param(1_000, math.inf, 1, INT64_MAX, id="an infinite factor"),
        pytest.param(1_000, 1e200, 2, INT64_MAX, id="a power beyond the doubles"),
        pytest.param(1_000, -1e200, 3, INT64_MIN, id="an odd power below the doubles"),
        pytest.param(1_000, -1e200, 4, INT64_MAX, id="an even power of a negative factor"),
        pytest.param(INT64_MAX, 1e3, 1, INT64_MAX, id="a product beyond 64 bits"),
    ],
)
def test_a_delay_saturates(
    interval_ms: int, factor: float, attempt: int, delay_ms: int, jitter: bool
) -> None:
    extreme = policy(initial_interval_ms=interval_ms, backoff_factor=factor, randomize_interval=jitter)

    assert extreme.next_attempt_ms(0, attempt) == delay_ms


def test_the_due_time_saturates() -> None:
    assert policy().next_attempt_ms(INT64_MAX - 1, 1) == INT64_MAX
    assert policy(initial_interval_ms=-1_000).next_attempt_ms(INT64_MIN + 1, 1) == INT64_MIN


@given(
    finished_at_ms=int64,
    attempt=attempts,
    interval_ms=int64,
    longest_ms=int64,
    jitter=st.booleans(),
    factor=st.floats(),
)
def test_no_policy_leads_beyond_64_bits(
    finished_at_ms: int, attempt: int, interval_ms: int, longest_ms: int, jitter: bool, factor: float
) -> None:
    due = vector(finished_at_ms, attempt, attempt, interval_ms, longest_ms, jitter, factor)

    assert due is not None
    assert INT64_MIN <= due <= INT64_MAX
    assert due <= max(finished_at_ms + longest_ms, INT64_MIN)


@given(finished_at_ms=st.integers(0, 1 << 45), attempt=attempts, interval_ms=st.integers(0, 1 << 31))
def test_jitter_waits_between_once_and_twice_the_interval(
    finished_at_ms: int, attempt: int, interval_ms: int
) -> None:
    steady = policy(
        retry_count=attempt, initial_interval_ms=interval_ms, backoff_factor=1.0, randomize_interval=True
    )
    due = steady.next_attempt_ms(finished_at_ms, attempt)

    assert due is not None
    assert interval_ms <= due - finished_at_ms <= 2 * interval_ms


@given(retry_count=st.integers(0, 1_000), finished_at_ms=int64)
def test_a_run_has_one_attempt_more_than_its_retries(retry_count: int, finished_at_ms: int) -> None:
    stated = policy(retry_count=retry_count)

    assert stated.next_attempt_ms(finished_at_ms, retry_count + 1) is None
    assert retry_count == 0 or stated.next_attempt_ms(finished_at_ms, retry_count) is not None
