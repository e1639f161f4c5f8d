"""Rate limits inside the shard: how full each bucket is, who waits in its line, and which checks are due.

A chain that comes to a rate limit which is used up waits in one of two ways.  If it may wait for as long as it takes, it
stands in the *line* of the bucket, and the bucket's timer lets in the first one when there is room for it: a line of a
million costs as much as a line of one.  If it may try only so often, or if an outside service decides, its check has a time
of its own.
"""

from __future__ import annotations

import attrs

from silo.domain.jobs import JobSpec
from silo.domain.limits import RateLimit
from silo.errors import Corrupt
from silo.events.catalogue import (
    BucketForgotten,
    BucketWaited,
    ChainStarted,
    JobCancelled,
    JobEvent,
    JobExpedited,
    JobFailed,
    JobReimported,
    RateCheckDue,
    RateChecked,
    RateWaited,
)
from silo.projections.jobs import Chain, JobRow, Place, live_chain
from silo.projections.tasks import JobRef
from silo.projections.view import Key, Table, View, existing
from silo.ratelimit.buckets import Bucket

LOOKED_AT_AFTER_MS = 60_000
"""A bucket that nobody waits for is looked at when it may have expired, but not more often than this."""


@attrs.define
class BucketRow:
    """A bucket that is not as good as new, or that somebody waits for.

    Attributes:
        waiting: how many chains stand in its line.
        timer_ms: when it is to be looked at; where `BUCKET_TIMERS` has it.
    """

    bucket: Bucket | None
    waiting: int
    timer_ms: int


BUCKETS = Table("buckets", tag=0x58, row=BucketRow, catalogue=1)
"""(tenant, name, unique key)"""

BUCKET_LINES = Table("bucket_lines", tag=0x59, row=JobRef, front=3)
"""(tenant, name, unique key, virtual start, start, sequence number of the chain)"""

BUCKET_TIMERS = Table("bucket_timers", tag=0x5A, row=bytes, front=0)
"""(time, tenant, name, unique key): nothing"""

CHECKS = Table("rate_checks", tag=0x5B, row=JobRef, front=0)
"""(time, sequence number of the chain)"""


def bucket_key(tenant: str, limit: RateLimit) -> Key:
    return (tenant, limit.name, limit.unique_key)


def rate_limit(job: JobRow, gate: int) -> RateLimit:
    """The limit of a job at a gate that is about a rate.  Raises Corrupt if it is not."""
    limit = job.spec.limits[gate] if gate < len(job.spec.limits) else None
    if not isinstance(limit, RateLimit):
        raise Corrupt(f"gate {gate} of a job is no rate limit: its limits are {job.spec.limits}")
    return limit


def bucket_keys(tenant: str, spec: JobSpec) -> list[Key]:
    """The buckets that a job's chain may have to do with."""
    return [bucket_key(tenant, limit) for limit in spec.limits if isinstance(limit, RateLimit)]


def check_key(chain: Chain) -> Key:
    return (chain.due_ms, chain.seq)


def line_key(tenant: str, limit: RateLimit, chain: Chain) -> Key:
    """The place of a chain in the line of a bucket."""
    return (*bucket_key(tenant, limit), chain.virtual_start_ms, chain.start_ms, chain.seq)


def rate_check_due(event: RateCheckDue, job: JobRow, view: View) -> None:
    chain = live_chain(event, job)
    _leave(event.tenant, job, chain, view)
    view.insert(CHECKS, (event.time_ms, chain.seq), JobRef(event.tenant, event.job_id))


def rate_checked(event: RateChecked, job: JobRow, view: View) -> None:
    chain, limit = live_chain(event, job), rate_limit(job, event.gate)
    _leave(event.tenant, job, chain, view)
    if event.is_local:
        _fill(event, bucket_key(event.tenant, limit), view)
    if event.retry_ms is not None:
        view.insert(CHECKS, (event.retry_ms, chain.seq), JobRef(event.tenant, event.job_id))


