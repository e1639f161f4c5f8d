"""One statement: planned, bound, run within its bounds, in a session of its own.

Nothing that a statement does outlives it: it can only read, and nobody else sees its session.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pyarrow as pa

# Scans wait in these threads for pages of the store: with as many as there are cores a few would hold up all others.
os.environ.setdefault("TOKIO_WORKER_THREADS", "8")

import datafusion
from datafusion.catalog import Table

from silo.errors import CallFailed, Invalid, SiloError
from silo.query.as_of import Moment, moment_of, state_at
from silo.query.plan import NOTHING_SAID, wanted_of
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
        tables: that it reads.
    """

    columns: pa.Schema
    explained: pa.RecordBatch | None
    tables: Sequence[TableOfShard]
    _frame: Any

    @asynccontextmanager
    async def running(self, shard: Shard) -> AsyncIterator[AsyncIterator[pa.RecordBatch]]:
        """Run it on the rows of a shard as they are now, or were; whoever leaves early stops it.

        Raises what `Shard.execute` raises, and CallFailed; Exhausted if it asks for a state that too many events lead to.
        """
        async with AsyncExitStack() as stack:
            live = [table for table in self.tables if table.moment is None]
            snapshot = await take(shard, needs_of([table.name for table in live]))
            stack.callback(snapshot.release)
            for table in live:
                table.snapshot = snapshot
            states: dict[Moment, ShardSnapshot] = {}
            for table in self.tables:
                if table.moment is not None:
                    if table.moment not in states:
                        states[table.moment] = await state_at(shard, table.moment)
                        stack.callback(states[table.moment].release)
                    table.snapshot = states[table.moment]
            yield self._batches()

    async def _batches(self) -> AsyncIterator[pa.RecordBatch]:
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
    session, tables = _session()
    try:
        frame = session.sql_with_options(sql, READ_ONLY)
    except Exception as error:
        raise Invalid(f"SQL error: {_text(error)}") from error
    try:
        if parameters:
            highest = max(
                (int(place) for place in re.findall(r"\$(\d+)", str(frame.logical_plan()))), default=0
            )
            if highest > len(parameters):
                raise Invalid(f"No value found for placeholder with id ${len(parameters) + 1}")
            values = {str(place): value for place, value in enumerate(parameters, 1)}
            session, tables = _session()
            frame = session.sql_with_options(sql, READ_ONLY, param_values=values)
        optimized = frame.optimized_logical_plan()
    except Exception as error:
        kind = "SQL parameter error" if parameters else "SQL error"
        raise Invalid(f"{kind}: {_text(error)}") from error
    wanted = wanted_of(optimized)
    used: list[TableOfShard] = []
    for name, each in tables.items():
        if name in wanted:
            used += each
            for table in each:
                # Several moments of one table are called by one name, and so read whole.
                table.wanted = wanted[name] if len(each) == 1 else NOTHING_SAID
    columns = frame.schema()
    explained = _explained(used, columns) if type(optimized.to_variant()).__name__ == "Explain" else None
    return Statement(columns, explained, used, frame)


def _session() -> tuple[Any, dict[str, list[TableOfShard]]]:
    """A session with all tables, and what it calls them; those of the past come when they are asked for."""
    session = datafusion.SessionContext(datafusion.SessionConfig(dict(CONFIG)).with_information_schema(True))
    tables: dict[str, list[TableOfShard]] = {}
    for name in SOURCES:
        tables[name] = [TableOfShard(name)]
        session.register_dataset(name, tables[name][0])
        if name != "events":
            past = tables[f"{name}_at()"] = []
            session.register_udtf(datafusion.udtf(partial(_table_at, name, past), f"{name}_at"))
    return session, tables


def _table_at(name: str, past: list[TableOfShard], *arguments: Any) -> Any:
    """A table as it was.  Called by DataFusion while it plans."""
    if len(arguments) != 1:
        raise Invalid(
            f"{name}_at wants one argument: an instant such as '2026-11-03 14:05', or a sequence number"
        )
    try:
        value = arguments[0].python_value()
    except TypeError as error:
        raise Invalid(
            f"the argument of {name}_at must be written out: it can be no column and no parameter"
        ) from error
    past.append(TableOfShard(name, moment_of(value.as_py())))
    return Table(past[-1])


def _explained(used: Sequence[TableOfShard], columns: pa.Schema) -> pa.RecordBatch:
    told = "\n".join(
        f"{table.name}{'' if table.moment is None else '_at'}[{SOURCES[table.name].strategy(table.wanted)}]"
        for table in used
    )
    return pa.RecordBatch.from_arrays([pa.array(["silo_plan"]), pa.array([told])], names=columns.names).cast(
        columns
    )


def _text(error: BaseException) -> str:
    """What is wrong.  What a table function has refused comes wrapped, with the traceback, in an error of DataFusion."""
    text = str(error).removeprefix("DataFusion error: ")
    refused = re.search(r"value: Invalid\([\"'](.*?)[\"']\), traceback:", text, re.DOTALL)
    return refused[1].replace("\\'", "'") if refused else text
