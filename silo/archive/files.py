"""The kinds of files, Parquet with zstd: events, and rows as they stood after an event.

events-<first>-<last>.parquet     a row for each event, in order: what SQL shows of it, and its record in the log
rows-<seq>-<time>.parquet         a row for each row of the shard, in the order of the keys: key and value
jobs-<seq>-<time>.parquet         the jobs among them by columns, see job_columns.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from silo.archive import job_columns
from silo.errors import Corrupt
from silo.events import codec
from silo.events.catalogue import Event
from silo.events.shown import values
from silo.projections.jobs import JobRow
from silo.projections.view import Key

ROWS_PER_GROUP = 50_000
"""Whoever looks for one event reads so many."""

BYTES_PER_GROUP = 16 << 20
"""Or fewer, if their records or values come to this, as a row group is in memory as a whole."""

EVENTS_SCHEMA = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("time_ms", pa.int64(), nullable=False),
        pa.field("type", pa.utf8(), nullable=False),
        pa.field("tenant", pa.utf8()),
        pa.field("job_id", pa.utf8()),
        pa.field("task_id", pa.utf8()),
        pa.field("attempt", pa.uint32()),
        pa.field("queue_name", pa.utf8()),
        pa.field("worker_id", pa.utf8()),
        pa.field("actor", pa.utf8(), nullable=False),
        pa.field("method", pa.utf8(), nullable=False),
        pa.field("data", pa.utf8(), nullable=False),
        pa.field("record", pa.binary(), nullable=False),
    ]
)

ROWS_AT_ONCE = 8_192

ROWS_SCHEMA = pa.schema(
    [pa.field("key", pa.binary(), nullable=False), pa.field("value", pa.binary(), nullable=False)]
)

FORMAT = b"silo.rows_format"

_EVENTS = re.compile(r"events-(\d{20})-(\d{20})\.parquet")
_ROWS = re.compile(r"rows-(\d{20})-(\d+)\.parquet")


@attrs.frozen(order=True)
class Stretch:
    """The events from `first` to `last`, in one file."""

    first: int
    last: int

    @property
    def name(self) -> str:
        return f"events-{self.first:020}-{self.last:020}.parquet"


@attrs.frozen(order=True)
class Image:
    """All rows as they stood after the event `seq`, which was at `time_ms`."""

    seq: int
    time_ms: int

    @property
    def name(self) -> str:
        return f"rows-{self.seq:020}-{self.time_ms}.parquet"

    @property
    def name_of_jobs(self) -> str:
        return f"jobs-{self.seq:020}-{self.time_ms}.parquet"


def parse(names: Iterable[str]) -> tuple[list[Stretch], list[Image]]:
    """What there is, in order.  Other files are nobody's business."""
    stretches, images = list[Stretch](), list[Image]()
    for name in names:
        if found := _EVENTS.fullmatch(name):
            stretches.append(Stretch(int(found[1]), int(found[2])))
        elif found := _ROWS.fullmatch(name):
            images.append(Image(int(found[1]), int(found[2])))
    return sorted(stretches), sorted(images)


def write_events(file: Path, events: Iterable[Sequence[Event]]) -> None:
    """Write events that follow each other."""
    sorting = [pq.SortingColumn(0)]
    with pq.ParquetWriter(file, EVENTS_SCHEMA, compression="zstd", sorting_columns=sorting) as writer:
        told = ((*values(event), codec.encode((event,))) for page in events for event in page)
        for lot in _lots(told):
            writer.write_table(_table(EVENTS_SCHEMA, lot))


def write_rows(file: Path, rows: Iterable[Sequence[tuple[bytes, bytes]]], *, rows_format: str) -> None:
    """Write rows that are in the order of their keys."""
    schema = ROWS_SCHEMA.with_metadata({FORMAT: rows_format.encode()})
    sorting = [pq.SortingColumn(0)]
    with pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=False, sorting_columns=sorting
    ) as writer:
        for lot in _lots(chain.from_iterable(rows)):
            writer.write_table(_table(schema, lot))


def write_jobs(file: Path, jobs: Iterable[Sequence[tuple[Key, JobRow]]], *, rows_format: str) -> None:
    """Write jobs by their columns."""
    schema = job_columns.SCHEMA.with_metadata({FORMAT: rows_format.encode()})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for lot in _lots(job_columns.row(key, job) for page in jobs for key, job in page):
            writer.write_table(_table(schema, lot))


def read_rows(file: Path) -> Iterator[list[tuple[bytes, bytes]]]:
    """What `write_rows` wrote."""
    return rows_of(file.name, opened(file))


def opened(source: Path | IO[bytes]) -> pq.ParquetFile:
    """A file to be read a row group at a time; otherwise much of it would be fetched ahead, into memory."""
    return pq.ParquetFile(source, pre_buffer=False)


def rows_of(name: str, file: pq.ParquetFile) -> Iterator[list[tuple[bytes, bytes]]]:
    """All rows of an opened file."""
    for batch in in_batches(name, file, ROWS_AT_ONCE, ["key", "value"]):
        yield list(zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True))


def in_batches(
    name: str, file: pq.ParquetFile, rows: int, columns: list[str], groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of some row groups.  A batch lies within a group, the size of which is bounded."""
    for group in range(file.num_row_groups) if groups is None else groups:
        with reading(name):
            yield from file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise Corrupt for what pyarrow and the disk say of a file."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise Corrupt(f"archive file {name} cannot be read: {error}") from error


def _lots(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """As many as make a row group.  The last part of a row is the one that may be large."""
    lot, size = list[tuple[Any, ...]](), 0
    for row in rows:
        lot.append(row)
        size += len(row[-1])
        if len(lot) >= ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def _table(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema
    )
