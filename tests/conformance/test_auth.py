"""A server with a token lets nobody in without it, and tells him why."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from silo.pb import silo_pb2 as pb
from silo.server.service import SERVICE
from tests.conformance.client import Silo
from tests.conformance.raw_http2 import Connection
from tests.conformance.test_transport import list_services

TOKEN = "a secret"
MISSING = "missing authorization header"
WRONG = "invalid auth token"


@pytest.fixture(scope="module")
def guarded(nodes) -> Silo:
    return nodes.start(auth_token=TOKEN)


def header(value: str | None) -> tuple[tuple[str, str], ...]:
    return () if value is None else (("authorization", value),)


@pytest.mark.parametrize("rpc", [method.name for method in SERVICE.methods])
@pytest.mark.parametrize(("value", "text"), [(None, MISSING), ("Bearer other", WRONG)], ids=["none", "wrong"])
def test_every_call_needs_the_token_before_anything_else(guarded, rpc, value, text):
    request = GetMessageClass(SERVICE.methods_by_name[rpc].input_type)()
    error = guarded.error_of(rpc, request, header(value))

    assert (error.code(), error.details()) == (StatusCode.UNAUTHENTICATED, text)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(f"bearer {TOKEN}", id="the scheme in lower case"),
        pytest.param(f"Bearer  {TOKEN}", id="two spaces"),
        pytest.param(f"Basic {TOKEN}", id="another scheme"),
        pytest.param(TOKEN, id="no scheme"),
        pytest.param("Bearer", id="the scheme alone"),
        pytest.param(f"Bearer {TOKEN}s", id="the token and more"),
        pytest.param(f"Bearer {TOKEN[:-1]}", id="a part of the token"),
        pytest.param(f"Bearer {TOKEN.upper()}", id="the token in upper case"),
        pytest.param("", id="an empty header"),
    ],
)
def test_only_the_exact_token_is_accepted(guarded, value):
    error = guarded.error_of("GetClusterInfo", pb.GetClusterInfoRequest(), header(value))

    assert (error.code(), error.details()) == (StatusCode.UNAUTHENTICATED, WRONG)


def test_who_has_the_token_may_call(guarded):
    right = header(f"Bearer {TOKEN}")

    assert guarded.send("GetClusterInfo", pb.GetClusterInfoRequest(), right).num_shards == 1


@pytest.mark.parametrize("value", [b"Bearer \xff", b"\x07"])
def test_a_header_that_is_no_text_is_told_apart(guarded, value):
    def ask() -> bytes:
        with Connection(guarded.node.address) as connection:
            return connection.answer_headers("/silo.v1.Silo/GetClusterInfo", {b"authorization": value})

    # The server's event loop runs while this waits in a thread.
    answer = guarded.nodes.run(asyncio.to_thread(ask))
    assert b"invalid authorization header" in answer
    # The status is UNAUTHENTICATED.
    assert b"grpc-status\x0216" in answer


def test_health_and_reflection_are_open(guarded):
    stub = health_pb2_grpc.HealthStub(guarded.node.channel)

    async def check():
        return await stub.Check(health_pb2.HealthCheckRequest())

    assert guarded.nodes.run(check()).status == health_pb2.HealthCheckResponse.SERVING
    assert "silo.v1.Silo" in list_services(guarded)


def test_a_server_without_a_token_looks_at_none(silo, nodes):
    empty = nodes.start(auth_token="")

    for server in (silo, empty):
        for value in (None, "", "Bearer x"):
            assert server.send("GetClusterInfo", pb.GetClusterInfoRequest(), header(value)).num_shards
