"""ExplainJob in words: where a job stands and why, and what has to happen next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import assert_never

import attrs

from silo.domain.limits import ConcurrencyLimit, FloatingLimit, Limit, RateLimit
from silo.pb import silo_ext_pb2 as ext
from silo.projections.jobs import Chain, JobRow, Place
from silo.server.convert import limit_messages
from silo.shard.explain import Ahead, Explanation, GateState
from silo.shard.holders import Holder

STANDINGS: dict[Place, ext.Standing] = {
    Place.TIMER: ext.STANDING_WAITS_FOR_TIME,
    Place.WAITING: ext.STANDING_WAITS_FOR_SLOT,
    Place.CHECKING: ext.STANDING_WAITS_FOR_RATE_LIMIT,
    Place.THROTTLED: ext.STANDING_WAITS_FOR_RATE_LIMIT,
    Place.READY: ext.STANDING_READY,
    Place.LEASED: ext.STANDING_RUNNING,
}


@attrs.frozen
class _Words:
    """`next_ms` is when it happens by itself; None: somebody has to do something."""

    summary: str
    next: str
    next_ms: int | None = None


def explanation(
    job_id: str, told: Explanation, holders: Sequence[Holder], last_error: str
) -> ext.ExplainJobResponse:
    """The answer to ExplainJob.

    Args:
        holders: of the queue that the job waits for.
        last_error: why an outside rate limiter gave no answer the last time; empty if it did.
    """
    row, chain = told.row, told.row.chain
    words = _ended(row) if chain is None else _words(told, chain, last_error)
    return ext.ExplainJobResponse(
        id=job_id,
        standing=STANDINGS[chain.place] if chain is not None else ext.STANDING_ENDED,
        since_ms=chain.since_ms if chain is not None else row.changed_ms,
        summary=words.summary,
        next=words.next,
        next_ms=words.next_ms,
        attempt=chain.attempt if chain is not None else row.attempts,
        gates=[_gate(gate) for gate in told.gates],
        line=_line(told) if told.ahead is not None else None,
        holders=[
            ext.Holder(job_id=holder.job_id, since_ms=holder.since_ms, worker_id=holder.worker_id)
            for holder in holders
        ],
    )


# --- in sentences --------------------------------------------------------------------------------------------------------


def _ended(row: JobRow) -> _Words:
    how = row.status.name.lower()
    why = f", {row.error_code}" if row.error_code else ""
    again = "" if row.status.name == "SUCCEEDED" else "; RestartJob would give it another run"
    return _Words(f"it {_did(how)} at {_at(row.changed_ms)}{why}", f"nothing: it has ended{again}")


def _did(status: str) -> str:
    return f"was {status}" if status == "cancelled" else status


def _words(told: Explanation, chain: Chain, last_error: str) -> _Words:
    match chain.place:
        case Place.TIMER:
            return _before_its_time(told.row, chain)
        case Place.WAITING:
            return _waits_for_slot(told)
        case Place.CHECKING:
            return _waits_for_check(told, chain, last_error)
        case Place.THROTTLED:
            return _waits_for_bucket(told)
        case Place.READY:
            return _ready(told)
        case Place.LEASED:
            return _runs(told, chain)
        case Place.GATE:
            return _Words("it is before a gate", "it goes on at once")
        case _:
            assert_never(chain.place)


def _before_its_time(row: JobRow, chain: Chain) -> _Words:
    what = "its first attempt" if chain.attempt == 1 else f"attempt {chain.attempt}"
    first = f", and comes to its limit {_named(row.spec.limits[0])}" if row.spec.limits else ""
    return _Words(
        f"{what} is not to start before {_at(chain.start_ms)}",
        f"it starts by itself then{first}; ExpediteJob would start it now",
        chain.start_ms,
    )


def _waits_for_slot(told: Explanation) -> _Words:
    gate = _here(told)
    name = _named(gate.limit)
    ahead = _ahead(told.ahead)
    if not gate.maximum:
        return _Words(f"{name} has a maximum of 0, which lets nobody in; {ahead}", *_raise(gate))
    summary = f"{gate.holders} of {gate.maximum} slots of {name} are held; {ahead}"
    if gate.holders is not None and gate.holders < gate.maximum:
        return _Words(summary, "slots are being given away just now")
    return _Words(
        summary, "one of those who hold a slot has to end, and those before this job have to be let in"
    )


def _raise(gate: GateState) -> tuple[str, int | None]:
    """What can raise a maximum of 0."""
    floating = gate.floating
    if floating is None:
        return "nothing will by itself: the job has to be cancelled, or enqueued with another limit", None
    if floating.refresh is None:
        return "a worker is asked for a new maximum then", floating.due_ms
    if floating.refresh.leased:
        return "the worker that was asked for a new maximum has to report it", None
    group = floating.refresh.task_group
    return f"a worker has to ask for work of task group '{group}', and find out a new maximum", None


def _waits_for_check(told: Explanation, chain: Chain, last_error: str) -> _Words:
    gate = _here(told)
    name = _named(gate.limit)
    tries = f"asked {_times(chain.tries)} so far"
    if isinstance(gate.limit, RateLimit) and gate.limit.retry.max_retries:
        tries += f", and given up when it is refused {_times(gate.limit.retry.max_retries + 1)}"
    who = "the outside limiter" if told.is_asked_outside else "the shard"
    if last_error:
        return _Words(
            f"{who} gave no answer about {name}: {last_error}; {tries}", "it is asked again", chain.due_ms
        )
    if not chain.tries:
        return _Words(f"{who} has not yet answered about {name}", "it has to answer")
    return _Words(f"{name} is used up; {tries}", "it is asked again", chain.due_ms)


def _waits_for_bucket(told: Explanation) -> _Words:
    gate = _here(told)
    return _Words(
        f"{_named(gate.limit)} is used up; {_ahead(told.ahead)}",
        "the first in the line passes then at the latest, and the others as the limit allows",
        told.line_ms,
    )


def _ready(told: Explanation) -> _Words:
    group = told.row.spec.task_group
    return _Words(
        f"it is ready for any worker of task group '{group}'; {_ahead(told.ahead)}",
        f"a worker has to ask for work of task group '{group}' (LeaseTasks)",
    )


def _runs(told: Explanation, chain: Chain) -> _Words:
    lease = told.lease
    worker = f"worker '{lease.worker_id}'" if lease is not None else "a worker"
    cancelled = " and has been asked to stop" if told.row.cancelled_ms is not None else ""
    return _Words(
        f"{worker} runs attempt {chain.attempt} of it since {_at(chain.since_ms)}{cancelled}",
        "the worker has to report how it ended; if it falls silent, its lease is taken back",
    )


def _here(told: Explanation) -> GateState:
    assert told.gate is not None, "a job that waits at a gate has one"
    return told.gate


def _ahead(ahead: Ahead | None) -> str:
    if ahead is None or not ahead.count:
        return "nobody is before it"
    return f"{'' if ahead.is_all else 'more than '}{ahead.count:,} {'is' if ahead.count == 1 else 'are'} before it"


def _named(limit: Limit) -> str:
    match limit:
        case ConcurrencyLimit():
            return f"the queue '{limit.key}'"
        case FloatingLimit():
            return f"the floating queue '{limit.key}'"
        case RateLimit():
            return f"the rate limit '{limit.name}' of '{limit.unique_key}'"
        case _:
            assert_never(limit)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _at(ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)
    except (ValueError, OverflowError, OSError):
        # So far ahead that the calendar has no year for it.
        return f"{ms} ms"
    return moment.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", " UTC")


# --- in messages ---------------------------------------------------------------------------------------------------------


def _gate(gate: GateState) -> ext.Gate:
    state = ext.Gate.STATE_HERE if gate.is_here else ext.Gate.STATE_AHEAD
    return ext.Gate(
        limit=limit_messages([gate.limit])[0],
        state=ext.Gate.STATE_PASSED if gate.passed else state,
        maximum=gate.maximum,
        holders=gate.holders,
        waiters=gate.waiters,
        remaining=gate.remaining,
        reset_ms=gate.reset_ms,
    )


def _line(told: Explanation) -> ext.Line:
    assert told.ahead is not None
    name = _key(told.gate.limit) if told.gate is not None else told.row.spec.task_group
    return ext.Line(
        name=name, ahead=told.ahead.count, more_ahead=not told.ahead.is_all, first=told.ahead.first
    )


def _key(limit: Limit) -> str:
    return f"{limit.name}:{limit.unique_key}" if isinstance(limit, RateLimit) else limit.key
