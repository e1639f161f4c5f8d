"""The trace of whoever enqueues a job goes along with it."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from silo.client import Worker
from silo.client.tracing import METADATA_ENTRIES_MAX, with_context
from silo.client.worker import running
from silo.testing import broker
from tests.client.running import connected
from tests.serving import run


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    """Every span that has ended.  The provider is the process's, and can be set once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def test_the_span_of_the_work_is_a_child_of_the_span_that_enqueued(spans):
    async def main():
        async with connected() as client:
            worker = Worker(client)
            inside: list[trace.SpanContext] = []

            @worker.task("g")
            async def work(_, task):
                assert task.metadata["customer"] == "acme"
                inside.append(trace.get_current_span().get_span_context())

            async with running(worker):
                with trace.get_tracer("test").start_as_current_span("request") as request:
                    job = await client.enqueue("g", id="a", metadata={"customer": "acme"})
                await job.wait()
            [span] = [span for span in spans.get_finished_spans() if span.name == "g process"]
            assert span.parent.span_id == request.get_span_context().span_id
            assert span.attributes == {"silo.job_id": "a", "silo.attempt": 1}
            assert inside == [span.context]

    run(main())


def test_the_synchronous_client_takes_the_trace_of_its_caller_along(spans):
    with broker() as silo, silo.client() as client:
        with trace.get_tracer("test").start_as_current_span("request") as request:
            job = client.enqueue("g")
        trace_id = f"{request.get_span_context().trace_id:032x}"
        assert trace_id in job.get().metadata["traceparent"]


def test_a_job_without_a_trace_or_without_room_stays_as_it_is(spans):
    assert with_context({"k": "v"}) == {"k": "v"}
    full = {str(number): "" for number in range(METADATA_ENTRIES_MAX)}
    with trace.get_tracer("test").start_as_current_span("request"):
        assert with_context(full) == full
        assert set(with_context({"k": "v"})) == {"k", "traceparent"}