def _fill(event: RateChecked, key: Key, view: View) -> None:
    """The bucket is as the check left it."""
    row = view.get(BUCKETS, key)
    if row is not None:
        view.put(BUCKETS, key, attrs.evolve(row, bucket=event.bucket))
        if _hits(event.bucket) < _hits(row.bucket):
            # Somebody who did not stand in line has reset it.
            _look_again(event, key, view)
    elif event.bucket is not None:
        timer_ms = max(event.bucket.expires_ms, event.time_ms + LOOKED_AT_AFTER_MS)
        view.insert(BUCKETS, key, BucketRow(event.bucket, 0, timer_ms))
        view.insert(BUCKET_TIMERS, (timer_ms, *key), b"")


def _hits(bucket: Bucket | None) -> int:
    return bucket.hits if bucket is not None else 0


def rate_waited(event: RateWaited, job: JobRow, view: View) -> None:
    chain, limit = live_chain(event, job), rate_limit(job, event.gate)
    _leave(event.tenant, job, chain, view)
    key = bucket_key(event.tenant, limit)
    row = view.get(BUCKETS, key)
    if row is None or not row.waiting:
        view.begin(BUCKET_LINES, key)
    view.insert(BUCKET_LINES, line_key(event.tenant, limit, chain), JobRef(event.tenant, event.job_id))
    if row is None:
        view.insert(BUCKETS, key, BucketRow(None, 1, event.passes_ms))
        view.insert(BUCKET_TIMERS, (event.passes_ms, *key), b"")
    else:
        timer_ms = min(row.timer_ms, event.passes_ms) if row.waiting else event.passes_ms
        _look_at(key, row, timer_ms, view, waiting=row.waiting + 1)


def _look_at(key: Key, row: BucketRow, timer_ms: int, view: View, *, waiting: int) -> None:
    view.put(BUCKETS, key, BucketRow(row.bucket, waiting, timer_ms))
    if timer_ms != row.timer_ms:
        view.delete(BUCKET_TIMERS, (row.timer_ms, *key))
        view.insert(BUCKET_TIMERS, (timer_ms, *key), b"")


def _look_again(event: JobEvent, key: Key, view: View) -> None:
    """The first in line may pass earlier than the bucket's timer says."""
    row = existing(view, BUCKETS, key, event)
    if row.waiting:
        _look_at(key, row, min(row.timer_ms, event.time_ms), view, waiting=row.waiting)


def bucket_waited(event: BucketWaited, _: None, view: View) -> None:
    key = (event.tenant, event.name, event.unique_key)
    row = existing(view, BUCKETS, key, event)
    _look_at(key, row, event.until_ms, view, waiting=row.waiting)


def bucket_forgotten(event: BucketForgotten, _: None, view: View) -> None:
    key = (event.tenant, event.name, event.unique_key)
    row = existing(view, BUCKETS, key, event)
    view.delete(BUCKETS, key)
    view.delete(BUCKET_TIMERS, (row.timer_ms, *key))


def chain_over(event: JobEvent, job: JobRow, view: View) -> None:
    """Whatever ended the job's chain, or sent it on: it waits for no rate limit any more."""
    chain = job.chain
    if chain is None:
        return
    _leave(event.tenant, job, chain, view)
    if chain.place is Place.THROTTLED:
        # It may have been the first, and have needed more than those behind it do.
        _look_again(event, bucket_key(event.tenant, rate_limit(job, chain.gate)), view)


def _leave(tenant: str, job: JobRow, chain: Chain, view: View) -> None:
    if chain.place is Place.CHECKING:
        view.delete(CHECKS, check_key(chain))
    elif chain.place is Place.THROTTLED:
        limit = rate_limit(job, chain.gate)
        view.delete(BUCKET_LINES, line_key(tenant, limit, chain))
        row = view.get(BUCKETS, bucket_key(tenant, limit))
        if row is None:
            raise Corrupt(f"somebody waits for the bucket {bucket_key(tenant, limit)}, which does not exist")
        view.put(BUCKETS, bucket_key(tenant, limit), attrs.evolve(row, waiting=row.waiting - 1))


FOLDS = {
    RateCheckDue: rate_check_due,
    RateChecked: rate_checked,
    RateWaited: rate_waited,
    BucketWaited: bucket_waited,
    BucketForgotten: bucket_forgotten,
    ChainStarted: chain_over,
    JobExpedited: chain_over,
    JobCancelled: chain_over,
    JobFailed: chain_over,
    JobReimported: chain_over,
}
