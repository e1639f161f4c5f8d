"""Values as people read them: moments, bytes, tables."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

UNDEFINED = 0
"""The MessagePack extension by which JavaScript clients say `undefined`."""


def moment(ms: int) -> str:
    """A time in milliseconds since the epoch: in local time, and as it is."""
    try:
        local = (datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)).astimezone()
    except (ValueError, OverflowError, OSError):
        # A start that lies so far ahead that the calendar has no year for it.
        return f"{ms} ms"
    return f"{local.isoformat(timespec='milliseconds')} ({ms} ms)"


def duration(ms: int) -> str:
    """A length of time, as exact as anybody cares."""
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 120_000:
        return f"{ms / 1_000:.1f} s"
    minutes, seconds = divmod(ms // 1_000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def unpacked(data: bytes) -> Any:
    """MessagePack as what JSON can say.  Raises ValueError if it is none."""
    try:
        return _plain(msgpack.unpackb(data, strict_map_key=False, timestamp=3))
    except (msgpack.UnpackException, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no MessagePack: {error}") from error


def as_json(data: bytes, *, indent: int | None = None) -> str:
    """MessagePack as JSON; what is none, as hex."""
    if not data:
        return ""
    try:
        return json.dumps(unpacked(data), indent=indent, ensure_ascii=False)
    except ValueError:
        return data.hex()


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {_key(key): _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case bytes():
            return value.hex()
        case datetime():
            return value.isoformat()
        case msgpack.ExtType():
            return None if value.code == UNDEFINED else value.data.hex()
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _key(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their longest text."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
