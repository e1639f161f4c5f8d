from __future__ import annotations

import pytest

from silo.domain.limits import Behavior, RateLimitRetry, check_limits
from silo.errors import Invalid
from tests.builders import a_floating_limit, a_limit, a_rate_limit, a_spec


@pytest.mark.parametrize("second", [a_limit(2, "a"), a_floating_limit(2, "a")])
def test_a_job_asks_for_slots_of_one_queue_once(second):
    with pytest.raises(Invalid, match=r"^duplicate concurrency key 'a'$"):
        a_spec(limits=(a_limit(1, "a"), a_limit(1, "b"), second))


def test_a_job_may_ask_one_rate_limit_twice_and_name_it_like_a_queue():
    limits = (a_limit(1, "a"), a_rate_limit(name="a", unique_key="a"), a_rate_limit(name="a", unique_key="a"))

    check_limits(limits)
    assert a_spec(limits=limits).limits == limits


def test_no_limits_are_fine():
    check_limits(())


def test_a_retry_policy_that_says_nothing_asks_for_as_long_as_it_takes():
    assert RateLimitRetry() == RateLimitRetry(
        initial_backoff_ms=100, max_backoff_ms=30_000, backoff_multiplier=2.0, max_retries=0
    )


def test_behaviors_can_be_added():
    assert Behavior.RESET_REMAINING | Behavior.DURATION_IS_GREGORIAN == 12
