"""The buckets inside a shard, in cases, against a naive model, and as promises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.domain.int64 import INT64_MAX, INT64_MIN
from silo.domain.limits import Algorithm, Behavior, RateLimit, RateLimitRetry
from silo.events.packing import from_bytes, packer, to_bytes, unpacker
from silo.ratelimit.buckets import (
    Answer,
    Bucket,
    ask,
    error_retry_ms,
    is_exhausted,
    passes_at_ms,
    retry_ms,
)
from silo.ratelimit.intervals import HOUR_MS, MINUTE_MS
from tests.builders import a_rate_limit
from tests.ratelimit.naive import Naive

DRAIN, RESET = Behavior.DRAIN_OVER_LIMIT, Behavior.RESET_REMAINING
GREGORIAN = Behavior.DURATION_IS_GREGORIAN

NOON = 1_709_208_000_000
"""2024-02-29T12:00, UTC."""

MIDNIGHT = NOON + 12 * HOUR_MS

Question = tuple[RateLimit, int]


def a_token(**but: Any) -> RateLimit:
    return a_rate_limit(algorithm=Algorithm.TOKEN_BUCKET, **but)


def a_leaky(**but: Any) -> RateLimit:
    return a_rate_limit(algorithm=Algorithm.LEAKY_BUCKET, **but)


def answers(questions: Iterable[Question], bucket: Bucket | None = None) -> Iterator[Answer]:
    """What becomes of questions that are asked one after the other."""
    for limit, now_ms in questions:
        answer = ask(bucket, limit, now_ms)
        bucket = answer.bucket
        yield answer


def verdicts(*questions: Question) -> list[tuple[bool, int]]:
    """Whether each was allowed, and what remained then."""
    return [(answer.allowed, answer.remaining) for answer in answers(questions)]


def after(*questions: Question) -> Bucket | None:
    """The bucket that these questions leave."""
    *_, last = answers(questions)
    return last.bucket


# --- cases ---------------------------------------------------------------------------------------------------------------

CASES = [
    pytest.param(
        [(a_token(limit=2), 0), (a_token(limit=2), 1), (a_token(limit=2), 999), (a_token(limit=2), 1_000)],
        [(True, 1), (True, 0), (False, 0), (True, 1)],
        id="token: a window begins with the first hit and ends after the duration",
    ),
    pytest.param(
        [(a_token(limit=2, hits=2), 0), (a_token(limit=2, hits=2), 900), (a_token(limit=2, hits=2), 1_000)],
        [(True, 0), (False, 0), (True, 0)],
        id="token: several hits at once",
    ),
    pytest.param(
        [(a_token(limit=3, hits=2), 0), (a_token(limit=3, hits=2), 0), (a_token(limit=3), 0)],
        [(True, 1), (False, 1), (True, 0)],
        id="token: a refusal takes nothing, so that a smaller question may still pass",
    ),
    pytest.param(
        [(a_token(limit=1, hits=0), 0), (a_token(limit=1), 0), (a_token(limit=1, hits=0), 0)],
        [(True, 1), (True, 0), (False, 0)],
        id="token: no hits ask whether one would pass",
    ),
    pytest.param(
        [(a_token(limit=2, hits=0), 0), (a_token(limit=2), 900), (a_token(limit=2), 1_000)],
        [(True, 2), (True, 1), (True, 0)],
        id="token: no hits begin no window",
    ),
    pytest.param(
        [(a_token(limit=5, hits=3), 0), (a_token(limit=10), 1), (a_token(limit=2), 2), (a_token(limit=5), 3)],
        [(True, 2), (True, 6), (False, 0), (True, 0)],
        id="token: another limit counts the same hits",
    ),
    pytest.param(
        [
            (a_token(limit=1), 0),
            (a_token(limit=1, duration_ms=100), 50),
            (a_token(limit=1, duration_ms=100), 100),
        ],
        [(True, 0), (False, 0), (True, 0)],
        id="token: a shorter duration ends the window sooner",
    ),
    pytest.param(
        [
            (a_token(limit=2, duration_ms=100), 0),
            (a_token(limit=2, duration_ms=500), 50),
            (a_token(limit=2, duration_ms=500), 499),
            (a_token(limit=2, duration_ms=500), 500),
        ],
        [(True, 1), (True, 0), (False, 0), (True, 1)],
        id="token: a longer duration that passes extends the window",
    ),
    pytest.param(
        [
            (a_token(limit=2, duration_ms=100, hits=2), 0),
            (a_token(limit=2, duration_ms=500), 50),
            (a_token(limit=2, duration_ms=500), 100),
        ],
        [(True, 0), (False, 0), (True, 1)],
        id="token: one that is refused does not",
    ),
    pytest.param(
        [(a_token(limit=5), 0), (a_token(limit=5, hits=5, behavior=DRAIN), 0), (a_token(limit=5), 0)],
        [(True, 4), (False, 0), (False, 0)],
        id="token: a refusal that drains leaves nothing",
    ),
    pytest.param(
        [(a_token(limit=5, hits=3), 0), (a_token(limit=5, hits=3, behavior=RESET), 0)],
        [(True, 2), (True, 2)],
        id="token: a reset forgets, then takes",
    ),
    pytest.param(
        [
            (a_token(limit=5, hits=3), 0),
            (a_token(limit=5, hits=0, behavior=RESET), 0),
            (a_token(limit=5), 900),
        ],
        [(True, 2), (True, 5), (True, 4)],
        id="token: a reset without hits leaves a new bucket",
    ),
    pytest.param(
        [(a_leaky(limit=2), 0), (a_leaky(limit=2), 0), (a_leaky(limit=2), 499), (a_leaky(limit=2), 500)],
        [(True, 1), (True, 0), (False, 0), (True, 0)],
        id="leaky: room comes back one hit at a time",
    ),
    pytest.param(
        [(a_leaky(limit=3), 0), (a_leaky(limit=3, hits=3), 333), (a_leaky(limit=3, hits=3), 334)],
        [(True, 2), (False, 2), (True, 0)],
        id="leaky: a third of a second is no whole number of milliseconds",
    ),
    pytest.param(
        [
            (a_leaky(limit=3, hits=3), 0),
            *((a_leaky(limit=3), at_ms) for at_ms in (333, 334, 666, 667, 999, 1_000)),
        ],
        [(True, 0), (False, 0), (True, 0), (False, 0), (True, 0), (False, 0), (True, 0)],
        id="leaky: what leaks beside a whole hit is not lost",
    ),
    pytest.param(
        [(a_leaky(limit=2_000, hits=2_000), 0), (a_leaky(limit=2_000, hits=2), 1), (a_leaky(limit=2_000), 1)],
        [(True, 0), (True, 0), (False, 0)],
        id="leaky: several hits may leak in a millisecond",
    ),
    pytest.param(
        [(a_leaky(limit=2), 0), (a_leaky(limit=2, hits=2), 10_000), (a_leaky(limit=2), 10_000)],
        [(True, 1), (True, 0), (False, 0)],
        id="leaky: an empty bucket does not go on leaking",
    ),
    pytest.param(
        [(a_leaky(limit=2, hits=2), 0), (a_leaky(limit=2, hits=0), 400), (a_leaky(limit=2, hits=0), 500)],
        [(True, 0), (False, 0), (True, 1)],
        id="leaky: no hits ask whether one would pass",
    ),
    pytest.param(
        [
            (a_leaky(limit=4, hits=4), 0),
            (a_leaky(limit=4, hits=2, behavior=DRAIN), 499),
            (a_leaky(limit=4), 748),
        ],
        [(True, 0), (False, 0), (False, 0)],
        id="leaky: a refusal that drains begins anew with nothing",
    ),
    pytest.param(
        [(a_leaky(limit=2, hits=2), 0), (a_leaky(limit=2, hits=2, behavior=RESET), 0)],
        [(True, 0), (True, 0)],
        id="leaky: a reset forgets, then takes",
    ),
    pytest.param(
        [(a_leaky(limit=2, hits=2), 0), (a_leaky(limit=3, hits=1), 0), (a_leaky(limit=2), 0)],
        [(True, 0), (True, 0), (False, 0)],
        id="leaky: another limit counts the same hits",
    ),
    pytest.param(
        [
            (a_leaky(limit=1), 0),
            (a_leaky(limit=1, duration_ms=100), 99),
            (a_leaky(limit=1, duration_ms=100), 100),
        ],
        [(True, 0), (False, 0), (True, 0)],
        id="leaky: another duration leaks at its own speed",
    ),
    pytest.param(
        [
            (a_token(limit=2, hits=2), 0),
            (a_leaky(limit=2), 0),
            (a_token(limit=2), 0),
            (a_leaky(limit=2), 500),
        ],
        [(True, 0), (False, 0), (False, 0), (True, 0)],
        id="another algorithm counts the same hits",
    ),
    pytest.param(
        [(a_leaky(limit=2, hits=2), 0), (a_leaky(limit=2), 750), (a_token(limit=2), 750)],
        [(True, 0), (True, 0), (False, 0)],
        id="what is left of a hit that leaks is a hit to a token bucket",
    ),
    *(
        pytest.param(
            [
                (make(limit=2, hits=2, duration_ms=interval, behavior=GREGORIAN), MIDNIGHT - 1),
                (make(limit=2, hits=2, duration_ms=interval, behavior=GREGORIAN), MIDNIGHT - 1),
                (make(limit=2, hits=2, duration_ms=interval, behavior=GREGORIAN), MIDNIGHT),
            ],
            [(True, 0), (False, 0), (True, 0)],
            id=f"{make.__name__}: interval {interval} of the calendar ends at midnight",
        )
        for make in (a_token, a_leaky)
        for interval in (0, 1, 2, 4)
    ),
    pytest.param(
        [
            (a_leaky(limit=2, hits=2, duration_ms=0, behavior=GREGORIAN), NOON + at_ms)
            for at_ms in (0, 59_999, 60_000)
        ]
        + [(a_leaky(limit=2, duration_ms=0, behavior=GREGORIAN), NOON + at_ms) for at_ms in (89_999, 90_000)],
        [(True, 0), (False, 1), (True, 0), (False, 0), (True, 0)],
        id="leaky: an interval of the calendar leaks as long as it is",
    ),
]


@pytest.mark.parametrize(("questions", "expected"), CASES)
def test_a_bucket_answers(questions: list[Question], expected: list[tuple[bool, int]]) -> None:
    assert verdicts(*questions) == expected


@pytest.mark.parametrize(
    ("limit", "now_ms", "reset_ms"),
    [
        pytest.param(a_token(limit=3), 5, 1_005, id="a token bucket is free when its window ends"),
        pytest.param(a_token(limit=3, hits=0), 5, 5, id="a new bucket is free now"),
        pytest.param(a_leaky(limit=3), 5, 339, id="a leaky bucket is free when all has leaked"),
        pytest.param(a_leaky(limit=3, hits=3), 5, 1_005, id="a full leaky bucket needs the whole duration"),
        pytest.param(
            a_token(duration_ms=4, behavior=GREGORIAN), NOON, MIDNIGHT, id="a month is over at its end"
        ),
        pytest.param(
            a_leaky(limit=2, duration_ms=2, behavior=GREGORIAN),
            MIDNIGHT - HOUR_MS,
            MIDNIGHT,
            id="a day is over at its end, also if not all has leaked",
        ),
    ],
)
def test_an_answer_tells_when_all_is_free_again(limit: RateLimit, now_ms: int, reset_ms: int) -> None:
    assert ask(None, limit, now_ms).reset_ms == reset_ms


NEVER = [
    pytest.param({"limit": 0}, "a limit of 0 lets nobody pass", id="a limit of nothing"),
    pytest.param({"limit": -1}, "a limit of -1 lets nobody pass", id="a limit below nothing"),
    pytest.param({"limit": 0, "hits": 0}, "a limit of 0 lets nobody pass", id="not even who only asks"),
    pytest.param({"hits": -1}, "-1 hits cannot be taken", id="hits that would give something back"),
    pytest.param({"hits": 11}, "11 hits are more than the limit of 10", id="more hits than the limit"),
    pytest.param({"duration_ms": 0}, "a duration of 0 ms lets nobody pass", id="a window that never is"),
    pytest.param({"duration_ms": -5}, "a duration of -5 ms lets nobody pass", id="a window before itself"),
    pytest.param(
        {"duration_ms": 6, "behavior": GREGORIAN},
        "6 names no interval of the calendar: those are 0 to 5, minute to year",
        id="an interval beyond the calendar",
    ),
    pytest.param(
        {"duration_ms": -1, "behavior": GREGORIAN},
        "-1 names no interval of the calendar: those are 0 to 5, minute to year",
        id="an interval before the calendar",
    ),
]


@pytest.mark.parametrize("flags", [0, DRAIN, RESET], ids=["plain", "drain", "reset"])
@pytest.mark.parametrize("make", [a_token, a_leaky])
@pytest.mark.parametrize(("but", "reason"), NEVER)
def test_what_can_never_pass_says_why_and_changes_nothing(make, but, reason, flags) -> None:
    limit = make(**{**but, "behavior": but.get("behavior", 0) | flags})
    for bucket in (None, after((make(hits=3), 0))):
        answer = ask(bucket, limit, 10)

        assert (answer.allowed, answer.reason) == (False, reason)
        assert answer.bucket is bucket
        assert passes_at_ms(bucket, limit, 10) is None


@pytest.mark.parametrize("make", [a_token, a_leaky])
def test_more_hits_than_the_limit_are_told_what_others_could_still_take(make) -> None:
    assert verdicts((make(hits=3), 0), (make(hits=11), 0), (make(hits=7), 0)) == [
        (True, 7),
        (False, 7),
        (True, 0),
    ]


def test_flags_that_concern_a_cluster_of_limiters_change_nothing() -> None:
    flags = Behavior.NO_BATCHING | Behavior.GLOBAL | 32 | 64

    assert ask(None, a_token(behavior=flags), 0) == ask(None, a_token(), 0)


# --- promises ------------------------------------------------------------------------------------------------------------

algorithms = st.sampled_from(Algorithm)
flags = st.sampled_from([Behavior(0), DRAIN, RESET, DRAIN | RESET])
pauses_ms = st.one_of(st.just(0), st.integers(0, 60), st.integers(0, 3_000))
"""Many questions come at once, as they do when a bucket is full."""


@st.composite
def limits(draw: st.DrawFn, most: int = 12) -> RateLimit:
    """One that somebody could pass: short, or by the calendar."""
    limit = draw(st.integers(1, most))
    gregorian = draw(st.sampled_from([Behavior(0), Behavior(0), GREGORIAN]))
    duration_ms = draw(st.integers(0, 5) if gregorian else st.integers(1, 2_000))
    return a_rate_limit(
        limit=limit, duration_ms=duration_ms, behavior=gregorian, algorithm=draw(algorithms), hits=limit
    )


@st.composite
def stories(draw: st.DrawFn, behaviors: st.SearchStrategy[int] = flags) -> list[Question]:
    """Questions to one limit, with times and flags of their own."""
    limit = draw(limits())
    # Near the end of a month, and so of a day and an hour, or anywhere.
    now_ms = draw(st.one_of(st.integers(MIDNIGHT - 3_000, MIDNIGHT), st.integers(0, 4_000_000_000_000)))
    # With the calendar, some pauses are as long as its intervals.
    pauses = st.one_of(pauses_ms, st.integers(0, 40 * 24 * HOUR_MS)) if limit.behavior else pauses_ms
    questions = []
    for pause_ms in draw(st.lists(pauses, max_size=40)):
        now_ms += pause_ms
        asked = attrs.evolve(
            limit,
            hits=draw(st.integers(0, limit.limit)),
            behavior=limit.behavior | draw(behaviors),
        )
        questions.append((asked, now_ms))
    return questions


plain = stories(behaviors=st.just(0))


@given(story=stories())
def test_buckets_agree_with_a_list_of_who_has_passed_when(story: list[Question]) -> None:
    naive = Naive()

    for (limit, now_ms), answer in zip(story, answers(story), strict=True):
        assert (answer.allowed, answer.remaining, answer.reset_ms) == naive.ask(limit, now_ms)
        assert answer.limit == limit.limit
        assert not answer.reason


@given(story=plain)
def test_no_window_of_a_token_bucket_lets_more_than_the_limit_pass(story: list[Question]) -> None:
    windows: dict[int, int] = {}
    for (limit, now_ms), answer in zip(story, answers(story), strict=True):
        if limit.algorithm is Algorithm.TOKEN_BUCKET and answer.bucket and answer.allowed:
            begin_ms = answer.bucket.since_ms
            windows[begin_ms] = windows.get(begin_ms, 0) + limit.hits
            assert begin_ms <= now_ms < answer.bucket.expires_ms
            assert windows[begin_ms] <= limit.limit
    for begin_ms, next_ms in pairwise(sorted(windows)):
        limit = story[0][0]
        assert limit.behavior & GREGORIAN or next_ms - begin_ms >= limit.duration_ms


@given(story=plain)
def test_a_leaky_bucket_never_lets_more_pass_than_the_limit_and_what_has_leaked(
    story: list[Question],
) -> None:
    passed = [
        (now_ms, limit)
        for (limit, now_ms), answer in zip(story, answers(story), strict=True)
        if answer.allowed and limit.algorithm is Algorithm.LEAKY_BUCKET and not limit.behavior
    ]
    for first in range(len(passed)):
        hits = 0
        for now_ms, limit in passed[first:]:
            hits += limit.hits
            leaked = Fraction(limit.limit * (now_ms - passed[first][0]), limit.duration_ms)
            assert hits <= limit.limit + leaked


@given(story=stories())
def test_the_time_at_which_one_passes_is_exact(story: list[Question]) -> None:
    bucket: Bucket | None = None
    for limit, now_ms in story:
        passes_ms = passes_at_ms(bucket, limit, now_ms)

        assert passes_ms is not None
        assert passes_ms >= now_ms
        assert ask(bucket, limit, passes_ms).allowed
        for earlier_ms in {now_ms, (now_ms + passes_ms) // 2, passes_ms - 1}:
            if now_ms <= earlier_ms < passes_ms:
                assert not ask(bucket, limit, earlier_ms).allowed
        bucket = ask(bucket, limit, now_ms).bucket


@given(mixed=st.lists(st.tuples(limits(), pauses_ms), max_size=60), flag=st.sampled_from([0, DRAIN]))
def test_the_time_is_exact_also_among_limits_that_do_not_agree(
    mixed: list[tuple[RateLimit, int]], flag: int
) -> None:
    bucket, now_ms = None, NOON
    for limit, pause_ms in mixed:
        now_ms += pause_ms
        asked = attrs.evolve(limit, behavior=limit.behavior | flag)
        passes_ms = passes_at_ms(bucket, asked, now_ms)

        assert passes_ms is not None
        assert ask(bucket, asked, passes_ms).allowed
        assert passes_ms == now_ms or not ask(bucket, asked, passes_ms - 1).allowed
        bucket = ask(bucket, asked, now_ms).bucket


@given(mixed=st.lists(st.tuples(limits(), pauses_ms), max_size=60), hits=st.integers(1, 12))
def test_jobs_that_do_not_agree_on_a_limit_do_not_pass_without_bound(
    mixed: list[tuple[RateLimit, int]], hits: int
) -> None:
    """At most what the most generous of them allows, in the shortest duration of all: as a window, and as a leak."""
    bucket, now_ms, passed = None, 0, 0
    shortest_ms = min((limit.duration_ms for limit, _ in mixed if not limit.behavior), default=MINUTE_MS)
    for limit, pause_ms in mixed:
        now_ms += pause_ms
        if limit.behavior:
            continue
        answer = ask(bucket, attrs.evolve(limit, hits=min(hits, limit.limit)), now_ms)
        bucket = answer.bucket
        passed += answer.allowed * min(hits, limit.limit)
    most = max((limit.limit for limit, _ in mixed), default=0)
    assert passed <= most + Fraction(2 * most * now_ms, shortest_ms)


@given(story=stories())
def test_a_refusal_changes_nothing_unless_it_drains(story: list[Question]) -> None:
    bucket: Bucket | None = None
    for limit, now_ms in story:
        answer = ask(bucket, limit, now_ms)
        if not answer.allowed and not limit.behavior & DRAIN:
            assert answer.bucket is bucket
        bucket = answer.bucket


@given(story=stories())
def test_a_bucket_that_has_expired_is_as_good_as_none(story: list[Question]) -> None:
    for answer in answers(story):
        if answer.bucket is not None:
            for limit, _ in story:
                at_ms = answer.bucket.expires_ms
                assert ask(answer.bucket, limit, at_ms) == ask(None, limit, at_ms)


@given(story=stories())
def test_the_same_questions_leave_the_same_bucket(story: list[Question]) -> None:
    first = [answer.bucket for answer in answers(story)]

    # As it is after a restart: each bucket went through a row on its way to the next question.
    bucket: Bucket | None = None
    for (limit, now_ms), expected in zip(story, first, strict=True):
        bucket = ask(bucket and read_back(bucket), limit, now_ms).bucket
        assert bucket == expected


def read_back(bucket: Bucket) -> Bucket:
    return unpacker(Bucket)(from_bytes(to_bytes(packer(Bucket)(bucket))))


anything = st.integers(INT64_MIN, INT64_MAX)
wild_limits = st.builds(
    a_rate_limit,
    limit=st.one_of(anything, st.integers(1, INT64_MAX)),
    duration_ms=st.one_of(anything, st.integers(0, INT64_MAX), st.integers(0, 5)),
    hits=st.integers(-(1 << 31), (1 << 31) - 1),
    algorithm=algorithms,
    behavior=st.integers(-(1 << 31), (1 << 31) - 1),
)


@given(questions=st.lists(st.tuples(wild_limits, st.integers(0, INT64_MAX - 1)), max_size=10))
def test_no_number_that_a_client_can_send_leads_to_an_error(questions: list[Question]) -> None:
    questions.sort(key=lambda question: question[1])
    bucket: Bucket | None = None
    for limit, now_ms in questions:
        passes_ms = passes_at_ms(bucket, limit, now_ms)
        answer = ask(bucket, limit, now_ms)

        assert (passes_ms == now_ms) == answer.allowed
        assert (passes_ms is None) == bool(answer.reason)
        assert 0 <= answer.remaining <= max(limit.limit, 0)
        assert INT64_MIN <= answer.reset_ms <= INT64_MAX
        bucket = answer.bucket
        if bucket is not None:
            assert read_back(bucket) == bucket


# --- asking again --------------------------------------------------------------------------------------------------------


def a_retry(**but: Any) -> RateLimitRetry:
    return RateLimitRetry(**but)


@pytest.mark.parametrize(
    ("retry", "tries", "reset_ms", "due_ms"),
    [
        pytest.param(a_retry(), 0, 0, NOON + 100, id="the first retry waits the first backoff"),
        pytest.param(a_retry(), 3, 0, NOON + 800, id="which doubles"),
        pytest.param(a_retry(), 20, 0, NOON + 30_000, id="up to the longest"),
        pytest.param(a_retry(), 0, NOON + 29_999, NOON + 29_999, id="a reset within the longest is awaited"),
        pytest.param(a_retry(), 0, NOON + 30_000, NOON + 100, id="a later one is not"),
        pytest.param(a_retry(), 0, NOON, NOON + 100, id="nor one that is now"),
        pytest.param(a_retry(), 5_000, 0, NOON + 30_000, id="a power beyond the doubles"),
        pytest.param(
            a_retry(initial_backoff_ms=5, backoff_multiplier=0.5), 1, 0, NOON + 3, id="halves are rounded up"
        ),
        pytest.param(a_retry(backoff_multiplier=math.nan), 1, 0, NOON, id="no number waits 0"),
        pytest.param(a_retry(initial_backoff_ms=0), 7, 0, NOON, id="no backoff is no wait"),
        pytest.param(a_retry(max_backoff_ms=0), 0, NOON + 1, NOON, id="nor is a longest of 0"),
        pytest.param(
            a_retry(initial_backoff_ms=INT64_MAX, max_backoff_ms=INT64_MAX),
            1,
            0,
            INT64_MAX,
            id="it saturates",
        ),
    ],
)
def test_a_check_over_the_limit_is_tried_again(
    retry: RateLimitRetry, tries: int, reset_ms: int, due_ms: int
) -> None:
    assert retry_ms(retry, tries=tries, reset_ms=reset_ms, now_ms=NOON) == due_ms


def test_a_check_without_an_answer_is_tried_again_with_growing_pauses() -> None:
    retry = a_retry(initial_backoff_ms=70, max_backoff_ms=500, backoff_multiplier=2)

    waits = [error_retry_ms(retry, tries=tries, now_ms=NOON) - NOON for tries in range(5)]
    assert waits == [70, 140, 280, 500, 500]


@pytest.mark.parametrize(
    ("max_retries", "tries", "exhausted"),
    [
        pytest.param(0, 1_000_000, False, id="no maximum is as often as it takes"),
        pytest.param(2, 1, False, id="two retries: the second check has one left"),
        pytest.param(2, 2, True, id="the third check is the last"),
    ],
)
def test_retries_are_exhausted(max_retries: int, tries: int, exhausted: bool) -> None:
    assert is_exhausted(a_retry(max_retries=max_retries), tries) is exhausted


@given(
    initial_ms=anything,
    longest_ms=anything,
    factor=st.floats(),
    tries=st.integers(0, 1 << 32),
    reset_ms=anything,
)
def test_no_backoff_leads_beyond_64_bits(
    initial_ms: int, longest_ms: int, factor: float, tries: int, reset_ms: int
) -> None:
    retry = a_retry(initial_backoff_ms=initial_ms, max_backoff_ms=longest_ms, backoff_multiplier=factor)

    assert INT64_MIN <= retry_ms(retry, tries=tries, reset_ms=reset_ms, now_ms=NOON) <= INT64_MAX
    assert INT64_MIN <= error_retry_ms(retry, tries=tries, now_ms=NOON) <= INT64_MAX
