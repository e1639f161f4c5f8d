"""Limits as clients state them."""

from __future__ import annotations

import time
from typing import Any

from silo.pb import silo_pb2 as pb


def slots(maximum: int = 1, key: str = "queue") -> pb.Limit:
    """At most so many jobs with this key hold a slot."""
    return pb.Limit(concurrency=pb.ConcurrencyLimit(key=key, max_concurrency=maximum))


def floating(
    default: int = 1, key: str = "queue", *, interval_ms: int = 3_600_000, **metadata: str
) -> pb.Limit:
    """The same, with a maximum that workers find out."""
    return pb.Limit(
        floating_concurrency=pb.FloatingConcurrencyLimit(
            key=key, default_max_concurrency=default, refresh_interval_ms=interval_ms, metadata=metadata
        )
    )


def rate(limit: int = 1, key: str = "rate", *, duration_ms: int = 3_600_000, **but: Any) -> pb.Limit:
    """A token bucket, in an hour unless a test says otherwise, of which one hit is asked for."""
    usual = {"name": "name", "unique_key": key, "limit": limit, "duration_ms": duration_ms, "hits": 1}
    return pb.Limit(rate_limit=pb.GubernatorRateLimit(**usual | but))


def retry(max_retries: int = 0, *, initial_ms: int = 10, max_ms: int = 20) -> pb.RateLimitRetryPolicy:
    """How a check is tried again; no number of retries means as often as it takes."""
    return pb.RateLimitRetryPolicy(
        initial_backoff_ms=initial_ms, max_backoff_ms=max_ms, backoff_multiplier=2, max_retries=max_retries
    )


AGAIN_AT_ONCE = pb.RetryPolicy(retry_count=3)
"""A job that fails is tried again without a wait."""

AGAIN_IN_AN_HOUR = pb.RetryPolicy(
    retry_count=3, initial_interval_ms=3_600_000, max_interval_ms=3_600_000, backoff_factor=1
)


def soon_ms(after_ms: int = 100) -> int:
    """A start that comes while the test runs."""
    return time.time_ns() // 1_000_000 + after_ms
