"""How does a TOML file become settings?

Text with `${VAR}` in it is filled in, parsed, looked over and structured; each step is a function here, and
none of them knows which settings there are.  The settings are attrs classes whose fields are made by
`setting`; a field whose type is such a class is a section.

A file that cannot be used is refused with as many of its mistakes as can be told at once.  A key that nobody
reads is not a mistake, as a file may serve servers of several versions, but it is reported: a misspelt key
that is silently ignored costs an operator an evening.
"""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.errors import AttributeValidationNote

from silo.errors import ConfigError

T = TypeVar("T")
Table = Mapping[str, Any]


# --- declaring a setting ------------------------------------------------------------------------------------


@attrs.frozen
class Check:
    """What a value must fulfil beyond its type, and the words for it in messages and in the documentation."""

    expected: str
    holds: Callable[[Any], bool]

    def __call__(self, _section: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and not self.holds(value):
            raise ConfigError(f"{field.name} = {shown(value)}: expected {self.expected}")


def at_least(least: int) -> Check:
    """An integer that is not smaller."""
    return Check(f"an integer of at least {least}", lambda value: value >= least)


def between(least: int, most: int) -> Check:
    """An integer within both bounds, which are allowed."""
    return Check(f"an integer from {least} to {most}", lambda value: least <= value <= most)


def one_of(*values: str) -> Check:
    """One of these words."""
    return Check(f"one of {', '.join(map(shown, values))}", lambda value: value in values)


def setting(
    default: Any = attrs.NOTHING,
    meaning: str = "",
    *,
    unit: str = "",
    check: Check | None = None,
    required: bool = False,
    secret: bool = False,
) -> Any:
    """A field that can be set in the file.

    `meaning` and `unit` are for the generated documentation.  A `required` setting must be given wherever
    its section is, even if the section as a whole has defaults.  A `secret` value is never shown.
    """
    return attrs.field(
        default=default,
        validator=check,
        repr=not secret,
        kw_only=True,
        metadata={"meaning": meaning, "unit": unit, "check": check, "required": required, "secret": secret},
    )


def section(kind: type[Any]) -> Any:
    """A field that is a section of the file, with all its defaults if the file does not have it."""
    return attrs.field(factory=kind, kw_only=True)


def section_type(field: attrs.Attribute[Any]) -> type[Any] | None:
    """The class of the section that the field is; None for a setting."""
    for kind in (field.type, *typing.get_args(field.type)):
        if isinstance(kind, type) and attrs.has(kind):
            return kind
    return None


def sections_of(kind: type[Any], within: str = "") -> Iterator[tuple[str, type[Any]]]:
    """All sections with their names, such as `database.wal`, in the order in which they are declared."""
    for key, field in fields_of(kind).items():
        if inner := section_type(field):
            yield _join(within, key), inner
            yield from sections_of(inner, _join(within, key))


def fields_of(kind: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The fields of a section by name, their types resolved."""
    return attrs.fields_dict(attrs.resolve_types(kind))


def shown(value: Any) -> str:
    """A value as it is written in a TOML file, for messages."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, bool | int | float | str | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


# --- reading a file -----------------------------------------------------------------------------------------

# A name ends with its line, so that an unclosed `${` does not swallow the file up to some later `}`.
_VARIABLE = re.compile(r"\$\{([^}\n]*)\}")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """The text with `${VAR}` and `${VAR:-default}` filled in from the environment.

    A variable that is not set is empty, or the default if there is one; one that is set and empty stays
    empty.  A `${` without `}` and a `$` without `{` are left as they are.  Comments are text like any other.
    """

    def value(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":-")
        return environ.get(name, default)

    return _VARIABLE.sub(value, text)


@attrs.frozen
class OtherKeys:
    """Keys that are no settings and yet known, by section and name.

    `without_effect` says why the server does not need the key; `renamed` gives the setting that was meant.
    """

    without_effect: Mapping[tuple[str, str], str]
    renamed: Mapping[tuple[str, str], str]


def unread_keys(table: Table, kind: type[Any], others: OtherKeys) -> list[str]:
    """A sentence for each key in the file that nobody will read, with the closest one that somebody would."""
    return list(_unread_keys(table, kind, "", others, _sections_by_setting(kind)))


def structure(table: Table, kind: type[T]) -> T:
    """The settings that the file's table stands for.

    Raises ConfigError with a line for each mistake: section, key, what was given and what is expected.
    """
    mistakes = list(_shape_mistakes(table, kind, ""))
    if not mistakes:
        try:
            return _CONVERTER.structure(table, kind)
        except cattrs.ClassValidationError as error:
            mistakes = list(_value_mistakes(error, kind, ""))
    raise ConfigError("\n".join(mistakes))


def _unread_keys(
    table: Table, kind: type[Any], name: str, others: OtherKeys, sections: Mapping[str, list[str]]
) -> Iterator[str]:
    fields = fields_of(kind)
    for key, value in table.items():
        if key in fields:
            inner = section_type(fields[key])
            if inner and isinstance(value, Mapping):
                yield from _unread_keys(value, inner, _join(name, key), others, sections)
        elif (name, key) in others.without_effect:
            yield f"{_titled(name, key)} has no effect here: {others.without_effect[name, key]}"
        else:
            unknown, meant = _unknown(key, isinstance(value, Mapping), fields, name, sections)
            meant = others.renamed.get((name, key), meant)
            yield f"{unknown} and is ignored" + (f"; did you mean {meant}?" if meant else "")


def _unknown(
    key: str,
    is_section: bool,
    fields: Mapping[str, attrs.Attribute[Any]],
    name: str,
    sections: Mapping[str, list[str]],
) -> tuple[str, str | None]:
    """What the key is not, and what it may have been meant for."""
    here = [known for known, field in fields.items() if bool(section_type(field)) == is_section]
    close = difflib.get_close_matches(key, here, n=1)
    if is_section:
        return f"[{_join(name, key)}] is not a section", f"[{_join(name, close[0])}]" if close else None

    what = f"{_titled(name, key)} is not a setting"
    if close:
        return what, close[0]
    return what, " or ".join(_titled(elsewhere, key) for elsewhere in sections.get(key, ()))


def _sections_by_setting(kind: type[Any]) -> dict[str, list[str]]:
    """The sections that have a setting of each name."""
    found: dict[str, list[str]] = {}
    for name, inner in sections_of(kind):
        for key, field in fields_of(inner).items():
            if not section_type(field):
                found.setdefault(key, []).append(name)
    return found


def _shape_mistakes(table: Table, kind: type[Any], name: str) -> Iterator[str]:
    """Sections that are no tables, and settings that are missing."""
    fields = fields_of(kind)
    for key, field in fields.items():
        inner = section_type(field)
        if inner and key in table:
            if isinstance(table[key], Mapping):
                yield from _shape_mistakes(table[key], inner, _join(name, key))
            else:
                yield f"{_titled(name, key)} = {shown(table[key])}: expected a section, [{_join(name, key)}]"
        elif field.metadata.get("required") and key not in table:
            needed = " and ".join(
                f"`{key}`" for key, field in fields.items() if field.metadata.get("required")
            )
            yield f"[{name}]: missing field `{key}`; the section must give {needed}"


def _value_mistakes(error: cattrs.ClassValidationError, kind: type[Any], name: str) -> Iterator[str]:
    """Walks the tree of errors that cattrs leaves: a section's errors are the children of its field's."""
    for inner in error.exceptions:
        field = _field_noted(inner, kind)
        if field is None:
            # The section refused its values together, in a sentence that names the key.
            yield f"[{name}] {inner}"
        elif isinstance(inner, cattrs.ClassValidationError):
            yield from _value_mistakes(inner, section_type(field) or kind, _join(name, field.name))
        else:
            yield f"{_titled(name, field.name)} = {_given(inner, field)}: expected {inner}"


def _field_noted(error: Exception, kind: type[Any]) -> attrs.Attribute[Any] | None:
    """The field that the error is about, which cattrs leaves in a note."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return fields_of(kind)[note.name]
    return None


def _given(error: Exception, field: attrs.Attribute[Any]) -> str:
    if field.metadata.get("secret") or not isinstance(error, _WrongType):
        return "(not shown)"
    return shown(error.given)


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _titled(name: str, key: str) -> str:
    return f"[{name}] {key}" if name else key


# --- types --------------------------------------------------------------------------------------------------
# TOML has types, and a value of another one is a mistake.  cattrs as it comes would convert: "no" to True.


class _WrongType(ValueError):
    def __init__(self, given: Any, expected: str) -> None:
        super().__init__(expected)
        self.given = given


def _exactly(kind: type[Any], expected: str) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:  # not isinstance, as True is an int
            raise _WrongType(value, expected)
        return value

    return hook


_text = _exactly(str, "a string")


def _text_or_none(value: Any, _: Any) -> str | None:
    # An empty text is what `${VAR}` leaves when VAR is not set, so it must mean the same as no text at all.
    return _text(value, str) or None


def _texts(value: Any, _: Any) -> tuple[str, ...]:
    if type(value) is not list or not all(type(item) is str for item in value):
        raise _WrongType(value, "a list of strings")
    return tuple(value)


def _options(value: Any, _: Any) -> dict[str, str]:
    """Options of a library that takes text only; true, false and numbers may be written plainly."""
    if not isinstance(value, Mapping) or not all(
        isinstance(item, str | int | float) for item in value.values()
    ):
        raise _WrongType(value, "a table of strings")
    return {key: item if isinstance(item, str) else shown(item) for key, item in value.items()}


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _exactly(int, "an integer"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    # Its check says which texts there may be.
    converter.register_structure_hook_func(
        lambda kind: getattr(kind, "__origin__", None) is typing.Literal, _text
    )
    converter.register_structure_hook_func(lambda kind: kind == str | None, _text_or_none)
    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _texts)
    converter.register_structure_hook_func(lambda kind: kind == dict[str, str], _options)
    converter.register_structure_hook_func(lambda kind: kind == dict[str, Any], _exactly(dict, "a table"))
    return converter


_CONVERTER = _make_converter()
