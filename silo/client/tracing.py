"""OpenTelemetry's context goes along with a job, in its metadata; only where the package opentelemetry-api is installed.

The span that enqueues a job is the parent of the span in which it is worked on.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from silo.domain.jobs import METADATA_ENTRIES_MAX

IS_THERE = importlib.util.find_spec("opentelemetry") is not None

if IS_THERE:
    from opentelemetry.propagate import extract, inject
    from opentelemetry.trace import SpanKind, get_tracer


def with_context(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """A job's metadata with the context of this moment, if there is one, and room for it."""
    if not IS_THERE:
        return metadata
    carrier: dict[str, str] = {}
    inject(carrier)
    if not carrier or len(carrier) + len(metadata) > METADATA_ENTRIES_MAX:
        return metadata
    return {**carrier, **metadata}


@contextlib.contextmanager
def working_on(name: str, metadata: Mapping[str, str], attributes: Mapping[str, Any]) -> Iterator[None]:
    """A span for the work on a job, below the one that its metadata names."""
    if not IS_THERE:
        yield
        return
    with get_tracer("silo").start_as_current_span(
        name, context=extract(dict(metadata)), kind=SpanKind.CONSUMER, attributes=dict(attributes)
    ):
        yield
