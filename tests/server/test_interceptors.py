from __future__ import annotations

import logging

import grpc
import pytest

from silo.errors import Invalid, ShardNotFound
from silo.pb import silo_pb2 as pb
from silo.server.interceptors import answering, streaming
from tests.server.running import running_node
from tests.serving import run

BAD_SHARD = pb.GetJobRequest(shard="no uuid")


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code().name, refused.value.details()


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        pytest.param([], "missing authorization header", id="no header"),
        pytest.param([("authorization", "")], "invalid auth token", id="empty header"),
        pytest.param([("authorization", "secret")], "invalid auth token", id="no scheme"),
        pytest.param(
            [("authorization", "bearer secret")], "invalid auth token", id="the scheme's case counts"
        ),
        pytest.param([("authorization", "Bearer  secret")], "invalid auth token", id="two spaces"),
        pytest.param([("authorization", "Bearer secre")], "invalid auth token", id="half a token"),
        pytest.param([("authorization", "Bearer secret2")], "invalid auth token", id="more than the token"),
    ],
)
def test_a_caller_without_the_token_is_refused_before_anything_else_is_looked_at(metadata, text):
    async def ask():
        async with running_node(auth_token="secret") as node:
            return await refusal(node.call("GetJob", BAD_SHARD, metadata))

    assert run(ask()) == ("UNAUTHENTICATED", text)


def test_a_caller_with_the_token_is_served():
    async def ask():
        async with running_node(auth_token="secret") as node:
            token = [("authorization", "Bearer secret")]
            return await refusal(node.call("GetJob", BAD_SHARD, token))

    assert run(ask()) == ("INVALID_ARGUMENT", "invalid shard ID: no uuid")


def test_a_stream_asks_for_the_token_too():
    async def ask():
        async with running_node(auth_token="secret") as node:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in node.call("QueryArrow", pb.QueryArrowRequest()):
                    pass
            return refused.value.details()

    assert run(ask()) == "missing authorization header"


class Aborted(grpc.aio.AbortError):
    pass


class FakeContext:
    """Remembers what a call was aborted with."""

    async def abort(self, code, details, trailers=()):
        self.aborted = (code.name, details, trailers)
        raise Aborted


def failing(error):
    async def method(request, context):
        raise error

    return method


def failing_after_one(error):
    async def method(request, context):
        yield request
        raise error

    return method


def outcome(error):
    async def call():
        context = FakeContext()
        with pytest.raises(Aborted):
            await answering(failing(error))(None, context)
        return context.aborted

    return run(call())


def test_a_refusal_is_answered_with_its_own_sentence():
    assert outcome(Invalid("task_group is required")) == ("INVALID_ARGUMENT", "task_group is required", ())


def test_a_shard_elsewhere_is_answered_with_its_owner():
    code, details, trailers = outcome(ShardNotFound(owner_addr="h:1", owner_node="n"))
    assert (code, details) == ("NOT_FOUND", "shard not found")
    assert dict(trailers) == {"x-silo-shard-owner-addr": "h:1", "x-silo-shard-owner-node": "n"}


def test_a_bug_is_logged_whole_and_answered_without_its_insides(caplog):
    with caplog.at_level(logging.ERROR):
        code, details, _ = outcome(KeyError("secret of the house"))
    assert code == "INTERNAL"
    assert "secret" not in details
    assert "secret of the house" in caplog.text


def test_a_stream_that_fails_half_way_ends_with_the_error():
    async def call():
        context = FakeContext()
        method = streaming(failing_after_one(Invalid("no")))
        replies = []

        async def read_all():
            async for reply in method("first", context):
                replies.append(reply)  # noqa: PERF401 - what came before the error must be kept

        with pytest.raises(Aborted):
            await read_all()
        return replies, context.aborted

    assert run(call()) == (["first"], ("INVALID_ARGUMENT", "no", ()))
