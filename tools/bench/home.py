"""A data directory with one shard: opened in this process, or served by `silo serve`, with the same settings.

So what is prepared in process, where it is fast, can be measured over gRPC afterwards.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs

from silo.broker.timers import run_timers
from silo.cluster.single_node import beside, find_or_create
from silo.domain.ids import Ids
from silo.server import process
from silo.server.from_settings import shard_options, store_spec
from silo.settings import Settings, load
from silo.shard.shard import Shard, ShardOptions, wall_clock_ms
from silo.storage.database import Database
from silo.storage.stores import open_database

CONFIG = """\
[server]
grpc_addr = "{grpc_addr}"
{server}

[coordination]
initial_shard_count = {shards}

[database]
backend = "fs"
path = "{directory}/data/%shard%"
fsync = {fsync}

[webui]
enabled = false

[metrics]
enabled = false
"""

NOTHING: Mapping[str, int] = {}
OPENING_S = 120


def configure(directory: str, *, fsync: bool, shards: int = 1, server: Mapping[str, int] = NOTHING) -> Path:
    """Write the configuration of a server that keeps its data in this directory; `server` are other settings of its."""
    path = Path(directory, "silo.toml")
    text = CONFIG.format(
        grpc_addr=f"127.0.0.1:{_free_port()}",
        directory=directory,
        fsync=str(fsync).lower(),
        shards=shards,
        server="\n".join(f"{key} = {value}" for key, value in server.items()),
    )
    path.write_text(text)
    return path


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def settings_of(directory: str, *, fsync: bool, shards: int = 1) -> Settings:
    """What a server with this data directory would be set to."""
    return load(str(configure(directory, fsync=fsync, shards=shards)), {}).settings


# --- in this process -----------------------------------------------------------------------------------------------------


def work_as_the_server_does() -> None:
    """Set this process up as `silo serve` sets up its own.  Call it before the shard is opened."""
    process._spare_memory()
    process._spare_the_collector()


async def a_shard(
    directory: str,
    *,
    fsync: bool,
    watch: Callable[[Database], Database] = lambda database: database,
    change: Callable[[ShardOptions], ShardOptions] = lambda options: options,
) -> Shard:
    """The one shard of this directory, not open yet.

    Args:
        watch: may put something between the shard and its database.
        change: may give the shard other options than the server would.
    """
    settings = settings_of(directory, fsync=fsync)
    ids = Ids(os.urandom)
    found = await find_or_create(
        beside(settings.database), initial_shard_count=1, created_at_ms=wall_clock_ms(), new_id=ids.uuid4
    )
    shard_id, spec = found.shards.shards[0].id, store_spec(settings.database)

    async def opened() -> Database:
        return watch(await open_database(spec, shard_id))

    open_it: Callable[[], Awaitable[Database]] = opened
    return Shard(shard_id, open_it, options=change(shard_options(settings)), ids=ids)


@asynccontextmanager
async def serving_here(shard: Shard) -> AsyncIterator[Shard]:
    """Open a shard and keep its timers, as a node does, for as long as the block lasts."""
    await shard.open()
    timers = asyncio.create_task(run_timers(shard), name="timers")
    try:
        yield shard
    finally:
        timers.cancel()
        await asyncio.wait([timers])
        await shard.close()


# --- in a server ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Server:
    """A `silo serve` that runs."""

    address: str
    pid: int


@asynccontextmanager
async def served(
    directory: str, *, fsync: bool, shards: int = 1, server: Mapping[str, int] = NOTHING
) -> AsyncIterator[Server]:
    """A server of this directory, for as long as the block lasts; it takes its port, but may still be opening shards."""
    config = configure(directory, fsync=fsync, shards=shards, server=server)
    address = load(str(config), {}).settings.server.grpc_addr
    log = Path(directory, "server.log")
    running = _start(config, log)
    try:
        await _port_taken(address, running, log)
        yield Server(address, running.pid)
    finally:
        running.terminate()
        try:
            await asyncio.to_thread(running.wait, 20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "silo.cli.main", "serve", "-c", str(config)], stdout=output, stderr=output
        )


async def _port_taken(address: str, running: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server can be connected to.  Otherwise gRPC's client would try once, and again only a second later."""
    host, _, port = address.partition(":")
    async with asyncio.timeout(OPENING_S):
        while True:
            if running.poll() is not None:
                raise RuntimeError(f"silo serve ended with {running.returncode}: {_end_of(log)}")
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(0.002)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
