"""Does a rate limit let this one pass, when will it, and when is it asked again?

One hit after another, `ask` is all that happens to a bucket.  A bucket counts what has passed, in whole numbers, so that the
same questions lead to the same bucket on every machine:

- A *token bucket* counts the hits of a window, which begins with the first hit.  When the window ends all are forgotten.
- A *leaky bucket* forgets continuously: `limit` hits in `duration_ms`.

The meaning is that of Gubernator, so that a job may be judged by either.  Where Gubernator would let hits pass without bound
(as with a duration of 0) this lets none pass; docs/rate-limits.md lists the differences.
"""

from __future__ import annotations

import attrs

from silo.domain.int64 import INT64_MAX, power, rounded, saturated
from silo.domain.limits import Algorithm, Behavior, RateLimit, RateLimitRetry
from silo.ratelimit.intervals import Interval, span

# As plain integers: a member of an IntFlag makes a member of whatever it is combined with, which costs a microsecond.
BY_CALENDAR = int(Behavior.DURATION_IS_GREGORIAN)
RESET = int(Behavior.RESET_REMAINING)
DRAIN = int(Behavior.DRAIN_OVER_LIMIT)
INTERVALS = frozenset(map(int, Interval))


@attrs.define
class Bucket:
    """The hits that have passed and still count: `hits` and `part / parts` of one more, which is what a leak leaves over.

    It does not say by which limit or algorithm they have passed.  So it forgets nothing when these change, or when jobs that
    share it do not agree on them.

    Attributes:
        since_ms: when it held this much: the begin of the window, or the last time at which a leaky bucket was reckoned.
        expires_ms: from then on it is as if it did not exist.
    """

    since_ms: int
    expires_ms: int
    hits: int
    part: int
    parts: int


