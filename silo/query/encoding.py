"""Batches as the rows of the wire, and Arrow's types by the names that clients know.

A row is a MessagePack map from the names of the columns to their values, in the order of the columns, doubles included.
What MessagePack cannot say, it says as text.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack
import pyarrow as pa

SIMPLE = {
    "null": "Null",
    "bool": "Boolean",
    "int8": "Int8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
    "halffloat": "Float16",
    "float": "Float32",
    "double": "Float64",
    "string": "Utf8",
    "large_string": "LargeUtf8",
    "string_view": "Utf8View",
    "binary": "Binary",
    "large_binary": "LargeBinary",
    "binary_view": "BinaryView",
    "date32[day]": "Date32",
    "date64[ms]": "Date64",
}
"""pyarrow's names of types, and those of Arrow's implementation in Rust, which the wire uses."""

UNITS = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}


def type_name(kind: pa.DataType) -> str:
    """A type as the wire spells it, as in `Utf8` or `Timestamp(Millisecond, None)`."""
    if (simple := SIMPLE.get(str(kind))) is not None:
        return simple
    if pa.types.is_timestamp(kind):
        zone = f'Some("{kind.tz}")' if kind.tz else "None"
        return f"Timestamp({UNITS[kind.unit]}, {zone})"
    if pa.types.is_duration(kind):
        return f"Duration({UNITS[kind.unit]})"
    if pa.types.is_time(kind):
        return f"Time{kind.bit_width}({UNITS[kind.unit]})"
    if pa.types.is_decimal(kind):
        return f"Decimal{kind.bit_width}({kind.precision}, {kind.scale})"
    if pa.types.is_map(kind):
        entries = f"Struct([{_field(kind.key_field)}, {_field(kind.item_field)}])"
        return f'Map(Field {{ name: "entries", data_type: {entries}, nullable: false }}, {str(kind.keys_sorted).lower()})'
    if pa.types.is_list(kind):
        return f"List({_field(kind.value_field)})"
    if pa.types.is_struct(kind):
        return f"Struct([{', '.join(_field(kind.field(at)) for at in range(kind.num_fields))}])"
    return str(kind)


def _field(field: pa.Field) -> str:
    nullable = str(field.nullable).lower()
    return f'Field {{ name: "{field.name}", data_type: {type_name(field.type)}, nullable: {nullable} }}'


def rows_of(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Each row of a batch as MessagePack."""
    packer = msgpack.Packer()
    names = [packer.pack(name) for name in batch.schema.names]
    columns = [list(map(_packed_by(packer, column.type), column.to_pylist())) for column in batch.columns]
    head = packer.pack_map_header(len(names))
    for values in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
        row = head
        for name, value in zip(names, values, strict=True):
            row += name + value
        yield row


def _packed_by(packer: msgpack.Packer, kind: pa.DataType) -> Callable[[Any], bytes]:
    """A function from a value of a column to its MessagePack."""
    plain = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    if plain or pa.types.is_boolean(kind) or pa.types.is_null(kind) or pa.types.is_float64(kind):
        return packer.pack  # type: ignore[no-any-return]
    if pa.types.is_float32(kind):
        single = msgpack.Packer(use_single_float=True)
        return single.pack  # type: ignore[no-any-return]
    if pa.types.is_timestamp(kind) and kind.unit == "ms":
        return lambda value: packer.pack(None if value is None else round(value.timestamp() * 1000))
    return lambda value: packer.pack(None if value is None else displayed(value, kind))


def displayed(value: Any, kind: pa.DataType) -> str:
    """A value as Arrow's implementation in Rust displays it; null is nothing."""
    if value is None:
        return ""
    if pa.types.is_map(kind):
        pairs: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else value
        told = (f"{displayed(key, kind.key_type)}: {displayed(item, kind.item_type)}" for key, item in pairs)
        return "{" + ", ".join(told) + "}"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "[" + ", ".join(displayed(item, kind.value_type) for item in value) + "]"
    if pa.types.is_struct(kind):
        fields = (kind.field(at) for at in range(kind.num_fields))
        return (
            "{"
            + ", ".join(f"{field.name}: {displayed(value[field.name], field.type)}" for field in fields)
            + "}"
        )
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)
