"""Any event that there can be, for hypothesis."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import attrs
from hypothesis import strategies as st

from silo.domain.jobs import JobSpec
from silo.domain.limits import Algorithm, ConcurrencyLimit, FloatingLimit, Limit, RateLimit, RateLimitRetry
from silo.domain.retry import RetryPolicy
from silo.events.catalogue import EVENTS, Event, JobEvent
from silo.ratelimit.buckets import Bucket

int64 = st.integers(-(1 << 63), (1 << 63) - 1)
times = st.integers(0, (1 << 63) - 1)

policies = st.builds(
    RetryPolicy,
    retry_count=int64,
    initial_interval_ms=int64,
    max_interval_ms=int64,
    randomize_interval=st.booleans(),
    backoff_factor=st.floats(allow_nan=False),
)
limits = st.one_of(
    st.builds(ConcurrencyLimit, key=st.text(), max_concurrency=int64),
    st.builds(
        FloatingLimit,
        key=st.text(),
        default_max_concurrency=int64,
        refresh_interval_ms=int64,
        metadata=st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple),
    ),
    st.builds(
        RateLimit,
        name=st.text(),
        unique_key=st.text(),
        limit=int64,
        duration_ms=int64,
        hits=int64,
        algorithm=st.sampled_from(Algorithm),
        behavior=int64,
        retry=st.builds(
            RateLimitRetry,
            initial_backoff_ms=int64,
            max_backoff_ms=int64,
            backoff_multiplier=st.floats(allow_nan=False),
            max_retries=int64,
        ),
    ),
)


def key_of(limit: Limit) -> object:
    """A job may ask for slots of a key once."""
    return limit if isinstance(limit, RateLimit) else limit.key


specs = st.builds(
    JobSpec,
    priority=st.integers(0, 99),
    task_group=st.text(min_size=1),
    enqueue_time_ms=int64,
    retry_policy=st.none() | policies,
    metadata=st.lists(st.tuples(st.text(max_size=63), st.text(max_size=100)), max_size=16).map(tuple),
    limits=st.lists(limits, max_size=4, unique_by=key_of).map(tuple),
)
buckets = st.builds(Bucket, since_ms=times, expires_ms=times, hits=times, part=times, parts=times)

_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: int64,
    str: st.text(),
    bytes: st.binary(),
    JobSpec: specs,
    RetryPolicy: policies,
    bool: st.booleans(),
    Bucket: buckets,
    tuple[str, ...]: st.lists(st.text(), max_size=3).map(tuple),
    tuple[tuple[str, str], ...]: st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple),
}


def _values(kind: Any) -> st.SearchStrategy[Any]:
    if type(None) in get_args(kind):
        (other,) = (part for part in get_args(kind) if part is not type(None))
        return st.none() | _values(other)
    if kind in _VALUES:
        return _VALUES[kind]
    assert get_origin(kind) is None, f"say what values of {kind} there are"
    return st.sampled_from(kind)


def events_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Facts of one type."""
    attrs.resolve_types(kind)
    fields = {field.name: _values(field.type) for field in attrs.fields(kind) if field.init}
    return st.builds(kind, **fields)


@st.composite
def logs(draw: Any) -> list[Event]:
    """Stamped facts of all types, in order; neighbours may belong to one command."""
    events = draw(st.lists(st.one_of([events_of(kind) for kind in EVENTS]), min_size=1, max_size=8))
    seq = draw(st.integers(1, 1 << 40))
    stamp = (0, "", "")
    for number, event in enumerate(events):
        if draw(st.booleans()):
            stamp = draw(st.tuples(times, st.text(max_size=5), st.sampled_from(["Enqueue", ""])))
        event.seq = seq + number
        event.time_ms, event.actor, event.method = stamp
        if isinstance(event, JobEvent):
            event.prev = draw(st.integers(0, seq))
    return events
