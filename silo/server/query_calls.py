"""SQL: `Query` for results that fit into one message, `QueryArrow` for any.

The order of what can go wrong is part of the wire contract: the shard, then how many statements it has under way, then the
text, the parameters, and the run.

What runs statements is imported by the first of them: it takes 80 MB, which a broker without SQL need not have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from silo.errors import Exhausted, Invalid, TimedOut
from silo.pb import silo_pb2 as pb
from silo.server.interceptors import Context
from silo.server.shards import Shards
from silo.settings import Server

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

SQL_LOGGED_CHARS = 512


class Statements:
    """The bounds of statements, and how many each shard has under way."""

    def __init__(self, settings: Server) -> None:
        self.settings = settings
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def admitted(self, shard_id: str) -> Iterator[None]:
        """While one more is under way.  Raises Exhausted if there are enough."""
        most = self.settings.max_concurrent_statements
        if most and self._under_way[shard_id] >= most:
            raise Exhausted(
                f"shard {shard_id} has {most} statements already in flight (server.max_concurrent_statements)"
            )
        self._under_way[shard_id] += 1
        try:
            yield
        finally:
            self._under_way[shard_id] -= 1

    def timed_out(self) -> TimedOut:
        return TimedOut(f"Query exceeded statement timeout of {self.settings.statement_timeout_ms} ms")

    @property
    def timeout_s(self) -> float | None:
        return self.settings.statement_timeout_ms / 1000 or None

    def log_if_slow(self, kind: str, shard_id: str, began: float, rows: int, sql: str) -> None:
        slow_ms, took_ms = self.settings.slow_query_log_ms, (time.monotonic() - began) * 1000
        if slow_ms and took_ms >= slow_ms:
            logger.warning(
                "slow query%s: shard %s, %.0f ms, %d rows: %s",
                kind,
                shard_id,
                took_ms,
                rows,
                sql[:SQL_LOGGED_CHARS],
            )


class QueryCalls:
    """Mixed into the service, which has the shards."""

    shards: Shards
    statements: Statements

    async def Query(self, request: pb.QueryRequest, context: Context) -> pb.QueryResponse:
        opened, statements = self.shards.resolve(request.shard), self.statements
        from silo.query import statement
        from silo.query.encoding import type_name

        began = time.monotonic()
        with statements.admitted(opened.id):
            planned = await statement.plan(request.sql, _values(request.parameters))
            reply = pb.QueryResponse(
                columns=[
                    pb.ColumnInfo(name=field.name, data_type=type_name(field.type))
                    for field in planned.columns
                ]
            )
            try:
                async with asyncio.timeout(statements.timeout_s), planned.running(opened.shard) as batches:
                    await self._gather(batches, reply)
            except TimeoutError:
                raise statements.timed_out() from None
        statements.log_if_slow("", opened.id, began, reply.row_count, request.sql)
        return reply

    async def _gather(self, batches: AsyncIterator[pa.RecordBatch], reply: pb.QueryResponse) -> None:
        from silo.query.encoding import rows_of

        most, size = self.statements.settings.max_result_bytes, 0
        async for batch in batches:
            size += batch.nbytes
            reply.row_count += batch.num_rows
            if most and size > most:
                raise Exhausted(
                    f"query result exceeded max_result_bytes ({most} bytes) after {reply.row_count} rows; "
                    "add a LIMIT, project fewer columns, or use QueryArrow"
                )
            reply.rows.extend(pb.SerializedBytes(msgpack=row) for row in rows_of(batch))

    async def QueryArrow(
        self, request: pb.QueryArrowRequest, context: Context
    ) -> AsyncIterator[pb.ArrowIpcMessage]:
        opened, statements = self.shards.resolve(request.shard), self.statements
        from silo.query import statement

        began, rows, sent = time.monotonic(), 0, False
        with statements.admitted(opened.id):
            planned = await statement.plan(request.sql, _values(request.parameters))
            async with planned.running(opened.shard) as batches:
                while True:
                    try:
                        # Each batch by itself: a reader may take his time, and one that stalls is gRPC's to deal with.
                        async with asyncio.timeout(statements.timeout_s):
                            batch = await anext(batches, None)
                    except TimeoutError:
                        raise statements.timed_out() from None
                    if batch is None:
                        break
                    rows, sent = rows + batch.num_rows, True
                    yield pb.ArrowIpcMessage(ipc_data=_whole_stream(batch))
            if not sent:
                # An empty batch, so that readers learn the columns of a result without rows, too.
                yield pb.ArrowIpcMessage(ipc_data=_whole_stream(_no_rows(planned.columns)))
        statements.log_if_slow(" (arrow)", opened.id, began, rows, request.sql)


def _whole_stream(batch: pa.RecordBatch) -> bytes:
    """A batch as an Arrow IPC stream of its own: schema, batch, end."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _no_rows(columns: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array([], column.type) for column in columns], schema=columns)


def _values(parameters: Iterable[pb.QueryParameter]) -> list[Any]:
    """What is bound to $1, $2 and so on.  Raises Invalid for one that says nothing."""
    return [_value(parameter) for parameter in parameters]


def _value(parameter: pb.QueryParameter) -> Any:
    match parameter.WhichOneof("value"):
        case None:
            raise Invalid("query parameter is missing a value")
        case "null_value":
            return None
        case "uint64_value":
            import pyarrow as pa

            return pa.scalar(parameter.uint64_value, pa.uint64())
        case name:
            return getattr(parameter, name)
