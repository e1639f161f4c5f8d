"""What the settings mean to the rooms that know nothing of them: stores, shards and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from silo.settings import Database, Settings
from silo.shard.draft import Rules
from silo.shard.shard import ShardOptions
from silo.storage.stores import StoreSpec

STREAM_WINDOW_BYTES = 2 << 20
"""What a caller may send of one message before the server has read it; gRPC finds the connection's window itself."""

CALLS_MAX = (1 << 31) - 1


def store_spec(database: Database) -> StoreSpec:
    """Where the databases of all shards are."""
    wal = database.wal
    return StoreSpec(
        backend=database.backend,
        path=database.path,
        options=database.options,
        # A log in a bucket of the same kind is reached with the same options; any other takes its own from the environment.
        wal=StoreSpec(
            backend=wal.backend,
            path=wal.path,
            options=database.options if wal.backend == database.backend else {},
        )
        if wal
        else None,
        fsync=database.fsync,
        slatedb=database.slatedb,
        # SlateDB keeps both kinds of blocks in one cache.
        block_cache_bytes=database.memory_cache.block_cache_bytes + database.memory_cache.meta_cache_bytes,
        durability_timeout_ms=database.durability_timeout_ms,
    )


def shard_options(settings: Settings) -> ShardOptions:
    """How a shard works."""
    database, server = settings.database, settings.server
    return ShardOptions(
        rules=Rules(
            priority_weight_ms=settings.dispatch.priority_weight_ms,
            completed_expire_ms=_ms(database.completed_job_expire_s),
            terminal_expire_ms=_ms(database.terminal_job_expire_s),
            asks_limiter=bool(settings.gubernator.address),
        ),
        commit_interval_ms=database.commit_interval_ms,
        checkpoint_interval_ms=database.checkpoint_interval_ms,
        checkpoint_rows=database.checkpoint_rows,
        checkpoint_bytes=database.checkpoint_bytes,
        checkpoint_events=database.checkpoint_events,
        pending_commands_max=server.max_pending_commands,
        pending_bytes_max=server.max_pending_bytes,
    )


def _ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


def grpc_options(settings: Settings) -> list[tuple[str, Any]]:
    """The options of the gRPC server."""
    return [
        # Clients of this protocol ping every few seconds, also when nothing is under way.  gRPC's own rules call that an
        # attack and hang up.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_receive_message_length", settings.server.max_message_bytes),
        ("grpc.max_send_message_length", settings.server.max_message_bytes),
        ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
        # Of calls that it has not begun, gRPC refuses some beyond 1000 and all beyond 3000 as CANCELLED, which clients do
        # not try again.  The bound is ours: `server.max_pending_commands`, and beyond it UNAVAILABLE.
        ("grpc.server.max_pending_requests", CALLS_MAX),
        ("grpc.server.max_pending_requests_hard_limit", CALLS_MAX),
        # Otherwise a second server would share the port without a word, and each would get some of the calls.
        ("grpc.so_reuseport", 0),
    ]


def data_place(database: Database) -> str:
    """Where the data is, for people."""
    template = database.template
    return str(Path(template.root).absolute()) if template.kind == "fs" else template.root


def durability(database: Database) -> str:
    """What an acknowledged write survives, for people."""
    match database.template.kind:
        case "fs" if database.fsync:
            return "fsync on"
        case "fs":
            return "fsync off, so a power cut may lose acknowledged writes"
        case "memory":
            return "in memory, so nothing outlives this process"
        case _:
            return "as durable as the store"
