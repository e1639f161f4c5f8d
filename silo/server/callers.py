"""Who asks?  Every event remembers its caller: a worker by its id, a client by the name that it gives itself."""

from __future__ import annotations

from silo.server.interceptors import Context
from silo.shard.draft import Caller

ACTOR = "x-silo-actor"
ACTOR_CHARS_MAX = 64
"""The name is written down with every event, so it is cut where it becomes a text."""


def client(rpc: str, context: Context) -> Caller:
    """A client, by its `x-silo-actor` metadata."""
    return Caller(_name(context) or "client", rpc)


def worker(rpc: str, context: Context, worker_id: str = "") -> Caller:
    """A worker, by its id; where the call does not carry that, as a client names itself, or not at all."""
    return Caller(worker_id[:ACTOR_CHARS_MAX] or _name(context), rpc)


def _name(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == ACTOR:
            return str(value)[:ACTOR_CHARS_MAX]
    return ""
