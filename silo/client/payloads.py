"""Payloads, results and error data are bytes to the broker; a codec makes them out of a program's values, and back."""

from __future__ import annotations

import json
from typing import Any, Protocol

import msgpack


class Codec(Protocol):
    """Turns values into bytes and back.  Those who enqueue and those who work must use the same."""

    def encode(self, value: Any) -> bytes:
        """The bytes of a value.  Raises TypeError or ValueError for one that it cannot encode."""
        ...

    def decode(self, data: bytes) -> Any:
        """The value of such bytes.  Raises ValueError for bytes that are none."""
        ...


class _Codec:
    """Shown by its name."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MessagePack(_Codec):
    """The convention of this protocol: None, bool, int, float, str, bytes, datetime with a zone, lists and dicts of these.

    Tools such as `siloctl` and SQL show it as JSON.
    """

    def encode(self, value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, datetime=True)
        return packed

    def decode(self, data: bytes) -> Any:
        # No bytes at all: another client enqueued the job without a payload.
        return msgpack.unpackb(data, strict_map_key=False, timestamp=3) if data else None


class Json(_Codec):
    """JSON as UTF-8, for programs whose other end cannot read MessagePack.  Tools show it as bytes."""

    def encode(self, value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> Any:
        return json.loads(data) if data else None


class Raw(_Codec):
    """Bytes as they are."""

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise TypeError(f"the codec Raw takes bytes, not {type(value).__name__}")
        return value

    def decode(self, data: bytes) -> Any:
        return data
