"""Row `micro`: what one event costs, and one row of a checkpoint."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from silo.domain.ids import Ids
from silo.events import codec
from silo.events.catalogue import Event
from silo.events.log import LOG_END, LOG_PREFIX, first_seq_of
from silo.projections.fold import apply
from silo.projections.view import MissingRows, NotLoaded
from silo.shard.checkpoint import Note, write_rows
from silo.shard.rows import Rows
from silo.shard.shard import Shard, ShardOptions
from silo.storage.database import Batch, Database
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec, open_database
from tools.bench import load
from tools.bench.bench import Bench
from tools.bench.home import work_as_the_server_does
from tools.bench.part import Found, Say
from tools.bench.replaying import never
from tools.bench.report import Figure

TASKS = 64
EVENTS_PER_JOB = 4


def figures(bench: Bench) -> Iterator[Figure]:
    with bench.directory() as directory:
        found = bench.part("micro", one_by_one, directory=directory, events=bench.sizes.micro_events)
    row = "micro"
    for step in ("encode", "decode", "fold"):
        yield Figure(row=row, name=step, value=found[step], unit="us/event")
    yield Figure(
        row=row,
        name="build a checkpoint",
        value=found["rows_per_s"],
        unit="rows/s",
        note=f"{found['rows']:,} rows of {found['events']:,} events",
    )
    yield Figure(row=row, name="and write it", value=found["write_ms"], unit="ms", fsync=False)


# --- parts ---------------------------------------------------------------------------------------------------------------


async def one_by_one(say: Say, *, directory: str, events: int) -> Found:
    work_as_the_server_does()
    records = await _records(say, jobs=load.whole_lots(events // EVENTS_PER_JOB))
    decoded: list[list[Event]] = []
    decode_s = _timed(lambda: decoded.extend(codec.decode(first, record) for first, record in records))
    encode_s = _timed(lambda: [codec.encode(group) for group in decoded])
    count = sum(map(len, decoded))

    rows = Rows()
    fold_s = _timed(lambda: _fold_all(decoded, rows))
    changed = len(rows.changes)
    spec = StoreSpec(backend="fs", path=f"{directory}/%shard%", fsync=False)
    database = await open_database(spec, "micro")
    build = _OnlyBuilds(database)
    began = time.perf_counter()
    await write_rows(build, rows.freeze(), Note(count, 1), time.perf_counter)  # type: ignore[arg-type]
    built = time.perf_counter()
    assert build.built is not None
    await database.write(build.built)
    written = time.perf_counter()
    await database.close()
    return {
        "events": count,
        "rows": changed,
        "encode": encode_s / count * 1e6,
        "decode": decode_s / count * 1e6,
        "fold": fold_s / count * 1e6,
        "rows_per_s": changed / (built - began),
        "write_ms": (written - built) * 1000,
    }


async def _records(say: Say, *, jobs: int) -> list[tuple[int, bytes]]:
    """The log of so many whole lives, as first sequence numbers and records."""
    database = MemoryDatabase()

    async def opened() -> Database:
        return database

    shard = Shard("micro", opened, options=never(ShardOptions()), ids=Ids(random.Random(1).randbytes))
    await shard.open()
    await load.life_cycle(shard, say, jobs=jobs, tasks=TASKS, in_flight=8 * TASKS)
    await shard.close()
    found = await database.scan(LOG_PREFIX, LOG_END, limit=1 << 40)
    return [(first_seq_of(key), record) for key, record in found]


def _fold_all(groups: list[list[Event]], rows: Rows) -> None:
    for events in groups:
        for event in events:
            _fold(event, rows)


def _fold(event: Event, rows: Rows) -> None:
    while True:
        try:
            apply(event, rows)
        except NotLoaded as absent:
            # Nothing is on disk: these are rows that begin here.
            rows.undo()
            _install_nothing(absent, rows)
        else:
            rows.keep()
            return


def _install_nothing(absent: NotLoaded, rows: Rows) -> None:
    missing = absent.missing
    assert isinstance(missing, MissingRows)
    rows.install(missing.table, [(key, None) for key in missing.keys])


class _OnlyBuilds:
    """A database that keeps the batch instead of writing it."""

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.built: Batch | None = None

    def batch(self) -> Batch:
        return self.inner.batch()

    async def write(self, batch: Batch) -> None:
        self.built = batch


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
