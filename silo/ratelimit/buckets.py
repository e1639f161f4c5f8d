"""Does a rate limit let this one pass, when will it, and when is it asked again?

One hit after another, `ask` is all that happens to a bucket.  A bucket counts what has passed, in whole numbers, so that the
same questions lead to the same bucket on every machine:

- A *token bucket* counts the hits of a window, which begins with the first hit.  When the window ends all are forgotten.
- A *leaky bucket* forgets continuously: `limit` hits in `duration_ms`.

The meaning is that of Gubernator, so that a job may be judged by either.  Where Gubernator would let hits pass without bound
this does not (`_senseless`, `_Count`), and docs/rate-limits.md lists the differences.
"""

from __future__ import annotations

import attrs

from silo.domain.int64 import power, rounded, saturated
from silo.domain.limits import Algorithm, Behavior, RateLimit, RateLimitRetry
from silo.ratelimit.intervals import Interval, span


@attrs.define
class Bucket:
    """The hits that have passed and still count: `hits` and `part / parts` of one more, which is what a leak leaves over.

    It does not say which algorithm or limit they have passed by.  So jobs which do not agree on one share their hits all
    the same, and none of them makes the bucket forget those of the others.

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
        reason: why this limit lets nobody pass, ever; empty if that is not so.
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
    A limit without sense lets nobody pass, and the answer has the reason.

    Args:
        bucket: what the last answer to this name and key said to keep; None if that was nothing.
        now_ms: the time of the question, in epoch ms.
    """
    reason = _senseless(limit)
    if reason:
        kept = None if bucket is None or now_ms >= bucket.expires_ms else bucket
        return Answer(
            allowed=False, limit=limit.limit, remaining=0, reset_ms=now_ms, bucket=kept, reason=reason
        )

    found = _found(bucket, limit, now_ms)
    count = _count(found, limit, now_ms)
    allowed = count.excess(limit) <= 0
    taken = count.taken
    if allowed:
        taken += limit.hits * count.parts
    elif limit.hits and limit.behavior & Behavior.DRAIN_OVER_LIMIT:
        taken = max(taken, count.most)
    left = count.bucket(taken) if taken != count.taken else found
    return Answer(
        allowed=allowed,
        limit=limit.limit,
        remaining=max(0, count.most - taken) // count.parts,
        reset_ms=min(left.expires_ms, count.gone_ms(taken)) if left else now_ms,
        bucket=left,
    )


def passes_at_ms(bucket: Bucket | None, limit: RateLimit, now_ms: int) -> int | None:
    """The earliest time from `now_ms` on at which `ask` would let this one pass, if nobody else asks before.

    None: never, as it asks for more than the limit or the limit has no sense.
    """
    if _senseless(limit) or limit.hits > limit.limit:
        return None

    found = _found(bucket, limit, now_ms)
    count = _count(found, limit, now_ms)
    excess = count.excess(limit)
    if found is None or excess <= 0:
        return now_ms
    return min(found.expires_ms, count.gone_ms(excess))


# --- counting ------------------------------------------------------------------------------------------------------------


def _senseless(limit: RateLimit) -> str:
    """Why nobody can pass this limit, whatever is in the bucket; empty if it can be counted."""
    if limit.limit <= 0:
        return f"a limit of {limit.limit} lets nobody pass"
    if limit.hits < 0:
        return f"{limit.hits} hits cannot be taken"
    if limit.behavior & Behavior.DURATION_IS_GREGORIAN:
        if limit.duration_ms not in list(Interval):
            return f"{limit.duration_ms} is no interval of the calendar: expected 0 to 5, minute to year"
    elif limit.duration_ms <= 0:
        # A window that ends as it begins would count nothing, and let everybody pass.
        return f"a duration of {limit.duration_ms} ms lets nobody pass"
    return ""


def _window(limit: RateLimit, since_ms: int) -> tuple[int, int]:
    """From when to when hits count that were in the bucket at this time."""
    if limit.behavior & Behavior.DURATION_IS_GREGORIAN:
        return span(Interval(limit.duration_ms), since_ms)
    return since_ms, since_ms + limit.duration_ms


def _found(bucket: Bucket | None, limit: RateLimit, now_ms: int) -> Bucket | None:
    """The bucket, unless what is in it counts no more for this limit."""
    if bucket is None or limit.behavior & Behavior.RESET_REMAINING or now_ms >= bucket.expires_ms:
        return None
    return bucket if now_ms < _window(limit, bucket.since_ms)[1] else None


@attrs.frozen
class _Count:
    """A bucket as one limit sees it.

    All is reckoned in parts of a hit.  For a leaky bucket these are as many as the duration has milliseconds: a leak of
    `limit` hits in the duration is `limit` parts in each millisecond, and nothing needs to be rounded.  Only a bucket that
    was reckoned by another duration is, and then up, in favour of the limit.  A token bucket has one part a hit, no leak.

    Attributes:
        now_ms: the time at which `taken` is right.
        since_ms: what a bucket that is made of this begins with.
        end_ms: when nothing of it counts any more, leak or not.
        leak: parts that leave in each ms.
        most: the parts that the limit allows.
    """

    now_ms: int
    since_ms: int
    end_ms: int
    parts: int
    leak: int
    taken: int
    most: int

    def excess(self, limit: RateLimit) -> int:
        """What is in the way of these hits.  Those that only ask need room for one."""
        return self.taken + max(limit.hits, 1) * self.parts - self.most

    def gone_ms(self, parts: int) -> int:
        """When this much of it will count no more."""
        return min(self.end_ms, self.now_ms + _ceil(parts, self.leak)) if self.leak else self.end_ms

    def bucket(self, taken: int) -> Bucket:
        """The bucket with this much in it."""
        hits, part = divmod(taken, self.parts)
        return Bucket(self.since_ms, self.gone_ms(taken), hits, part, self.parts)


def _count(bucket: Bucket | None, limit: RateLimit, now_ms: int) -> _Count:
    since_ms = now_ms if bucket is None else bucket.since_ms
    # Time never runs backward in a shard; if it did, nothing would leak until it has caught up.
    now_ms = max(now_ms, since_ms)
    begin_ms, end_ms = _window(limit, since_ms)
    is_leaky = limit.algorithm == Algorithm.LEAKY_BUCKET
    parts, leak = (end_ms - begin_ms, limit.limit) if is_leaky else (1, 0)
    taken = 0
    if bucket is not None:
        held = bucket.hits * parts + _ceil(bucket.part * parts, bucket.parts)
        taken = max(0, held - leak * (now_ms - since_ms))
    return _Count(
        now_ms=now_ms,
        since_ms=now_ms if is_leaky else since_ms,
        end_ms=saturated(end_ms),
        parts=parts,
        leak=leak,
        taken=taken,
        most=limit.limit * parts,
    )


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
    backoff_ms = rounded(retry.initial_backoff_ms * power(retry.backoff_multiplier, tries))
    return saturated(now_ms + min(backoff_ms, retry.max_backoff_ms))


def error_retry_ms(retry: RateLimitRetry, now_ms: int) -> int:
    """When a check that got no answer is tried again, in epoch ms: always after the first backoff."""
    return saturated(now_ms + retry.initial_backoff_ms)


def is_exhausted(retry: RateLimitRetry, tries: int) -> bool:
    """Whether a check that is over the limit was the last one, after this many before it."""
    return 0 < retry.max_retries <= tries
