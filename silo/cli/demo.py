"""`silo demo`: Silo at work on this machine, with a broker that is killed half-way.

What is shown is real: a broker process, worker processes, gRPC between them, SIGKILL, and data that stays on disk for a
look afterwards.  The files beside this one are its parts:

    demo_plan        which jobs, and how each must end
    demo_processes   the broker and the workers
    demo_worker      the program of a worker
    demo_audit       what the shards' logs and rows say when all is over
    demo_screen      what you see
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from silo.cli.demo_audit import Audit, Outage, audit
from silo.cli.demo_plan import HARBOUR, IN_WORDS, TENANTS, Kind, PlannedJob, plan
from silo.cli.demo_processes import DemoFailed, Processes, Started, processes
from silo.cli.demo_screen import Figures, Screen
from silo.client import AsyncClient, ClientError, Status
from silo.client.calls import Place
from silo.events.catalogue import JobEnqueued
from silo.pb import silo_pb2 as pb
from silo.settings import load

WORKERS = 3
EXPLAIN_AFTER_S = 3.0
GIVE_UP_S = 20.0
LANES = 16
"""Calls that the client has under way at the same time."""

CONFIG = "silo.toml"
FIRST_LINE = "# Written by `silo demo`, which deletes this directory when it runs again."
INTERRUPTED = 130

MOST = 0.95
"""What is left after so many jobs waits for a later start or for a lease to run out, and says nothing about speed."""


@click.command()
@click.option(
    "--jobs", type=click.IntRange(100, 100_000), default=3000, show_default=True, help="How many jobs."
)
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
        click.echo(
            f"Interrupted: all processes of the demo are stopped, and what they wrote is in {data}.", err=True
        )
        sys.exit(INTERRUPTED)
    except (DemoFailed, ClientError, ExceptionGroup) as failure:
        click.echo(f"The demo failed: {in_words(failure)}", err=True)
        sys.exit(1)


def in_words(failure: Exception) -> str:
    """What went wrong first.  Raises the failure again if it is a bug."""
    while isinstance(failure, ExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, ClientError):
        return f"the broker answered {failure.code.name}: {failure}"
    if isinstance(failure, DemoFailed):
        return str(failure)
    raise failure


async def interruptible(main: Coroutine[Any, Any, None]) -> None:
    """Run `main`; Ctrl-C, SIGTERM and a closed terminal cancel it, once, so that it can clean up."""
    task = asyncio.ensure_future(main)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    await task


# --- where the data goes ----------------------------------------------------------------------------------------------


def fresh_home(data: Path) -> Path:
    """An empty directory.  Raises DemoFailed if the place is taken by anything but an earlier demo that is over."""
    home = data.absolute()
    if home.exists() and any(home.iterdir()):
        config = home / CONFIG
        if not config.is_file() or not config.read_text().startswith(FIRST_LINE):
            raise DemoFailed(f"{data} exists and is not from a demo; choose another place with --data")
        address = load(config, {}).settings.server.grpc_addr
        if is_listening(address):
            raise DemoFailed(
                f"a server listens on {address}, which may be using {data}; stop it first, or give --data"
            )
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


# --- the demo ---------------------------------------------------------------------------------------------------------


class Demo:
    """One run, from an empty directory to the proof.

    Args:
        home: the directory.
        shown: the directory as the user calls it.
    """

    def __init__(self, home: Path, shown: Path, jobs: Sequence[PlannedJob]) -> None:
        self.jobs = jobs
        self.home = home
        self.shown = shown
        self.config = write_config(home)
        self.settings = load(self.config, {}).settings
        self.screen = Screen(len(jobs))
        self.acknowledged: list[PlannedJob] = []
        self.called_off = 0
        self.tallies: dict[str, dict[str, int]] = {}
        self.half = asyncio.Event()
        self.last_ship = [job for job in jobs if job.kind is Kind.LIMITED][-1]

    async def run(self) -> None:
        self._introduce()
        self.client = AsyncClient(self.settings.server.grpc_addr, actor="demo", timeout_s=GIVE_UP_S)
        async with self.client, processes(self.home) as running:
            outage = await self._run(running)
            self.sent_again = self.client.calls.sent_again
        self.screen.step("workers and broker are stopped; now to what is in the shards")
        found = await audit(self.settings, self.acknowledged, outage)
        if found.problems:
            raise DemoFailed("".join(f"\n  - {problem}" for problem in found.problems))
        self._conclude(found, outage)

    async def _run(self, running: Processes) -> Outage:
        await self._start_broker(running)
        for number in range(1, WORKERS + 1):
            await running.start_worker(self.settings.server.grpc_addr, f"worker-{number}")
        pids = ", ".join(str(worker.pid) for worker in running.workers)
        self.screen.step(f"{WORKERS} workers started (pids {pids})")

        with self.screen.bar():
            async with asyncio.TaskGroup() as group:
                self._watches = Watches(group)
                self._watches.add(running.broker.guard())
                for worker in running.workers:
                    self._watches.add(self._follow(worker))
                self._watches.add(self._show())
                outage = await self._go_through(running)
                self._watches.end()
            self.screen.show(self._figures())
        self.screen.step(f"the broker says that all {len(self.jobs):,} jobs have ended")
        await running.stop_workers()
        code = await running.stop_broker()
        if code:
            raise running.broker.why_ended()
        return outage

    async def _start_broker(self, running: Processes) -> None:
        broker = await running.start_broker(self.config)
        await broker.or_ended(self.client.shards())
        shards = self.settings.coordination.initial_shard_count
        self.screen.step(
            f"broker started (pid {broker.pid}): gRPC on {self.settings.server.grpc_addr}, {shards} shards, fsync on"
        )

    # --- what happens -----------------------------------------------------------------------------------------------------

    async def _go_through(self, running: Processes) -> Outage:
        """Enqueue everything, kill the broker half-way, and wait until every job has ended."""
        interrupted = [job for job in self.jobs if job.kind is Kind.INTERRUPTED]
        others = iter([job for job in self.jobs if job.kind is not Kind.INTERRUPTED])
        async with asyncio.TaskGroup() as group:
            crash = group.create_task(self._crash(running))
            for job in interrupted:
                group.create_task(self._interrupt(job))
            for _ in range(LANES):
                group.create_task(self._enqueue(others))
        await self._all_ended()
        return crash.result()

    async def _enqueue(self, jobs: Iterator[PlannedJob]) -> None:
        for job in jobs:
            await self._hand_over(job)
            if job.kind is Kind.CALLED_OFF:
                await self.client.job(job.id, tenant=job.tenant).cancel()
                self.called_off += 1
            if job is self.last_ship:
                await self._explain(job)

    async def _interrupt(self, job: PlannedJob) -> None:
        """Enqueue a job, wait until a worker runs it, and cancel it."""
        await self._hand_over(job)
        handle = self.client.job(job.id, tenant=job.tenant)
        while True:
            if await handle.status() is Status.RUNNING:
                break
            await asyncio.sleep(0.05)
        await handle.cancel()

    async def _hand_over(self, job: PlannedJob) -> None:
        [made] = await self.client.enqueue_many([job.new])
        if isinstance(made, ClientError):
            raise made
        self.acknowledged.append(job)
        if len(self.acknowledged) >= len(self.jobs) / 2:
            self.half.set()

    async def _crash(self, running: Processes) -> Outage:
        """When half of the jobs are in, kill the broker without warning and start it again."""
        await self.half.wait()
        figures = self._figures()
        killed_ms = now_ms()
        await running.broker.kill()
        self.screen.step(
            f"[bold red]SIGKILL to the broker[/] (pid {running.broker.pid}): {figures.enqueued:,} jobs acknowledged, "
            f"{figures.ended:,} ended"
        )
        broker = await running.start_broker(self.config)
        self._watches.add(broker.guard())
        self.screen.step(
            f"broker started again (pid {broker.pid}); client and workers send their calls again until it answers"
        )
        # Not over the client's own connection, which waits a little longer with each try that fails.
        async with AsyncClient(self.settings.server.grpc_addr, timeout_s=GIVE_UP_S) as probe:
            await probe.shards()
        back_ms = now_ms()
        self.screen.step(
            f"[bold green]the broker answers again[/], {(back_ms - killed_ms) / 1000:.1f} s after the kill"
        )
        return Outage(killed_ms, back_ms)

    async def _explain(self, job: PlannedJob) -> None:
        """Ask the broker why a job is not running, as `silo job explain` does."""
        told = await self.client.job(job.id, tenant=job.tenant).explain()
        self.screen.step(f"why does {job.id} of the {job.tenant} not run?  {told.summary}")

    async def _all_ended(self) -> None:
        """Wait until the broker has no job that has not ended."""
        patience_s = 45 + len(self.jobs) / 100
        began = time.monotonic()
        explained = False
        while time.monotonic() - began < patience_s:
            total, ended = await self._totals()
            if total == ended == len(self.jobs):
                return
            if not explained and time.monotonic() - began > EXPLAIN_AFTER_S:
                explained = True
                self.screen.step(
                    f"{total - ended:,} jobs wait: for their time, or for the end of a lease that was given out in a reply "
                    "which died with the broker"
                )
            await asyncio.sleep(0.1)
        raise DemoFailed(f"{total - ended:,} of {total:,} jobs have not ended after {patience_s:.0f} s more")

    async def _totals(self) -> tuple[int, int]:
        """How many jobs the broker has, and how many of them have ended."""
        info = await self.client.calls.call("Silo", "GetNodeInfo", pb.GetNodeInfoRequest(), Place())
        shards = info.owned_shards
        return sum(shard.total_jobs for shard in shards), sum(shard.completed_jobs for shard in shards)

    # --- how far it is ----------------------------------------------------------------------------------------------------

    async def _follow(self, worker: Started) -> None:
        """Note what a worker tells.  Raises DemoFailed if it ends."""
        async for line in worker.stdout:
            self.tallies[worker.name] = json.loads(line)
        await worker.guard()

    async def _show(self) -> None:
        while True:
            self.screen.show(self._figures())
            await asyncio.sleep(0.1)

    def _figures(self) -> Figures:
        sums: Counter[str] = Counter()
        for tally in self.tallies.values():
            sums.update(tally)
        return Figures(
            enqueued=len(self.acknowledged),
            succeeded=sums["succeeded"],
            failed=sums["failed"],
            cancelled=sums["cancelled"] + self.called_off,
            retries=sums["retries"],
        )

    # --- in words ---------------------------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        say = self.screen.say
        say(
            f"[bold]Silo demo[/]: {len(self.jobs):,} jobs of {len(TENANTS)} tenants, {WORKERS} workers, "
            "and a broker that is killed half-way.\n"
            f"Data, logs and configuration go to a new directory, {self.shown}.\n"
        )
        for kind, count in Counter(job.kind for job in self.jobs).most_common():
            say(f"  {count:6,} {IN_WORDS[kind]}")
        say()

    def _conclude(self, found: Audit, outage: Outage) -> None:
        say, title = self.screen.say, self.screen.title
        results = sum(bool(life.result) for life in found.lives.values())
        title("What is in the shards", f"their logs, {found.events:,} events, and the rows made from them")
        say(
            f"  ok  each of {len(self.acknowledged):,} acknowledged jobs is there once and ended once, as planned"
        )
        say(f"  ok  each of {results:,} results is the one that the job's payload leads to")
        say("  ok  the rows count what the logs tell\n")
        self.screen.counts(found)

        title("A limit at work", f"the {HARBOUR} and its cranes, as its shard's log has it")
        self.screen.limit(found, self.jobs)

        title("The outage")
        expired = sum(life.expired for life in found.lives.values())
        away_s = (outage.back_ms - outage.killed_ms) / 1000
        say(
            f"  {away_s:.1f} s from SIGKILL until the new process answered, with everything that was acknowledged"
        )
        say(
            f"  {self.sent_again:,} times a call of the client found no broker and was sent again; none took effect twice"
        )
        if expired:
            say(
                f"  {expired:,} tasks were leased in replies that died with the broker; their leases ran out after 10 s,"
            )
            say("  and the jobs were tried again")

        title(
            "Speed", "of broker, client and workers together on this machine, each write forced to the disk"
        )
        most_s = found.seconds_until(MOST)
        most = f"{MOST:.0%} of all jobs had ended {most_s:.1f} s after the first enqueue"
        say(f"  {len(self.jobs) * MOST / most_s:,.0f} jobs/s, as {most}, the outage included")
        say(f"  {found.in_the_busiest_second():,} jobs ended in the busiest second\n")
        self.screen.waits(found, self.jobs, outage)

        told = found.story[0]
        assert isinstance(told, JobEnqueued)
        title("One job that was tried again", f"{told.job_id} of {told.tenant}, as its shard's log has it")
        self.screen.history(found.story, outage)

        silo = "silo" if shutil.which("silo") else os.path.relpath(Path(sys.executable).with_name("silo"))
        title("What next")
        self.screen.pairs(
            {
                f"{silo} serve -c {self.shown / CONFIG}": "a broker on the data of this demo",
                f"{silo}ctl -a http://{self.settings.server.grpc_addr} cluster info": "what that broker has",
                f"{silo} serve": "a broker of your own, its data in ./silo-data",
                "docs/how-it-works.md": "what happened here, and why nothing was lost",
                str(self.shown / "broker.log"): "what the broker said",
            }
        )


class Watches:
    """Tasks that go on beside the others, in a group that would wait for them."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._group.create_task(work))

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
