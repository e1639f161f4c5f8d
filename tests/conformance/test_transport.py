"""What lies below the calls: connections, sizes of messages, and the services that every gRPC server has."""

from __future__ import annotations

import asyncio

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from silo.pb import silo_pb2 as pb
from silo.settings import Server
from tests.conformance.client import Silo, data
from tests.conformance.raw_http2 import Connection

MIB = 1 << 20


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_client_that_pings_without_pause_and_calls_nothing_stays_connected(silo):
    def ping() -> None:
        with Connection(silo.node.address) as connection:
            for number in range(200):
                connection.ping(b"%08d" % number)

    silo.nodes.run(asyncio.to_thread(ping))


def test_metadata_that_the_server_does_not_know_is_ignored(silo):
    metadata = (
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "vendor=1"),
        ("x-anything", "at all"),
        ("x-anything-bin", b"\xff\x00"),
    )

    assert silo.send("GetClusterInfo", pb.GetClusterInfoRequest(), metadata).num_shards == 8


def test_a_burst_of_calls_is_answered_call_by_call(silo):
    async def burst() -> list:
        calls = (silo.node.call("GetClusterInfo", pb.GetClusterInfoRequest()) for _ in range(5_000))
        return await asyncio.gather(*calls)

    assert len(silo.nodes.run(burst())) == 5_000


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_a_payload_of_five_megabytes_comes_back_whole(silo):
    payload = bytes(range(256)) * (5 * MIB // 256)
    job_id = silo.enqueue(payload=data(payload))
    task = silo.lease_one()
    silo.report(task, success=payload)
    job = silo.job(job_id)

    assert task.payload.msgpack == job.payload.msgpack == payload
    assert job.result.msgpack == job.attempts[0].result.msgpack == payload
    assert silo.call("GetJobResult", id=job_id).success_data.msgpack == payload


def test_a_job_of_a_hundred_megabytes_is_accepted_and_told(nodes):
    # On a node of its own, whose memory is given back with it.
    server = nodes.start()
    payload = b"\xa5" * (100 * MIB)
    job_id = server.enqueue(payload=data(payload))

    assert server.call("GetJob", id=job_id).payload.msgpack == payload


def test_a_message_beyond_the_bound_is_refused_and_the_connection_goes_on(nodes):
    server = nodes.start(server=Server(grpc_addr="127.0.0.1:0", max_message_bytes=MIB))
    fields = server.job_fields(payload=data(bytes(MIB + 1)))

    assert server.refusal("Enqueue", **fields).code is StatusCode.RESOURCE_EXHAUSTED
    assert not server.has(fields["id"])


# --- health and reflection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", "silo.v1.Silo"])
def test_a_server_that_listens_is_healthy(silo, service):
    async def check():
        stub = health_pb2_grpc.HealthStub(silo.node.channel)
        return await stub.Check(health_pb2.HealthCheckRequest(service=service))

    assert silo.nodes.run(check()).status == health_pb2.HealthCheckResponse.SERVING


def test_the_health_of_a_service_that_is_not_here_is_not_known(silo):
    async def check():
        stub = health_pb2_grpc.HealthStub(silo.node.channel)
        return await stub.Check(health_pb2.HealthCheckRequest(service="other"))

    with pytest.raises(AioRpcError) as refused:
        silo.nodes.run(check())
    assert refused.value.code() is StatusCode.NOT_FOUND


def test_reflection_lists_the_service(silo):
    assert "silo.v1.Silo" in list_services(silo)


def test_reflection_describes_every_call(silo):
    [reply] = reflect(silo, reflection_pb2.ServerReflectionRequest(file_containing_symbol="silo.v1.Silo"))

    assert reply.file_descriptor_response.file_descriptor_proto == [pb.DESCRIPTOR.serialized_pb]


def list_services(silo: Silo) -> list[str]:
    [reply] = reflect(silo, reflection_pb2.ServerReflectionRequest(list_services=""))
    return [service.name for service in reply.list_services_response.service]


def reflect(silo: Silo, *requests: reflection_pb2.ServerReflectionRequest) -> list:
    """Ask by the name of today; the messages are those of the library's older version."""
    call = silo.node.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def ask() -> list:
        return [reply async for reply in call(iter(requests), timeout=30)]

    return silo.nodes.run(ask())
