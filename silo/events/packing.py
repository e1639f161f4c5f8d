"""attrs values as arrays: what events and rows look like inside MessagePack.

A class becomes the list of its own fields in the order of their definition, without names.  That is half the bytes of a
map and lets one C call take an object apart.  cattrs supplies the conversion of each field, so nested values, enums and
optionals work as anywhere; the two hook factories below only say *array* where cattrs would say *dictionary*.

Fields with `init=False` are not packed: for events they are the stamp, which the record around them keeps.

A job's limits are of several classes, so each is an array that begins with a number for its class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
import msgpack
from cattrs.fns import identity

from silo.domain.limits import ConcurrencyLimit, FloatingLimit, Limit, RateLimit

T = TypeVar("T")

Pack = Callable[[Any], Sequence[Any]]
Unpack = Callable[[Sequence[Any], Any], Any]


def _fields(cls: type) -> list[attrs.Attribute[Any]]:
    attrs.resolve_types(cls)
    return [field for field in attrs.fields(cls) if field.init]


def _packer(cls: type, converter: cattrs.Converter) -> Pack:
    """A function from an instance of `cls` to the sequence of its fields."""
    fields = _fields(cls)
    scope: dict[str, Any] = {}
    items = [_packed(field, converter, scope) for field in fields]
    if len(items) > 1 and not scope:
        return cast(Pack, attrgetter(*(field.name for field in fields)))
    # Written out for the class, as `_unpacker` does: a checkpoint calls it for every row.
    exec(f"def pack(value):\n    return ({''.join(f'{item}, ' for item in items)})\n", scope)  # noqa: S102
    return cast(Pack, scope["pack"])


def _packed(field: attrs.Attribute[Any], converter: cattrs.Converter, scope: dict[str, Any]) -> str:
    """The expression for a field of `value`; the hook that it calls, if it needs one, is put into the scope."""
    kind, item = _without_none(field.type), f"value.{field.name}"
    hook = converter.get_unstructure_hook(kind)
    # A number of an enumeration is a number for MessagePack, too.
    if hook is identity or (isinstance(kind, type) and issubclass(kind, IntEnum)):
        return item
    name = f"pack_{field.name}"
    scope[name] = hook
    return f"{name}({item})" if kind is field.type else f"None if {item} is None else {name}({item})"


def _without_none(kind: Any) -> Any:
    """The type that a field has if it is not None."""
    others = [part for part in get_args(kind) if part is not NoneType]
    return others[0] if isinstance(kind, UnionType) and len(others) == 1 else kind


def _unpacker(cls: type, converter: cattrs.Converter) -> Unpack:
    """A function from the sequence of its fields to an instance of `cls`.

    It raises ValueError if there are too few or too many of them: a changed shape without a new version.
    """
    # Written out for the class, as attrs does for `__init__`: opening a shard calls it for every event and row.
    count = 0
    arguments: list[str] = []
    checks: list[str] = []
    scope: dict[str, Any] = {"cls": cls}
    for count, field in enumerate(_fields(cls), start=1):
        item, argument = f"item{count}", f"item{count}"
        kind, optional = _plain(field.type)
        if kind is not None:
            wrong = f"type({item}) is not {kind.__name__}"
            absent = f"{item} is not None and " if optional else ""
            checks.append(f"    if {absent}{wrong}: wrong({item}, {kind.__name__})")
        else:
            argument = _converted(count, field.type, converter, scope)
        arguments.append(f"{field.alias or field.name}={argument}")

    def miscounted(array: Sequence[Any]) -> None:
        raise ValueError(f"{cls.__name__} has {count} fields, but {len(array)} are stored")

    scope |= {"miscounted": miscounted, "wrong": _wrong}
    items = "".join(f"item{number}, " for number in range(1, count + 1))
    lines = [
        "def unpack(array, _=None):",
        f"    if len(array) != {count}: miscounted(array)",
        *([f"    {items} = array"] if items else []),
        *checks,
        f"    return cls({', '.join(arguments)})",
    ]
    exec("\n".join(lines), scope)  # noqa: S102
    return cast(Unpack, scope["unpack"])


def _converted(number: int, kind: Any, converter: cattrs.Converter, scope: dict[str, Any]) -> str:
    """The expression for an item that cattrs converts, with short cuts for what most items are."""
    item = f"item{number}"
    bare = _without_none(kind)
    optional, kind = bare is not kind, bare
    scope[f"hook{number}"] = converter.get_structure_hook(kind)
    scope[f"kind{number}"] = kind
    made = f"hook{number}({item}, kind{number})"
    if optional:
        return f"None if {item} is None else {made}"
    if get_origin(kind) is tuple:
        return f"() if {item} == [] else {made}"
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        scope[f"members{number}"] = {member.value: member for member in kind}
        return f"members{number}[{item}] if type({item}) is int and {item} in members{number} else {made}"
    return made


PLAIN = (int, str, bytes, bool)
"""What is stored as it is, and never taken for another of them."""


def _plain(kind: Any) -> tuple[type | None, bool]:
    """The plain type that a field has, and whether it may be None; None for any other field."""
    bare = _without_none(kind)
    return (bare, bare is not kind) if bare in PLAIN else (None, False)


def _wrong(value: Any, kind: type) -> None:
    raise ValueError(f"expected {kind.__name__}, found {type(value).__name__}")


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    """A structure hook that takes a value of just this type and coerces nothing, so that damage is noticed.

    cattrs asks it for the subclasses of `kind` as well, and those are enums: their members are made of it.
    """

    def check(value: Any, wanted: Any) -> Any:
        if type(value) is not kind:
            _wrong(value, kind)
        return value if wanted is kind else wanted(value)

    return check


def _is_plain_tuple(kind: Any) -> bool:
    """Whether MessagePack can take a tuple of this type as it is: nothing in it needs to be converted."""
    return get_origin(kind) is tuple and all(
        part in (int, str, bytes, ...) or _is_plain_tuple(part) for part in get_args(kind)
    )


LIMIT_TAGS: dict[type[Limit], int] = {ConcurrencyLimit: 1, RateLimit: 2, FloatingLimit: 3}
"""As the wire numbers them."""


def _add_limits(converter: cattrs.Converter) -> None:
    packers = {kind: (tag, _packer(kind, converter)) for kind, tag in LIMIT_TAGS.items()}
    unpackers = {tag: _unpacker(kind, converter) for kind, tag in LIMIT_TAGS.items()}

    def pack(limits: tuple[Limit, ...]) -> list[list[Any]]:
        return [[tag, *packed(limit)] for limit in limits for tag, packed in (packers[type(limit)],)]

    def unpack(arrays: Sequence[Sequence[Any]], _: Any) -> tuple[Limit, ...]:
        return tuple(unpackers[array[0]](array[1:], None) for array in arrays)

    def is_limits(kind: Any) -> bool:
        return bool(kind == tuple[Limit, ...])

    converter.register_unstructure_hook_func(is_limits, pack)
    converter.register_structure_hook_func(is_limits, unpack)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_unstructure_hook_func(_is_plain_tuple, identity)
    converter.register_unstructure_hook_factory(attrs.has, _packer)
    converter.register_structure_hook_factory(attrs.has, _unpacker)
    for kind in PLAIN:
        converter.register_structure_hook(kind, _exactly(kind))
    _add_limits(converter)
    return converter


_CONVERTER = _make_converter()


def packer(cls: type) -> Pack:
    """A function from an instance of `cls` to a sequence that MessagePack can hold."""
    return cast(Pack, _CONVERTER.get_unstructure_hook(cls))


def unpacker(cls: type[T]) -> Callable[[Sequence[Any]], T]:
    """The inverse of `packer`.  The function raises ValueError or TypeError for anything but a packed `cls`."""
    hook = _CONVERTER.get_structure_hook(cls)
    return lambda array: cast(T, hook(array, cls))


def replacer(cls: type[T]) -> Callable[..., T]:
    """A function `(value, **changes)` that gives a copy with some fields changed: `attrs.evolve` at a third of its cost.

    As attrs does for `__init__`, it is written out for the class: each fold calls it a few times.
    """
    names = [field.name for field in _fields(cls)]
    arguments = ", ".join(f"{name}=kept" for name in names)
    fields = ", ".join(f"value.{name} if {name} is kept else {name}" for name in names)
    scope: dict[str, Any] = {"cls": cls, "kept": object()}
    exec(f"def replace(value, *, {arguments}):\n    return cls({fields})\n", scope)  # noqa: S102
    return cast(Callable[..., T], scope["replace"])


_pack = msgpack.Packer().pack


def to_bytes(packed: Any) -> bytes:
    """MessagePack bytes of lists, numbers, text and bytes.  For one thread at a time."""
    # Not `packb`, which makes a new packer each time, and so takes twice as long.
    return cast(bytes, _pack(packed))


def from_bytes(raw: bytes) -> Any:
    """The inverse of `to_bytes`; raises ValueError for anything else."""
    try:
        return msgpack.unpackb(raw, strict_map_key=False)
    except TypeError as error:
        # A map with a list for a key, which nothing here ever packs.
        raise ValueError(f"not packed here: {error}") from error
