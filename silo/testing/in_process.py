"""A real broker inside a program's tests: in memory, on a free port of this machine, gone with the block.

from silo.testing import broker

def test_my_jobs():
    with broker() as silo, silo.client() as client:
        client.enqueue("emails", {"to": "a@example.com"})
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from silo.client.client import AsyncClient
from silo.client.sync import Client, LoopThread
from silo.server.node import Node
from silo.settings import Coordination, Database, Server, Settings, Tenancy

_places = itertools.count()


def memory_settings(
    *,
    shards: int = 1,
    tenancy: bool = False,
    dev_mode: bool = False,
    auth_token: str | None = None,
    **sections: Any,
) -> Settings:
    """Settings for a node whose data is in memory and nobody else's, on whatever port is free.

    `sections` are whole sections of `Settings`, and count more than the arguments that have names.
    """
    made = {
        "server": Server(grpc_addr="127.0.0.1:0", dev_mode=dev_mode, auth_token=auth_token),
        "coordination": Coordination(initial_shard_count=shards),
        "tenancy": Tenancy(enabled=tenancy),
        # A path of its own, as two databases in memory under one path are the same.
        "database": Database(backend="memory", path=f"/test-{next(_places)}/%shard%"),
    }
    return Settings(**{**made, **sections})


@asynccontextmanager
async def node_of(settings: Settings) -> AsyncIterator[Node]:
    """A node on this event loop, for as long as the block lasts."""
    node = Node(settings)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


class TestBroker:
    """A broker with an event loop and a thread of its own, so that tests with and without a loop can use it alike.

    Attributes:
        address: `host:port`, once it has started.
        node: the server, for whoever wants to look inside.
    """

    __test__ = False  # pytest takes a class of this name for one of tests

    def __init__(self, settings: Settings) -> None:
        self.address = ""
        self.node: Node | None = None
        self._settings = settings
        self._thread = LoopThread("silo test broker")

    def start(self) -> None:
        """Start it.  Returns when it answers."""
        self._thread.run(self._start())

    async def _start(self) -> None:
        self.node = Node(self._settings)
        await self.node.start()
        self.address = self.node.grpc_addr

    def stop(self) -> None:
        """Stop it; what it had is gone."""
        node, self.node = self.node, None
        if node is not None:
            self._thread.run(node.stop())
        self._thread.close()

    def client(self, **options: Any) -> Client:
        """A client of it; options are those of `Client`."""
        return Client(self.address, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """An async client of it; options are those of `AsyncClient`."""
        return AsyncClient(self.address, **options)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
