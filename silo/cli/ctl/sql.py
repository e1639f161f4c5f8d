"""`siloctl query`: SQL over one shard."""

from __future__ import annotations

import json
from typing import Any

import click
import msgpack

from silo.cli.ctl.connection import Target, global_flags, pass_target
from silo.pb import silo_pb2 as pb

CELL_CHARS = 16


@click.command()
@click.argument("shard_id", metavar="SHARD")
@click.argument("sql")
@global_flags
@pass_target
def query(target: Target, shard_id: str, sql: str) -> None:
    """Run one SQL statement in a shard.

    \b
    Example:
      siloctl query 5b1f… "SELECT id, status_kind FROM jobs LIMIT 10"
    """
    request = pb.QueryRequest(shard=shard_id, sql=sql, tenant=target.tenant)
    reply = target.connect().owner_of(shard_id).call("Query", request)
    rows = [msgpack.unpackb(row.msgpack, strict_map_key=False) for row in reply.rows]
    target.show(
        {
            "columns": [{"name": column.name, "data_type": column.data_type} for column in reply.columns],
            "row_count": reply.row_count,
            "rows": rows,
        },
        as_text([column.name for column in reply.columns], rows),
    )


def as_text(columns: list[str], rows: list[dict[str, Any]]) -> str:
    """Right-aligned columns, and how many rows there are."""
    if not columns:
        return "Query returned no columns"
    lines = [[_cell(column) for column in columns], ["-" * CELL_CHARS for _ in columns]]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join([*(" | ".join(line) for line in lines), "", f"{len(rows)} row(s) returned"])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:CELL_CHARS].rjust(CELL_CHARS)
