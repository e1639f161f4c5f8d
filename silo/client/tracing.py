"""OpenTelemetry's context goes along with a job, in its metadata; only where the package opentelemetry-api is installed.

The span that enqueues a job is the parent of the span in which it is worked on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:
    propagate = trace = None

METADATA_ENTRIES_MAX = 16


def with_context(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """A job's metadata with the context of this moment, if there is one, and room for it."""
    if propagate is None:
        return metadata
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if not carrier or len(carrier) + len(metadata) > METADATA_ENTRIES_MAX:
        return metadata
    return {**carrier, **metadata}


@contextlib.contextmanager
def working_on(name: str, metadata: Mapping[str, str], attributes: Mapping[str, Any]) -> Iterator[None]:
    """A span for the work on a job, below the one that its metadata names."""
    if propagate is None or trace is None:
        yield
        return
    tracer = trace.get_tracer("silo")
    with tracer.start_as_current_span(
        name,
        context=propagate.extract(dict(metadata)),
        kind=trace.SpanKind.CONSUMER,
        attributes=dict(attributes),
    ):
        yield
