"""A real server in a process of its own, as `silo serve` runs it, for tests that kill it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from silo.pb import silo_pb2 as pb
from silo.server.service import SERVICE

WAIT_S = 30
"""What a test waits for comes within a few seconds, or it hangs."""

STARTED = re.compile(r"server started: gRPC on (\S+?),")

CONFIG = """
[server]
grpc_addr = "127.0.0.1:0"
[coordination]
initial_shard_count = 3
[tenancy]
enabled = true
[webui]
enabled = false
[metrics]
enabled = false
[database]
backend = "fs"
path = "{data}/%shard%"
fsync = false
{database}
[database.slatedb]
# One retry instead of five: an outage is noticed the same way, in less time.
object_store_max_retries = 1
compactor_options = {{ object_store_max_retries = 1 }}
garbage_collector_options = {{ object_store_max_retries = 1 }}
"""


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run one part of a test; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(main, 2 * WAIT_S))


class Broker:
    """`silo serve` in its own process; only this object ends it.

    Attributes:
        address: where it listens, once it has started.
        log: what it wrote to standard error so far, line by line.
    """

    def __init__(self, data: Path, **database: Any) -> None:
        config = data.with_name(f"{data.name}.toml")
        settings = "\n".join(f"{key} = {value!r}" for key, value in database.items())
        config.write_text(CONFIG.format(data=data, database=settings))
        self.log: list[str] = []
        self.address = ""
        self._started = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "silo.cli.main", "serve", "-c", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        self._reader = threading.Thread(target=self._read_log, name=f"log of {self.process.pid}")
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())
            if found := STARTED.search(line):
                self.address = found[1]
                self._started.set()
        # It has ended; whoever waits for its start need not wait any longer.
        self._started.set()

    def started(self) -> Broker:
        """Wait until it serves."""
        assert self._started.wait(WAIT_S), self.said
        assert self.address, self.said
        return self

    @property
    def said(self) -> str:
        return "\n".join(self.log)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait until it has ended, and all that it said is in `log`."""
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return code

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.exit_code()

    def close(self) -> None:
        if self.is_running:
            self.process.kill()
        self.exit_code()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def broker(data: Path, **database: Any) -> Iterator[Broker]:
    """A broker that serves; it is killed at the end of the block, if it has not ended by then."""
    made = Broker(data, **database)
    try:
        yield made.started()
    finally:
        made.close()


class Client:
    """A client of one broker, and its shards."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.owners: list[pb.ShardOwner] = []

    async def find_shards(self) -> None:
        self.owners = list((await self.call("GetClusterInfo")).shard_owners)

    async def call(self, rpc: str, **fields: Any) -> Any:
        """Raises AioRpcError; a call that takes too long ends with DEADLINE_EXCEEDED."""
        method = SERVICE.methods_by_name[rpc]
        request: Any = GetMessageClass(method.input_type)
        reply: Any = GetMessageClass(method.output_type)
        stub = self._channel.unary_unary(
            f"/{SERVICE.full_name}/{rpc}", request.SerializeToString, reply.FromString
        )
        return await stub(request(**fields), timeout=WAIT_S)
