"""ExplainJob: where does a job stand, behind whom, and what has to happen next?

A command that decides nothing: everything is told from the rows.
"""

from __future__ import annotations

from typing import Any

import attrs

from silo.domain.jobs import JobStatus
from silo.domain.limits import Behavior, FloatingLimit, Limit, RateLimit, SlotLimit
from silo.projections.concurrency import QUEUES, WAITERS, Floating, slot_limit, waiter_key
from silo.projections.jobs import Chain, JobRow, Place
from silo.projections.leases import LEASES, LeaseRow
from silo.projections.rates import BUCKET_LINES, BUCKETS, bucket_key, line_key, rate_limit
from silo.projections.tasks import READY, ready_key
from silo.projections.view import Key, Table, View
from silo.ratelimit.buckets import ask
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, require_gates, the_job

COUNTED_MAX = 1_000
"""Of those ahead in a line; whoever stands behind so many need not know how many exactly."""

NAMED_MAX = 5


@attrs.frozen(kw_only=True)
class GateState:
    """A limit of a job as it stands.

    Attributes:
        maximum, holders, waiters: of a queue, with the maximum that counts for this job; `waiters` also of a bucket.
        floating: of a queue whose maximum workers find out.
        remaining, reset_ms: of a bucket inside the shard.
    """

    limit: Limit
    passed: bool
    is_here: bool
    maximum: int | None = None
    holders: int | None = None
    waiters: int | None = None
    floating: Floating | None = None
    remaining: int | None = None
    reset_ms: int | None = None


@attrs.frozen(kw_only=True)
class Ahead:
    """Who stands before a job in a line; `is_all` is false if there are more than were counted."""

    count: int
    is_all: bool
    first: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Explanation:
    """Where a job stands.

    Attributes:
        gate: the limit that it waits at.
        ahead: those before it, if it stands in a line.
        line_ms: when the first in the line of a bucket may pass.
        lease: who runs it.
        is_asked_outside: whether an outside service decides rate limits.
    """

    row: JobRow
    gates: tuple[GateState, ...]
    gate: GateState | None
    ahead: Ahead | None
    line_ms: int | None
    lease: LeaseRow | None
    is_asked_outside: bool


def explain(name: JobName, draft: Draft) -> Explanation:
    """Say where a job stands.  Raises JobNotFound."""
    view = draft.view
    row = the_job(name, view)
    require_gates([(name.tenant, row.spec)], view)
    gates = tuple(_gate(name.tenant, row, number, draft) for number in range(len(row.spec.limits)))
    chain = row.chain
    return Explanation(
        row=row,
        gates=gates,
        gate=next((gate for gate in gates if gate.is_here), None),
        ahead=_ahead(name.tenant, row, chain, view) if chain is not None else None,
        line_ms=_line_ms(name.tenant, row, chain, view) if chain is not None else None,
        lease=view.get(LEASES, (chain.task_id,)) if chain and chain.place is Place.LEASED else None,
        is_asked_outside=draft.rules.asks_limiter,
    )


def _gate(tenant: str, row: JobRow, number: int, draft: Draft) -> GateState:
    chain, limit = row.chain, row.spec.limits[number]
    at = chain.gate if chain is not None else 0
    waits = chain is not None and chain.place in (Place.WAITING, Place.THROTTLED, Place.CHECKING)
    passed = row.status is JobStatus.RUNNING or number < at
    state = GateState(limit=limit, passed=passed, is_here=waits and number == at)
    if isinstance(limit, RateLimit):
        return state if draft.rules.asks_limiter else _with_bucket(state, tenant, limit, draft)
    queue = draft.view.get(QUEUES, (tenant, limit.key))
    floating = queue.floating if queue is not None else None
    return attrs.evolve(
        state,
        maximum=_maximum(limit, floating),
        holders=queue.holders if queue is not None else 0,
        waiters=queue.waiters if queue is not None else 0,
        floating=floating,
    )


def _maximum(limit: SlotLimit, floating: Floating | None) -> int:
    """What counts for a job with this limit."""
    if not isinstance(limit, FloatingLimit):
        return limit.max_concurrency
    return floating.maximum if floating is not None else limit.default_max_concurrency


def _with_bucket(state: GateState, tenant: str, limit: RateLimit, draft: Draft) -> GateState:
    row = draft.view.get(BUCKETS, bucket_key(tenant, limit))
    # To ask for nothing is to look.
    answer = ask(
        row.bucket if row is not None else None,
        attrs.evolve(limit, hits=0, behavior=limit.behavior & Behavior.DURATION_IS_GREGORIAN),
        draft.now_ms,
    )
    return attrs.evolve(
        state,
        waiters=row.waiting if row is not None else 0,
        remaining=answer.remaining,
        reset_ms=answer.reset_ms,
    )


def _ahead(tenant: str, row: JobRow, chain: Chain, view: View) -> Ahead | None:
    match chain.place:
        case Place.READY:
            key = ready_key(row.spec.task_group, chain)
            return _told(_before(READY, key, view))
        case Place.THROTTLED:
            key = line_key(tenant, rate_limit(row, chain.gate), chain)
            return _told(_before(BUCKET_LINES, key, view))
        case Place.WAITING:
            key = waiter_key(tenant, slot_limit(row, chain.gate), chain)
            queue = view.get(QUEUES, key[:2])
            lines = [line for line, _ in queue.lines] if queue is not None else []
            # Of those who go by other maxima, the ones with an earlier turn.
            return _told(
                [one for line in lines for one in _before(WAITERS, (*key[:2], line, *key[3:]), view)]
            )
        case _:
            return None


def _before(table: Table[Any], key: Key, view: View) -> list[tuple[Key, str]]:
    """The turns and ids of the jobs that stand in the line of this key before it, and no more than can be told."""
    queue = table.queue(key)
    front = view.first(table, queue, COUNTED_MAX + 1)
    return [(found[len(queue) :], row.job_id) for found, row in front if found < key]


def _told(before: list[tuple[Key, str]]) -> Ahead:
    first = [job_id for _, job_id in sorted(before)[:NAMED_MAX]]
    return Ahead(count=min(len(before), COUNTED_MAX), is_all=len(before) <= COUNTED_MAX, first=tuple(first))


def _line_ms(tenant: str, row: JobRow, chain: Chain, view: View) -> int | None:
    if chain.place is not Place.THROTTLED:
        return None
    bucket = view.get(BUCKETS, bucket_key(tenant, rate_limit(row, chain.gate)))
    return bucket.timer_ms if bucket is not None else None
