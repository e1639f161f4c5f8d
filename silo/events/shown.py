"""Events, and the payloads in them, as JSON: what tools and SQL show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs
import msgpack

from silo.domain.limits import ConcurrencyLimit, FloatingLimit, Limit
from silo.events.catalogue import Event
from silo.events.packing import packer

COMMON = frozenset({"tenant", "job_id", "task_id", "attempt", "queue", "worker_id"})
"""Fields that are shown by themselves, beside the others."""


def as_json(packed: bytes) -> str | None:
    """MessagePack as compact JSON; None if it is none, or says what JSON cannot."""
    try:
        value = msgpack.unpackb(packed, strict_map_key=False)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_text)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return None


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def other_fields(event: Event) -> str:
    """The fields of an event that are not common ones, as JSON.  Bytes are the JSON of their MessagePack, or in hex."""
    kind = type(event)
    names = [field.name for field in attrs.fields(kind) if field.init]
    packed = dict(zip(names, packer(kind)(event), strict=True))
    told = {name: _shown(value) for name, value in packed.items() if name not in COMMON}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def values(event: Event, *, with_data: bool = True) -> tuple[Any, ...]:
    """An event as a row: seq, time, type, the common fields, actor, method, and the others as JSON (empty if not wanted)."""
    return (
        event.seq,
        event.time_ms,
        type(event).__name__,
        getattr(event, "tenant", None),
        getattr(event, "job_id", None),
        getattr(event, "task_id", None),
        getattr(event, "attempt", None),
        getattr(event, "queue", None),
        getattr(event, "worker_id", None),
        event.actor,
        event.method,
        other_fields(event) if with_data else "",
    )


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        text = as_json(value)
        return json.loads(text) if text is not None else value.hex()
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    return value


def limits_as_json(limits: Sequence[Limit]) -> str:
    return json.dumps([_limit(limit) for limit in limits], ensure_ascii=False, separators=(",", ":"))


def _limit(limit: Limit) -> dict[str, str]:
    match limit:
        case ConcurrencyLimit():
            kind, key, value = "Concurrency", limit.key, str(limit.max_concurrency)
        case FloatingLimit():
            kind, key, value = "Floating Concurrency", limit.key, str(limit.default_max_concurrency)
        case _:
            kind, key, value = "Rate", limit.unique_key, f"{limit.limit} per {limit.duration_ms}ms"
    return {"limit_type": kind, "key": key, "value": value}
