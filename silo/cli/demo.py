"""`silo demo`: Silo at work on this machine, with a broker that is killed half-way.

What is shown is real: a broker process, worker processes, gRPC between them, SIGKILL, and data that stays on disk for a
look afterwards.  The files beside this one are its parts:

    demo_plan        which jobs, and how each must end
    demo_processes   the broker and the workers
    demo_client      the few gRPC calls that they and this program make
    demo_worker      the program of a worker
    demo_audit       what the shards' logs and rows say when all is over
    demo_screen      what you see
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import click
import grpc

from silo.cli.demo_audit import Audit, Outage, audit
from silo.cli.demo_client import Client
from silo.cli.demo_plan import IN_WORDS, TENANTS, Kind, PlannedJob, plan
from silo.cli.demo_processes import DemoFailed, Processes, Started, processes
from silo.cli.demo_screen import Figures, Screen, in_words
from silo.errors import SiloError
from silo.pb import silo_pb2 as pb
from silo.settings import load

WORKERS = 3
LANES = 16
"""Calls that the client has under way at the same time."""

CONFIG = "silo.toml"
FIRST_LINE = "# Written by `silo demo`, which deletes this directory when it runs again."
INTERRUPTED = 130


@click.command()
@click.option("--jobs", type=click.IntRange(100, 100_000), default=3000, show_default=True, help="How many jobs.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("silo-demo-data"),
    show_default=True,
    help="A new directory for the data; that of an earlier demo is deleted first.",
)
def demo(jobs: int, data: Path) -> None:
    """Show Silo at work: thousands of jobs, three workers, and a broker that is killed half-way.

    \b
    Examples:
      silo demo
      silo demo --jobs 20000 --data /tmp/silo-demo
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        home = fresh_home(data)
        asyncio.run(interruptible(Demo(home, data, plan(jobs)).run()))
    except asyncio.CancelledError:
        click.echo(f"Interrupted. All processes of the demo have been stopped; what they wrote is in {data}.", err=True)
        sys.exit(INTERRUPTED)
    except DemoFailed as error:
        click.echo(f"The demo failed: {error}", err=True)
        sys.exit(1)


async def interruptible(main: Coroutine[Any, Any, None]) -> None:
    """Run `main`; Ctrl-C, SIGTERM and a closed terminal cancel it, once, so that it can clean up."""
    task = asyncio.ensure_future(main)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    await task


# --- where the data goes ---------------------------------------------------------------------------------------------------


def fresh_home(data: Path) -> Path:
    """An empty directory.  Raises DemoFailed if the place is taken by anything but an earlier demo that is over."""
    home = data.absolute()
    if home.exists() and any(home.iterdir()):
        config = home / CONFIG
        if not config.is_file() or not config.read_text().startswith(FIRST_LINE):
            raise DemoFailed(f"{data} exists and is not from a demo; choose another place with --data")
        address = load(config, {}).settings.server.grpc_addr
        if is_listening(address):
            raise DemoFailed(f"a server listens on {address}, which may be using {data}; stop it first, or give --data")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    return home


def is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_config(home: Path) -> Path:
    """A broker of its own: tenants, eight shards, a free port."""
    path = home / CONFIG
    path.write_text(
        f"""{FIRST_LINE}
# To start a broker on these data:  silo serve -c {path}

[server]
grpc_addr = "127.0.0.1:{free_port()}"

[coordination]
initial_shard_count = 8

[tenancy]
enabled = true

[database]
backend = "fs"
path = {json.dumps(str(home / "shards" / "%shard%"), ensure_ascii=False)}
"""
    )
    return path


# --- the demo ----------------------------------------------------------------------------------------------------------------


class Demo:
    """One run, from an empty directory to the proof.

    Args:
        home: the directory.
        shown: the directory as the user calls it.
    """

    def __init__(self, home: Path, shown: Path, jobs: Sequence[PlannedJob]) -> None:
        self.jobs = jobs
        self.acknowledged: list[PlannedJob] = []
        self.called_off = 0
        self.tallies: dict[str, dict[str, int]] = {}
        self.half = asyncio.Event()
        self.shown = shown
        self.config = write_config(home)
        self.settings = load(self.config, {}).settings
        self.address = self.settings.server.grpc_addr
        self.client = Client(self.address, actor="demo")
        self.processes = processes(home)
        self.screen = Screen(len(jobs))
