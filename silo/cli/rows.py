"""`silo verify` and `silo rebuild`: are the rows on disk those that the log gives; and if not, make them so.

Both work on data that no server has open.  The log is the truth, and the rows follow from it, so nothing can be lost here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

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

from silo.archive.database import open_with_archive
from silo.cli.main import overruled
from silo.cluster.occupancy import Occupancy
from silo.cluster.shard_map import ShardMap
from silo.cluster.single_node import beside
from silo.domain.ids import parse_shard_id
from silo.errors import ConfigError, SiloError
from silo.events.timeline import timeline
from silo.projections.fold import TABLES_OF
from silo.server.from_settings import data_place, store_spec
from silo.settings import Settings, load
from silo.shard.base import base_of
from silo.shard.beside import events_there, mend_offline, scratch
from silo.shard.checkpoint import read_note
from silo.shard.replay import remake
from silo.shard.replay import verify as verify_rows
from silo.storage.database import Database

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
    rows_changed: int | None = None


@attrs.frozen
class _Result:
    """What the work on one shard has found: the first difference, the events that led there, how many rows it put right
    (None: it has looked only, or made all anew)."""

    difference: str | None = None
    events: list[str] = attrs.field(factory=list)
    rows_changed: int | None = None


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

    No server may have the data open; `siloctl shard verify` does it to one that runs.  The rows are made in a temporary
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
@click.option(
    "--projection",
    "projections",
    multiple=True,
    type=click.Choice(list(TABLES_OF)),
    help="Only the rows of this one, compared with those that are stored; may be given often.",
)
@_flags
def rebuild(
    config: str | None, data: str | None, only: str | None, as_json: bool, projections: tuple[str, ...]
) -> None:
    """Make all rows anew from the log, in the place of those that are stored.

    No server may have the data open; `siloctl shard rebuild` does it to one that runs.  If this is interrupted, the next
    `silo rebuild` or `silo serve` goes on with it.

    \b
    Examples:
      silo rebuild --data /var/lib/silo
      silo rebuild -c silo.toml --shard 5b1f0c9e-6a3e-4c55-9d0e-2f1f3a1c8a77
      silo rebuild --projection counters --projection leases
    """
    _run(partial(_mended, projections) if projections else _rebuilt, config, data, only, as_json)


Work = Callable[[Database, Callable[[int], None]], Awaitable[_Result]]


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
    found = any(outcome.difference for outcome in outcomes if outcome.rows_changed is None)
    process.leave(FOUND if found else 0)


def _show(outcome: Outcome) -> None:
    said = f"shard {outcome.shard}: {outcome.events:,} events in {outcome.seconds:.1f} s"
    if outcome.difference is None:
        click.echo(f"{said}, all is well")
        return
    if outcome.rows_changed is not None:
        click.echo(f"{said}, {outcome.rows_changed:,} rows put right; the first:\n  {outcome.difference}")
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
                f"{other} is at work on {data_place(settings.database)}; stop it first, or ask it by `siloctl shard verify`"
            )
        return [await _one_shard(work, settings, shard_id, console) for shard_id in shards]
    finally:
        occupancy.leave()


async def _one_shard(work: Work, settings: Settings, shard_id: str, console: Console) -> Outcome:
    database = await open_with_archive(store_spec(settings.database), shard_id)
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
            result = await work(database, lambda seq: progress.update(task, completed=seq))
        return Outcome(
            shard_id,
            total,
            time.monotonic() - began,
            result.difference,
            result.events,
            result.rows_changed,
        )
    finally:
        await database.close()


async def _verified(database: Database, progress: Callable[[int], None]) -> _Result:
    snapshot = await database.snapshot()
    try:
        async with scratch() as anew:
            base = await base_of(snapshot, (await read_note(snapshot)).seq)
            difference = await verify_rows(snapshot, anew, base=base, progress=progress)
        if difference is None:
            return _Result()
        events = await events_there(snapshot, difference)
        lines = timeline(events, since_ms=events[0].time_ms) if events else ()
        return _Result(str(difference), list(lines))
    finally:
        snapshot.release()


async def _rebuilt(database: Database, progress: Callable[[int], None]) -> _Result:
    await remake(database, progress=progress)
    return _Result()


async def _mended(projections: Sequence[str], database: Database, progress: Callable[[int], None]) -> _Result:
    tables = [table for name in projections for table in TABLES_OF[name]]
    mended = await mend_offline(database, tables, progress)
    return _Result(str(mended.first) if mended.first else None, rows_changed=mended.rows)