@attrs.frozen(kw_only=True)
class Answer:
    """What became of one question.

    Attributes:
        remaining: hits that could still pass.
        reset_ms: when all `limit` hits could pass again if nobody asked until then, in epoch ms; `now_ms` if they could now.
        bucket: what to keep for the next question.  None: nothing, the bucket is as good as new.
        reason: why this question can never be allowed; empty if it was, or could be later.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_ms: int
    bucket: Bucket | None
    reason: str = ""


def ask(bucket: Bucket | None, limit: RateLimit, now_ms: int) -> Answer:
    """Take `limit.hits` from what the limit still allows, or refuse.

    A refusal takes nothing, and leaves the bucket as it was; with DRAIN_OVER_LIMIT it takes all there is.
    RESET_REMAINING forgets everything before it takes.  No hits only ask: they pass if one hit could, and take nothing.
    What can never pass changes nothing, whatever its flags say: tried over and over, it would be in everybody's way.

    Args:
        bucket: what the last answer to this name and key said to keep; None if that was nothing.
        now_ms: the time of the question, in epoch ms.
    """
    if reason := _nonsense(limit):
        return Answer(
            allowed=False, limit=limit.limit, remaining=0, reset_ms=now_ms, bucket=bucket, reason=reason
        )
    if limit.hits > limit.limit:
        looked = ask(bucket, attrs.evolve(limit, hits=0, behavior=limit.behavior & BY_CALENDAR), now_ms)
        reason = f"{limit.hits} hits are more than the limit of {limit.limit}"
        return attrs.evolve(looked, allowed=False, reason=reason)

    found = _found(bucket, limit, now_ms)
    count = _count(found, limit, now_ms)
    allowed = count.excess <= 0
    taken = count.taken
    if allowed:
        taken += limit.hits * count.parts
    elif limit.hits and limit.behavior & DRAIN:
        taken = max(taken, count.most)
    left = count.bucket(taken) if taken != count.taken else found
    return Answer(
        allowed=allowed,
        limit=limit.limit,
        remaining=max(0, count.most - taken) // count.parts,
        reset_ms=min(_end_ms(left, limit), count.leaked_ms(taken)) if left else now_ms,
        bucket=left,
    )


def passes_at_ms(bucket: Bucket | None, limit: RateLimit, now_ms: int) -> int | None:
    """The earliest time from `now_ms` on at which `ask` would let this one pass, if nobody else asks before; None: never."""
    if _nonsense(limit) or limit.hits > limit.limit:
        return None

    found = _found(bucket, limit, now_ms)
    count = _count(found, limit, now_ms)
    if found is None or count.excess <= 0:
        return now_ms
    return min(_end_ms(found, limit), count.leaked_ms(count.excess))


# --- counting ------------------------------------------------------------------------------------------------------------


def _nonsense(limit: RateLimit) -> str:
    """Why nothing can be counted by this limit; empty if it can."""
    if limit.limit <= 0:
        return f"a limit of {limit.limit} lets nobody pass"
    if limit.hits < 0:
        return f"{limit.hits} hits cannot be taken"
    if limit.behavior & BY_CALENDAR:
        if limit.duration_ms not in INTERVALS:
            return f"{limit.duration_ms} names no interval of the calendar: those are 0 to 5, minute to year"
    elif limit.duration_ms <= 0:
        # A window that ends as it begins would count nothing, and let everybody pass.
        return f"a duration of {limit.duration_ms} ms lets nobody pass"
    return ""


def _window(limit: RateLimit, since_ms: int) -> tuple[int, int]:
    """From when to when hits count that were in the bucket at this time."""
    if limit.behavior & BY_CALENDAR:
        return span(Interval(limit.duration_ms), since_ms)
    return since_ms, since_ms + limit.duration_ms


def _end_ms(bucket: Bucket, limit: RateLimit) -> int:
    """When nothing of a bucket will count for this limit any more, unless it has leaked before."""
    return min(bucket.expires_ms, _window(limit, bucket.since_ms)[1])


def _found(bucket: Bucket | None, limit: RateLimit, now_ms: int) -> Bucket | None:
    """The bucket, unless nothing of it counts for this limit."""
    if bucket is None or limit.behavior & RESET or now_ms >= _end_ms(bucket, limit):
        return None
    return bucket


@attrs.frozen
class _Count:
    """A bucket as one limit sees it.

    All is reckoned in parts of a hit.  For a leaky bucket these are as many as the duration has milliseconds: a leak of
    `limit` hits in the duration is `limit` parts in each millisecond, and nothing needs to be rounded.  Only a bucket that
    was reckoned by another duration is, and then up, in favour of the limit.  A token bucket has one part a hit and no leak.

    Attributes:
        now_ms: the time at which `taken` is right.
        leak: parts that leave in each ms.
        most: the parts that the limit allows.
        excess: the parts that are in the way of the hits that are asked for.
    """

    limit: RateLimit
    now_ms: int
    since_ms: int
    parts: int
    leak: int
    taken: int
    most: int
    excess: int

    def leaked_ms(self, parts: int) -> int:
        """When this much will have leaked."""
        return saturated(self.now_ms + _ceil(parts, self.leak)) if self.leak else INT64_MAX

    def bucket(self, taken: int) -> Bucket:
        """The bucket with this much in it."""
        # What a leaky bucket holds is right now; the window of a token bucket began with its first hit.
        since_ms = self.now_ms if self.leak else self.since_ms
        expires_ms = min(_window(self.limit, since_ms)[1], self.leaked_ms(taken))
        hits, part = divmod(taken, self.parts)
        return Bucket(since_ms, expires_ms, hits, part, self.parts)


def _count(bucket: Bucket | None, limit: RateLimit, now_ms: int) -> _Count:
    since_ms = now_ms if bucket is None else bucket.since_ms
    # Time never runs backward in a shard; if it did, nothing would leak until it has caught up.
    now_ms = max(now_ms, since_ms)
    parts, leak = 1, 0
    if limit.algorithm == Algorithm.LEAKY_BUCKET:
        begin_ms, end_ms = _window(limit, since_ms)
        parts, leak = end_ms - begin_ms, limit.limit
    taken = 0
    if bucket is not None:
        held = bucket.hits * parts + _ceil(bucket.part * parts, bucket.parts)
        taken = max(0, held - leak * (now_ms - since_ms))
    most = limit.limit * parts
    # No hits pass where one could.
    excess = taken + max(limit.hits, 1) * parts - most
    return _Count(limit, now_ms, since_ms, parts, leak, taken, most, excess)


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


# --- asking again --------------------------------------------------------------------------------------------------------


def retry_ms(retry: RateLimitRetry, *, tries: int, reset_ms: int, now_ms: int) -> int:
    """When a check that was over the limit is worth another try, in epoch ms.

    At the reset, if that comes before the longest backoff is over; otherwise after a backoff that grows with each try.

    Args:
        tries: the checks that were over the limit before this one.
        reset_ms: when the limit says that it will be free again.
    """
    if now_ms < reset_ms < now_ms + retry.max_backoff_ms:
        return reset_ms
    return _after_backoff(retry, tries, now_ms)


def error_retry_ms(retry: RateLimitRetry, *, tries: int, now_ms: int) -> int:
    """When a check that got no answer is tried again, in epoch ms.

    The backoff grows here too: many thousands may wait for a service that is away, and must not all ask all the time.

    Args:
        tries: the checks before this one, answered or not.
    """
    return _after_backoff(retry, tries, now_ms)


def _after_backoff(retry: RateLimitRetry, tries: int, now_ms: int) -> int:
    backoff_ms = rounded(retry.initial_backoff_ms * power(retry.backoff_multiplier, tries))
    return saturated(now_ms + min(backoff_ms, retry.max_backoff_ms))


def is_exhausted(retry: RateLimitRetry, tries: int) -> bool:
    """Whether a check that is over the limit was the last one, after this many before it."""
    return 0 < retry.max_retries <= tries
