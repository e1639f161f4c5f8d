"""The examples do what they say, against a real node."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from silo.pb import silo_pb2 as pb
from silo.settings import Server
from tests.server.running import running_node
from tests.serving import run

HELLO = Path(__file__).parent.parent.parent / "examples" / "hello.py"


async def start_hello(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, str(HELLO), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def said_by(process):
    """Exit code, standard output and standard error."""
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, out.decode(), err.decode()


def test_hello_hands_over_a_job_does_it_and_prints_its_result():
    async def say():
        async with running_node(shards=8) as node:
            assert await said_by(await start_hello(node.address)) == (0, "Hello, world!\n", "")
            info = await node.call("GetNodeInfo", pb.GetNodeInfoRequest())
            counts = [(shard.total_jobs, shard.completed_jobs) for shard in info.owned_shards]
            assert sum(total for total, _ in counts) == sum(completed for _, completed in counts) == 1

    run(say())


def test_hello_waits_for_a_broker_that_starts_later():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    async def say():
        hello = await start_hello(address)
        async with running_node(server=Server(grpc_addr=address)):
            assert await said_by(hello) == (0, "Hello, world!\n", "")

    run(say())


def test_hello_says_that_it_may_not_call():
    async def say():
        async with running_node(auth_token="secret") as node:
            code, out, err = await said_by(await start_hello(node.address))
            assert (code, out) == (1, "")
            assert err == f"the broker at {node.address}: UNAUTHENTICATED: missing authorization header\n"

    run(say())
