"""An event log as a person reads it: a line each, with what matters of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from silo.events.catalogue import Event, JobEvent

STAMP = {"seq", "time_ms", "actor", "method", "prev", "tenant", "job_id"}
VALUE_CHARS_MAX = 48


def timeline(events: Sequence[Event], *, since_ms: int) -> Iterator[str]:
    """The lines of some events, with their times in seconds since then."""
    for event in events:
        about = (
            f"{event.tenant}/{event.job_id}" if isinstance(event, JobEvent) else getattr(event, "tenant", "")
        )
        fields = " ".join(_told(event))
        who = f"{event.actor or 'system'} {event.method}".strip()
        seconds = (event.time_ms - since_ms) / 1000
        yield f"{event.seq:6} {seconds:9.3f} s  {type(event).__name__:22} {about:12} {fields}  [{who}]"


def _told(event: Event) -> Iterator[str]:
    for field in attrs.fields(type(event)):
        value: Any = getattr(event, field.name)
        if field.name not in STAMP and value not in ("", b"", None):
            text = repr(value) if isinstance(value, bytes | tuple) else str(value)
            yield f"{field.name}={text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 3] + '...'}"
