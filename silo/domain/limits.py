"""What a client may ask of a job's start: a slot among so many, or a hit on a rate.

A job lists its limits in an order, and an attempt passes them in that order: each is a *gate*.  Numbers are taken as clients
send them, also where they make no sense (a maximum of 0 lets nobody pass), because the protocol refuses none of them.  The
one list that is refused asks for the same key twice: such a job could wait for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag

import attrs

from silo.errors import Invalid


@attrs.frozen(kw_only=True)
class ConcurrencyLimit:
    """At most `max_concurrency` attempts of the tenant's jobs hold a slot of this key at the same time."""

    key: str
    max_concurrency: int


@attrs.frozen(kw_only=True)
class FloatingLimit:
    """The same, with a maximum that workers find out anew when it is older than `refresh_interval_ms`.

    The first job that names a key makes the limit; what later ones say of it does not count.
    """

    key: str
    default_max_concurrency: int
    refresh_interval_ms: int
    metadata: tuple[tuple[str, str], ...]


class Algorithm(IntEnum):
    """How a rate limit counts; the numbers are those of the wire."""

    TOKEN_BUCKET = 0
    LEAKY_BUCKET = 1


class Behavior(IntFlag):
    """What a rate limit does besides counting; the numbers are those of the wire, and can be added.

    The first three tell a cluster of limiters how to share their counts, and mean nothing to a limiter inside a shard.
    """

    BATCHING = 0
    NO_BATCHING = 1
    GLOBAL = 2
    DURATION_IS_GREGORIAN = 4
    RESET_REMAINING = 8
    DRAIN_OVER_LIMIT = 16


@attrs.frozen(kw_only=True)
class RateLimitRetry:
    """How a check is tried again that was answered *over the limit*; no `max_retries` (0) means as often as it takes."""

    initial_backoff_ms: int = 100
    max_backoff_ms: int = 30_000
    backoff_multiplier: float = 2.0
    max_retries: int = 0


@attrs.frozen(kw_only=True)
class RateLimit:
    """At most `limit` hits in `duration_ms`, counted under `name` and `unique_key` together.

    Attributes:
        hits: what passing costs; 0 only asks.
        behavior: `Behavior` flags.  With DURATION_IS_GREGORIAN `duration_ms` is no time but names a calendar interval:
            0 minute, 1 hour, 2 day, 3 week, 4 month, 5 year.
    """

    name: str
    unique_key: str
    limit: int
    duration_ms: int
    hits: int
    algorithm: Algorithm
    behavior: int
    retry: RateLimitRetry


SlotLimit = ConcurrencyLimit | FloatingLimit
Limit = ConcurrencyLimit | FloatingLimit | RateLimit


def check_limits(limits: Sequence[Limit]) -> None:
    """Refuse a list that asks for slots of one key twice.  Raises Invalid."""
    if len(limits) < 2:
        return
    keys: set[str] = set()
    for limit in limits:
        if isinstance(limit, RateLimit):
            continue
        if limit.key in keys:
            raise Invalid(f"duplicate concurrency key '{limit.key}'")
        keys.add(limit.key)
