"""Tables as DataFusion wants them: a dataset from which it pulls batches, in threads of its own.

DataFusion hands down the conditions that pyarrow can express and takes it that we have applied them all, so each batch is
filtered here by the whole condition, whatever index it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.dataset

from silo.projections.attempts import ATTEMPTS
from silo.projections.concurrency import QUEUES
from silo.projections.counters import COUNTS
from silo.projections.jobs import JOBS
from silo.projections.leases import LEASES
from silo.projections.payloads import PAYLOADS
from silo.projections.refreshes import REFRESHES
from silo.projections.view import Table
from silo.query import jobs, others, tables
from silo.query.as_of import Moment
from silo.query.plan import NOTHING_SAID, Wanted
from silo.query.snapshot import ShardSnapshot

Lists = Callable[[ShardSnapshot, Wanted, frozenset[str]], Iterator[list[tuple[Any, ...]]]]
InColumns = Callable[
    [ShardSnapshot, Wanted, frozenset[str]],
    tuple[Iterator[pa.RecordBatch], Iterator[list[tuple[Any, ...]]]] | None,
]


def by_tenant(wanted: Wanted) -> str:
    tenant = wanted.one("tenant")
    return f"FullScan(tenant={tenant!r})" if tenant is not None else "FullScan()"


@attrs.frozen
class Source:
    """Where the rows of a table come from.

    Attributes:
        lists: makes them.
        needs: the tables of the shard that are read for it.
        strategy: says which index answers, for EXPLAIN.
        in_columns: gives those that are stored in columns, in batches that have the needed ones at least, and the rest as
            lists; or None, if it is better to make them all.
    """

    lists: Lists
    needs: tuple[Table[Any], ...]
    strategy: Callable[[Wanted], str] = by_tenant
    in_columns: InColumns | None = None


def _by_seq(wanted: Wanted) -> str:
    least, most = wanted.least.get("seq"), wanted.most.get("seq")
    only = wanted.one("seq")
    if only is not None:
        least = most = only
    return f"Log(seq={'' if least is None else least}..{'' if most is None else most})"


SOURCES: dict[str, Source] = {
    "jobs": Source(jobs.job_rows, (JOBS, COUNTS, PAYLOADS), jobs.strategy, jobs.jobs_in_columns),
    "tasks": Source(jobs.task_rows, (JOBS, COUNTS, REFRESHES)),
    "queues": Source(jobs.queue_rows, (JOBS, COUNTS)),
    "tenant_counts": Source(others.tenant_count_rows, (COUNTS,)),
    "queue_counts": Source(others.queue_count_rows, (QUEUES,)),
    "attempts": Source(jobs.attempt_rows, (ATTEMPTS, JOBS, PAYLOADS)),
    "leases": Source(others.lease_rows, (LEASES,)),
    "events": Source(others.event_rows, (), _by_seq, others.events_in_columns),
}


class TableOfShard(pyarrow.dataset.Dataset):  # type: ignore[misc]
    """One table for one statement.

    Attributes:
        moment: when it is looked at; None: now.
        wanted: what the statement asks of it; to be set when that is planned.
        snapshot: the shard's rows; to be set before it runs.
    """

    # The base class has nothing to be initialised with: it is only asked what is defined here.
    def __init__(self, name: str, moment: Moment | None = None) -> None:
        self.name = name
        self.moment = moment
        self.wanted: Wanted = NOTHING_SAID
        self.snapshot: ShardSnapshot | None = None

    @property
    def schema(self) -> pa.Schema:
        return tables.SCHEMAS[self.name]

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **_: Any) -> Scan:  # noqa: A002
        return Scan(self, columns, filter)

    def get_fragments(self, filter: Any = None) -> Iterator[Fragment]:  # noqa: A002
        return iter([Fragment(self)])


@attrs.frozen
class Fragment:
    """All of a table."""

    table: TableOfShard

    def scanner(
        self,
        schema: Any = None,
        columns: Sequence[str] | None = None,
        filter: Any = None,  # noqa: A002
        batch_size: Any = None,
    ) -> Scan:
        return Scan(self.table, columns, filter)


class Scan:
    """A walk through a table: of the columns that are wanted, the rows that fit."""

    def __init__(self, table: TableOfShard, columns: Sequence[str] | None, condition: Any) -> None:
        self._table = table
        self._columns = list(table.schema.names if columns is None else columns)
        self._condition = condition
        self._is_never = False
        if isinstance(condition, pa.BooleanScalar):
            # Planning has found out that it always holds, or never.
            self._condition, self._is_never = None, not condition.as_py()

    @property
    def projected_schema(self) -> pa.Schema:
        return pa.schema([self._table.schema.field(name) for name in self._columns])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        table, snapshot = self._table, self._table.snapshot
        assert snapshot is not None, "the statement runs"
        if self._is_never:
            return
        condition = "" if self._condition is None else str(self._condition)
        if table.name == "jobs" and not self._columns and self._is_about_tenant_alone(condition):
            # pyarrow's arrays of nulls take no room, however long they are.
            many = pa.nulls(jobs.count(snapshot, table.wanted.one("tenant")))
            yield pa.RecordBatch.from_arrays([many], names=["job"]).select([])
            return
        needed = frozenset(name for name in table.schema.names if name in self._columns or name in condition)
        for batch in self._batches(SOURCES[table.name], snapshot, needed):
            if self._condition is not None:
                batch = batch.filter(self._condition)  # noqa: PLW2901
            if batch.num_rows:
                yield batch.select(self._columns)

    def _batches(
        self, source: Source, snapshot: ShardSnapshot, needed: frozenset[str]
    ) -> Iterator[pa.RecordBatch]:
        wanted = self._table.wanted
        found = source.in_columns(snapshot, wanted, needed) if source.in_columns is not None else None
        batches, lists = found or ((), source.lists(snapshot, wanted, needed))
        yield from batches
        for rows in lists:
            if rows:
                yield _batch(self._table.schema, rows, needed)

    def _is_about_tenant_alone(self, condition: str) -> bool:
        """Whether the condition is none, or asks for one tenant and nothing else."""
        tenant = self._table.wanted.one("tenant")
        return not condition or (tenant is not None and condition == f'(tenant == "{tenant}")')


def _batch(schema: pa.Schema, rows: list[tuple[Any, ...]], needed: frozenset[str]) -> pa.RecordBatch:
    """Rows as columns.  One that nobody needs is not converted, but must be there for the places of the others."""
    columns = list(zip(*rows, strict=True))
    arrays = [
        pa.array(values, field.type) if field.name in needed else pa.nulls(len(rows), field.type)
        for values, field in zip(columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(
        arrays, schema=pa.schema([field.with_nullable(True) for field in schema])
    )


def needs_of(names: Sequence[str]) -> list[Table[Any]]:
    """The tables of a shard that are read for these tables of SQL."""
    return list(dict.fromkeys(chain.from_iterable(SOURCES[name].needs for name in names)))
