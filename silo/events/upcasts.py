"""Old shapes of events, brought to today's when they are read.

A step takes the fields of version n and returns those of version n + 1.  Steps chain, so that an event of any age arrives
in the shape that the catalogue describes now.  The log itself is never rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Fields = list[Any]
Step = Callable[[Fields], Fields]

UPCASTS: dict[tuple[int, int], Step] = {}
"""(tag, old version) to the function that makes the next version of its fields."""


def upcast(
    tag: int, version: int, current: int, fields: Fields, steps: dict[tuple[int, int], Step]
) -> Fields:
    """The fields of an event of type `tag`, brought from `version` to `current`.

    Raises ValueError if the event is newer than this program or a step is missing.
    """
    if version > current:
        raise ValueError(f"version {version} is newer than this program, which knows {current}")
    for old in range(version, current):
        if (tag, old) not in steps:
            raise ValueError(f"there is no upcaster from version {old}")
        fields = steps[(tag, old)](fields)
    return fields
