"""Which projection hears of which event, and in which order.

`apply` is pure: the same log gives the same rows, byte for byte (I11).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import chain
from typing import Any, get_args, get_origin

import attrs

from silo.events.catalogue import EVENTS, Event, JobEvent
from silo.projections import (
    attempts,
    concurrency,
    counters,
    cursors,
    cuts,
    erasures,
    jobs,
    leases,
    payloads,
    rates,
    refreshes,
    tasks,
)
from silo.projections.view import Table, View, existing

PROJECTIONS = (
    tasks,
    refreshes,
    concurrency,
    rates,
    leases,
    counters,
    payloads,
    attempts,
    jobs,
    cursors,
    erasures,
    cuts,
)
"""In the order in which they fold: `payloads` reads the rows of `attempts`, so it comes before them, as does `refreshes`
before `concurrency`."""

TABLES_OF: dict[str, tuple[Table[Any], ...]] = {
    "jobs": (jobs.JOBS, jobs.JOBS_BY_STATUS, jobs.JOBS_BY_METADATA, jobs.HOLDERS),
    "attempts": (attempts.ATTEMPTS,),
    "payloads": (payloads.PAYLOADS,),
    "tasks": (tasks.READY, tasks.TIMERS, tasks.FORGETTING),
    "concurrency": (
        concurrency.QUEUES,
        concurrency.WAITERS,
        concurrency.UNSETTLED,
        concurrency.REFRESHES_DUE,
    ),
    "refreshes": (refreshes.REFRESHES,),
    "rates": (rates.BUCKETS, rates.BUCKET_LINES, rates.BUCKET_TIMERS, rates.CHECKS),
    "leases": (leases.LEASES, leases.EXPIRIES),
    "counters": (counters.COUNTS,),
    "cursors": (cursors.CURSORS,),
    "erasures": (erasures.ERASURES,),
    "cuts": (cuts.CUTS,),
}
"""Which projection owns which tables, by its name."""

TABLES: tuple[Table[Any], ...] = tuple(chain.from_iterable(TABLES_OF.values()))


def _shape(kind: Any) -> str:
    """A type with everything that its packed form depends on."""
    if attrs.has(kind):
        attrs.resolve_types(kind)
        fields = ", ".join(f"{field.name}: {_shape(field.type)}" for field in attrs.fields(kind))
        return f"{kind.__name__}({fields})"
    parts = get_args(kind)
    return f"{get_origin(kind)}[{', '.join(map(_shape, parts))}]" if parts else str(kind)


ROWS_FORMAT = hashlib.sha256(
    "\n".join(f"{table.tag} {table.name} {_shape(table.row)}" for table in TABLES).encode()
).hexdigest()[:16]
"""Names how rows are laid out.  A program that finds rows of another format makes them anew."""

Fold = Callable[[Any, Any, View], None]
"""A fold is given an event, the row of its job as it was before (None if there is none, or none yet), and the rows."""


def _folds_of(kind: type[Event]) -> tuple[Fold, ...]:
    tables: list[dict[Any, Any]] = [projection.FOLDS for projection in PROJECTIONS]
    return tuple(table[kind] for table in tables if kind in table)


_FOLDS: dict[type[Event], tuple[Fold, ...]] = {kind: _folds_of(kind) for kind in EVENTS}


def apply(event: Event, view: View) -> None:
    """Fold one stamped event into the rows.

    Raises NotLoaded if a row that it needs is on disk; whoever calls undoes the rest.  Raises Corrupt if the event and
    the rows contradict each other, which no log that was written by `decide` does.
    """
    fold(event, job_before(event, view) if isinstance(event, JobEvent) else None, view)


def job_before(event: JobEvent, view: View) -> jobs.JobRow | None:
    """The row of the event's job as it is before the event; None for the event that begins a job."""
    if event.BEGINS_JOB:
        return None
    return existing(view, jobs.JOBS, (event.tenant, event.job_id), event)


def fold(event: Event, job: jobs.JobRow | None, view: View) -> None:
    """`apply`, for whoever knows the row of the event's job already; None for an event that has none."""
    for one in _FOLDS[type(event)]:
        one(event, job, view)
