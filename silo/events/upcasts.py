"""Old shapes of events, brought to today's when they are read.

A step takes the fields of version n and returns those of version n + 1.  Steps chain, so that an event of any age arrives
in the shape that the catalogue describes now.  The log itself is never rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Fields = list[Any]
Step = Callable[[Fields], Fields]


def _without_limits(fields: Fields) -> Fields:
    """JobEnqueued and JobImported: what a client stated of a job did not include limits."""
    tenant, job_id, spec, *rest = fields
    return [tenant, job_id, [*spec, []], *rest]


def _failed_by_its_last_attempt(fields: Fields) -> Fields:
    """JobFailed: there was no other reason."""
    tenant, job_id, forget_ms = fields
    return [tenant, job_id, "", forget_ms]


def _without_gates(fields: Fields) -> Fields:
    """ChainStarted: there was nothing to pass."""
    return [*fields, 0]


UPCASTS: dict[tuple[int, int], Step] = {
    (10, 1): _without_limits,
    (11, 1): _without_limits,
    (14, 1): _failed_by_its_last_attempt,
    (30, 1): _without_gates,
}
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
