"""The rows, and the sizes at which they are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import attrs

from tools.bench import (
    backlog,
    batch,
    idle,
    in_process,
    latency,
    limits,
    micro,
    opening,
    peers,
    replaying,
    sql,
    stream,
    unary,
)
from tools.bench.bench import Bench
from tools.bench.part import PartFailed
from tools.bench.report import Figure


@attrs.frozen(kw_only=True)
class Sizes:
    """How much of everything.

    Attributes:
        jobs: of the life cycle in process; `unary_jobs` the same over gRPC.
        backlogs: how many jobs wait while `drained` of them are done.
        logged: jobs in the log that is replayed.
        samples: calls of which the latency is measured.
        watched_s: how long an idle server is watched, and one at a steady pace.
        micro_events: events that are encoded, decoded and folded.
    """

    jobs: int
    unary_jobs: int
    backlogs: tuple[int, ...]
    drained: int
    logged: int
    samples: int
    watched_s: float
    micro_events: int

    def with_(self, *, jobs: int | None, backlogs: tuple[int, ...] | None) -> Sizes:
        """These sizes but for what is given."""
        return attrs.evolve(
            self,
            jobs=jobs or self.jobs,
            unary_jobs=jobs or self.unary_jobs,
            backlogs=backlogs or self.backlogs,
        )


FULL = Sizes(
    jobs=60_000,
    unary_jobs=15_000,
    backlogs=(100_000, 1_000_000),
    drained=20_000,
    logged=50_000,
    samples=2_000,
    watched_s=10,
    micro_events=40_000,
)

QUICK = Sizes(
    jobs=6_000,
    unary_jobs=2_000,
    backlogs=(10_000,),
    drained=2_000,
    logged=5_000,
    samples=200,
    watched_s=3,
    micro_events=8_000,
)


@attrs.frozen
class Row:
    """One row: what `--only` calls it leads here."""

    about: str
    figures: Callable[[Bench], Iterable[Figure]]


ROWS: dict[str, Row] = {
    "in-process": Row("a job's whole life in process; enqueue and drain alone; stalls", in_process.figures),
    "unary": Row("the same over plain gRPC calls, with a real server", unary.figures),
    "batch": Row("the same with many jobs in each call", batch.figures),
    "stream": Row(
        "the same by a worker's stream, also from a long backlog; enqueue to handler start", stream.figures
    ),
    "peers": Row("PgQueuer, Procrastinate and Celery, which it installs; only if asked for", peers.figures),
    "backlog": Row("drain from a long queue against an empty one; memory", backlog.figures),
    "limits": Row("a limit on each job against none; a queue with very many waiters", limits.figures),
    "open": Row("how soon a shard with many jobs is there after a crash", opening.figures),
    "replay": Row("events a second: open without a checkpoint, rebuild, verify", replaying.figures),
    "sql": Row("statements on a shard with many jobs", sql.figures),
    "latency": Row("one call by itself and at a steady pace; enqueue to lease", latency.figures),
    "idle": Row("objects written by a server without work, and by work", idle.figures),
    "micro": Row("us an event to encode, decode and fold; rows of a checkpoint", micro.figures),
}

UNLISTED = {"profile": Row("the life cycle in process under cProfile", in_process.profile)}


def measure(bench: Bench, names: Iterable[str]) -> bool:
    """Measure these rows, as often as the report wants.  Returns True if somebody interrupted."""
    try:
        for _ in range(bench.report.repeat):
            for name in names:
                _measure_row(bench, name, ROWS.get(name) or UNLISTED[name])
    except KeyboardInterrupt:
        bench.say("interrupted: what follows is what was measured until then")
        return True
    return False


def _measure_row(bench: Bench, name: str, row: Row) -> None:
    """Measure one row.  If it fails, the report says why, and the others follow."""
    bench.say(f"{name}: {row.about}")
    began = time.monotonic()
    try:
        for figure in row.figures(bench):
            bench.report.add(figure)
    except PartFailed as failure:
        bench.report.failures[name] = str(failure)
    bench.say(f"  {time.monotonic() - began:.0f} s")
