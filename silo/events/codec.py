"""A commit as bytes: one log record.

    record   [command, command, ...]                    everything that one group commit made durable
    command  [time_ms, actor, method, [event, ...]]     what one command decided
    event    [tag, version, prev, tenant, job_id, own fields ...]

Sequence numbers are not stored: the record's key is the first one and there are no gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import msgpack

from silo.errors import Corrupt
from silo.events.catalogue import EVENTS, Event, JobEvent
from silo.events.packing import from_bytes, packer, to_bytes, unpacker
from silo.events.upcasts import UPCASTS, Step, upcast


@attrs.frozen
class _Shape:
    """How one type of event is packed and unpacked."""

    kind: type[Event]
    pack: Callable[[Any], Sequence[Any]]
    unpack: Callable[[Sequence[Any]], Event]
    has_prev: bool


def _shape(kind: type[Event]) -> _Shape:
    return _Shape(kind, packer(kind), unpacker(kind), issubclass(kind, JobEvent))


_SHAPES: dict[int, _Shape] = {kind.TAG: _shape(kind) for kind in EVENTS}
_PACKERS: dict[type[Event], tuple[int, int, Callable[[Any], Sequence[Any]]]] = {
    kind: (kind.TAG, kind.VERSION, _SHAPES[kind.TAG].pack) for kind in EVENTS
}


ONE_COMMAND = 0x91
"""MessagePack: a list of one."""

_packed_array_header: Callable[[int], bytes] = msgpack.Packer().pack_array_header


def encode(events: Iterable[Event]) -> bytes:
    """One log record of these events, which must be stamped and in order."""
    commands: list[tuple[int, str, str, list[Any]]] = []
    stamp: tuple[int, str, str] | None = None
    packed: list[Any] = []
    for event in events:
        if (event.time_ms, event.actor, event.method) != stamp:
            stamp = (event.time_ms, event.actor, event.method)
            packed = []
            commands.append((*stamp, packed))
        tag, version, pack = _PACKERS[type(event)]
        if isinstance(event, JobEvent):
            packed.append((tag, version, event.prev, *pack(event)))
        else:
            packed.append((tag, version, *pack(event)))
    return to_bytes(commands)


def decode(first_seq: int, record: bytes, *, upcasts: dict[tuple[int, int], Step] = UPCASTS) -> list[Event]:
    """The events of one log record, stamped; the first has the sequence number `first_seq`.

    Raises Corrupt, which names the sequence number, for what cannot be understood: it is never skipped.
    """
    seq = first_seq
    events: list[Event] = []
    try:
        for time_ms, actor, method, packed in from_bytes(record):
            for array in packed:
                event = _decode_event(array, upcasts)
                event.seq, event.time_ms, event.actor, event.method = seq, time_ms, actor, method
                events.append(event)
                seq += 1
        if not events:
            raise ValueError("the record is empty")
    except Exception as error:
        raise Corrupt(f"event {seq} cannot be decoded: {type(error).__name__}: {error}") from error
    return events


def joined(records: Sequence[bytes]) -> bytes:
    """Records of one command each, which follow each other, as one record: all but their headers."""
    if len(records) == 1:
        return records[0]
    assert all(record[0] == ONE_COMMAND for record in records)
    return _packed_array_header(len(records)) + b"".join([record[1:] for record in records])


def job_names(first_seq: int, record: bytes) -> Iterator[tuple[int, str, str]]:
    """Which jobs the events of a record are about: sequence number, tenant, job id.  Quicker than to decode them.

    Raises what `decode` raises.
    """
    if any(
        tag not in _SHAPES or version != _SHAPES[tag].kind.VERSION
        for *_, packed in from_bytes(record)
        for tag, version, *_ in packed
    ):
        for event in decode(first_seq, record):
            if isinstance(event, JobEvent):
                yield event.seq, event.tenant, event.job_id
        return
    seq = first_seq
    for *_, packed in from_bytes(record):
        for array in packed:
            if _SHAPES[array[0]].has_prev:
                # Behind tag, version and `prev` come the fields, those of JobEvent first.
                yield seq, array[3], array[4]
            seq += 1


def _decode_event(array: list[Any], upcasts: dict[tuple[int, int], Step]) -> Event:
    tag, version, *fields = array
    shape = _SHAPES.get(tag)
    if shape is None:
        raise ValueError(f"its type {tag} is unknown to this program")
    prev = fields.pop(0) if shape.has_prev else 0
    if version != shape.kind.VERSION:
        fields = upcast(tag, version, shape.kind.VERSION, fields, upcasts)
    event = shape.unpack(fields)
    if isinstance(event, JobEvent):
        event.prev = prev
    return event
