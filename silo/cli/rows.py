"""`silo verify` and `silo rebuild`: are the rows on disk those that the log gives; and if not, make them so.

Both work on data that no server has open.  The log is the truth, and the rows follow from it, so nothing can be lost here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from silo.cli.main import overruled
from silo.cluster.occupancy import Occupancy
from silo.cluster.shard_map import ShardMap
from silo.cluster.single_node import beside
from silo.domain.ids import parse_shard_id
from silo.errors import ConfigError, SiloError
from silo.events.log import history
from silo.events.timeline import timeline
from silo.projections.jobs import JOBS, JobRow
from silo.server.from_settings import data_place, store_spec
from silo.settings import Settings, load
from silo.shard.checkpoint import read_note
from silo.shard.disk import decoded, row_key
from silo.shard.replay import Difference, remake
from silo.shard.replay import verify as verify_rows
from silo.storage.database import Database, Reader
from silo.storage.stores import StoreSpec, open_database

EVENTS_SHOWN_MAX = 20
FOUND = 1
FAILED = 2


@attrs.define
class Outcome:
    """What came of one shard."""

    shard: str
    events: int
    seconds: float
    difference: str | None = None
    events_there: list[str] = attrs.field(factory=list)


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    """What both commands are told."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Say it as JSON."),
        click.option("--shard", "only", metavar="ID", help="Only this shard; the default is all."),
        click.option("--data", type=click.Path(file_okay=False), help="The data is in this local directory."),
        click.option("-c", "--config", type=click.Path(dir_okay=False), help="Configuration file (TOML)."),
    ):
        command = option(command)
    return command


@click.command()
@_flags
def verify(config: str | None, data: str | None, only: str | None, as_json: bool) -> None:
    """Make all rows anew from the log, beside those that are stored, and compare them byte for byte.

    No server may have the data open; `siloctl shard check` looks at one that runs.  The rows are made in a temporary
    directory, as large as the stored ones.  If they differ, the first difference is shown with the events that led there,
    and `silo rebuild` makes it good.

    The exit code is 0 if all is well, 1 if there is a difference, and 2 if that could not be found out.

    \b
    Examples:
      silo verify
      silo verify -c silo.toml --json
    """
    _run(_verified, config, data, only, as_json)


@click.command()
@_flags
def rebuild(config: str | None, data: str | None, only: str | None, as_json: bool) -> None:
    """Make all rows anew from the log, in the place of those that are stored.

    No server may have the data open.  If this is interrupted, the next `silo rebuild` or `silo serve` goes on with it.

    \b
    Examples:
      silo rebuild --data /var/lib/silo
      silo rebuild -c silo.toml --shard 5b1f0c9e-6a3e-4c55-9d0e-2f1f3a1c8a77
    """
    _run(_rebuilt, config, data, only, as_json)


Work = Callable[[Database, Callable[[int], None]], Awaitable[tuple[str | None, list[str]]]]


def _run(work: Work, config: str | None, data: str | None, only: str | None, as_json: bool) -> None:
    from silo.server import process

    settings = overruled(load(config, os.environ).settings, data=data, grpc_addr=None)
    # The bar goes to standard error, so that what is found can be piped.
    console = Console(stderr=True)
    try:
        outcomes = asyncio.run(_each_shard(work, settings, only, console))
    except SiloError as error:
        click.echo(f"Error: {error}", err=True)
        process.leave(FAILED)
    if as_json:
        click.echo(json.dumps([attrs.asdict(outcome) for outcome in outcomes], indent=2))
    else:
        for outcome in outcomes:
            _show(outcome)
    process.leave(FOUND if any(outcome.difference for outcome in outcomes) else 0)


def _show(outcome: Outcome) -> None:
    said = f"shard {outcome.shard}: {outcome.events:,} events in {outcome.seconds:.1f} s"
    if outcome.difference is None:
        click.echo(f"{said}, all is well")
        return
    click.echo(f"{said}, and a difference:\n  {outcome.difference}")
    for line in outcome.events_there:
        click.echo(f"  {line}")
    click.echo(f"  `silo rebuild --shard {outcome.shard}` makes the rows of this shard anew from its log.")


async def _each_shard(work: Work, settings: Settings, only: str | None, console: Console) -> list[Outcome]:
    stored = await beside(settings.database).read()
    if stored is None:
        raise ConfigError(
            f"there are no shards in {data_place(settings.database)}; say where they are with -c or --data"
        )
    shards = [mapped.id for mapped in ShardMap.from_json(stored).shards]
    if only is not None:
        wanted = parse_shard_id(only)
        if wanted not in shards:
            raise ConfigError(
                f"there is no shard {wanted} in {data_place(settings.database)}; there are {', '.join(shards)}"
            )
        shards = [wanted]
    occupancy = Occupancy.of(settings.database)
    other = occupancy.enter("silo verify")
    try:
        if other:
            raise ConfigError(
                f"{other} is at work on {data_place(settings.database)}; stop it first, or ask it by `siloctl shard check`"
            )
        return [await _one_shard(work, settings, shard_id, console) for shard_id in shards]
    finally:
        occupancy.leave()


async def _one_shard(work: Work, settings: Settings, shard_id: str, console: Console) -> Outcome:
    database = await open_database(store_spec(settings.database), shard_id)
    began = time.monotonic()
    try:
        total = (await read_note(database)).seq
        with Progress(
            TextColumn(f"shard {shard_id}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not sys.stderr.isatty(),
        ) as progress:
            task = progress.add_task("", total=max(total, 1))
            difference, events = await work(database, lambda seq: progress.update(task, completed=seq))
        return Outcome(shard_id, total, time.monotonic() - began, difference, events)
    finally:
        await database.close()


async def _verified(database: Database, progress: Callable[[int], None]) -> tuple[str | None, list[str]]:
    snapshot = await database.snapshot()
    try:
        async with _scratch() as scratch:
            difference = await verify_rows(snapshot, scratch, progress=progress)
        if difference is None:
            return None, []
        return str(difference), await _events_there(snapshot, difference)
    finally:
        snapshot.release()


async def _rebuilt(database: Database, progress: Callable[[int], None]) -> tuple[str | None, list[str]]:
    await remake(database, progress=progress)
    return None, []


@asynccontextmanager
async def _scratch() -> AsyncIterator[Database]:
    """An empty database that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="silo-verify-") as directory:
        scratch = await open_database(
            StoreSpec(backend="fs", path=f"{directory}/%shard%", fsync=False), "scratch"
        )
        try:
            yield scratch
        finally:
            await scratch.close()


async def _events_there(reader: Reader, difference: Difference) -> list[str]:
    """The newest events of the job that a difference is about, if it is about one whose row can be read."""
    if difference.table not in ("jobs", "attempts") or len(difference.key) < 2:
        return []
    name = difference.key[:2]
    # What the log gives is to be trusted; what is stored perhaps not, so it is looked at last, and may lead nowhere.
    rows = (difference.expected, difference.found) if difference.table == "jobs" else ()
    for raw in (*rows, await reader.get(row_key(JOBS, name))):
        try:
            job: JobRow | None = decoded(JOBS, name, raw)
            events = await history(reader, job.last_seq, most=EVENTS_SHOWN_MAX) if job is not None else []
        except (SiloError, LookupError):
            continue
        if events:
            return list(timeline(events, since_ms=events[0].time_ms))
    return []
