"""One statement: planned, bound, run within its bounds, in a session of its own.

Nothing that a statement does outlives it: it can only read, and nobody else sees its session.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pyarrow as pa

# Scans wait in these threads for pages of the store: with as many as there are cores a few would hold up all others.
os.environ.setdefault("TOKIO_WORKER_THREADS", "8")

import datafusion

from silo.errors import CallFailed, Invalid, SiloError
from silo.query.plan import wanted_of
from silo.query.provider import SOURCES, TableOfShard, needs_of
from silo.query.snapshot import ShardSnapshot, take
from silo.shard.shard import Shard

READ_ONLY = datafusion.SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
CONFIG = {
    # One thread a statement: its work is done under Python's lock anyway, and it reads no further than it must.
    "datafusion.execution.target_partitions": "1",
    "datafusion.execution.batch_size": "2048",
}


@attrs.define
class Statement:
    """A planned statement.

    Attributes:
        columns: of its result.
        explained: which index is walked for each of its tables, if it asks for that.
    """

    columns: pa.Schema
    explained: pa.RecordBatch | None
    _frame: Any
    _tables: Mapping[str, TableOfShard]

    @asynccontextmanager
    async def running(self, shard: Shard) -> AsyncIterator[AsyncIterator[pa.RecordBatch]]:
        """Run it on the rows of a shard as they are now; whoever leaves early stops it.

        Raises what `Shard.execute` raises, and CallFailed.
        """
        snapshot = await take(shard, needs_of(list(self._tables)))
        for table in self._tables.values():
            table.snapshot = snapshot
        try:
            yield self._batches(snapshot)
        finally:
            snapshot.release()

    async def _batches(self, snapshot: ShardSnapshot) -> AsyncIterator[pa.RecordBatch]:
        try:
            async for batch in self._frame.execute_stream():
                yield batch.to_pyarrow()
        except (asyncio.CancelledError, GeneratorExit, SiloError):
            raise
        except Exception as error:
            raise CallFailed(f"Query execution failed: {error}") from error
        if self.explained is not None:
            yield self.explained


async def plan(sql: str, parameters: Sequence[Any]) -> Statement:
    """Plan a statement, in a thread.  Raises Invalid, with the text that the wire has for it."""
    return await asyncio.to_thread(_plan, sql, parameters)


def _plan(sql: str, parameters: Sequence[Any]) -> Statement:
    session = datafusion.SessionContext(datafusion.SessionConfig(dict(CONFIG)).with_information_schema(True))
    every = {name: TableOfShard(name) for name in SOURCES}
    for name, table in every.items():
        session.register_dataset(name, table)
    try:
        frame = session.sql_with_options(sql, READ_ONLY)
    except Exception as error:
        raise Invalid(f"SQL error: {_text(error)}") from error
    highest = max((int(found) for found in _placeholders(frame)), default=0)
    if highest and parameters and highest > len(parameters):
        raise Invalid(f"SQL parameter error: No value found for placeholder with id ${len(parameters) + 1}")
    try:
        if parameters:
            values = {str(place): value for place, value in enumerate(parameters, 1)}
            frame = session.sql_with_options(sql, READ_ONLY, param_values=values)
        optimized = frame.optimized_logical_plan()
    except Exception as error:
        raise Invalid(
            f"SQL parameter error: {_text(error)}" if parameters else f"SQL error: {_text(error)}"
        ) from error
    wanted = wanted_of(optimized)
    used = {name: every[name] for name in wanted if name in every}
    for name, table in used.items():
        table.wanted = wanted[name]
    columns = frame.schema()
    explained = _explained(used, columns) if type(optimized.to_variant()).__name__ == "Explain" else None
    return Statement(columns, explained, frame, used)


def _placeholders(frame: Any) -> list[str]:
    """The numbers of the placeholders in a plan."""
    return re.findall(r"\$(\d+)", str(frame.logical_plan()))


def _explained(used: Mapping[str, TableOfShard], columns: pa.Schema) -> pa.RecordBatch:
    told = "\n".join(
        f"{name}[{SOURCES[name].strategy(table.wanted)}]" for name, table in sorted(used.items())
    )
    return pa.RecordBatch.from_arrays([pa.array(["silo_plan"]), pa.array([told])], names=columns.names).cast(
        columns
    )


def _text(error: BaseException) -> str:
    return str(error).removeprefix("DataFusion error: ")
