"""`silo events`: the log of a shard, as it is and as it grows; the life of one job; a copy for other tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from silo.cli.ctl.connection import HISTORY, Target, global_flags, pass_target, place_of
from silo.cli.ctl.texts import moment
from silo.events.catalogue import CursorMoved
from silo.pb import silo_ext_pb2 as ext

OPTIONAL = ("tenant", "job_id", "task_id", "attempt", "queue", "worker_id")


@click.group()
def events() -> None:
    """Look at what has happened: every event of a shard's log, who caused it, and what came of it."""


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--type", "types", metavar="TYPE", multiple=True, help="Only this type; may be given often."
        ),
        click.option("--job", "job_id", metavar="ID", help="Only of this job."),
        click.option("--shard", metavar="ID", help="Of this shard; the default is that of the tenant."),
    ):
        command = option(command)
    return command


@events.command("tail")
@click.option(
    "--from", "start", metavar="SEQ", type=click.IntRange(1), help="Begin with what has happened, from here."
)
@click.option(
    "--cursor",
    metavar="NAME",
    default="",
    help="Go on where the last one with this name stopped; the server keeps the place.",
)
@_filters
@global_flags
@pass_target
def tail(
    target: Target,
    start: int | None,
    cursor: str,
    shard: str | None,
    job_id: str | None,
    types: tuple[str, ...],
) -> None:
    """Show events as they happen, until Ctrl-C.

    With a cursor nothing is missed between two runs: what was shown is what the server will not send again.  After a crash
    the last few may come twice.

    \b
    Examples:
      silo events tail
      silo events tail --from 1 --tenant acme --type AttemptFailed --type JobFailed
      silo events tail --cursor billing --from 1
      silo events tail --json | jq .type
    """
    node, shard_id = place_of(target, shard)
    request = ext.SubscribeRequest(
        shard=shard_id, from_seq=start, filter=_filter(target, job_id, types), cursor=cursor
    )
    is_first = True
    for batch in node.stream("Subscribe", request, service=HISTORY):
        for event in batch.events:
            click.echo(json.dumps(values(event), ensure_ascii=False) if target.json else line(event))
        # The first batch says where this begins.  To move for the sake of a move would go on for ever.
        if cursor and (is_first or any(event.type != CursorMoved.__name__ for event in batch.events)):
            moved = ext.MoveCursorRequest(shard=shard_id, name=cursor, seq=batch.seq)
            node.call("MoveCursor", moved, service=HISTORY)
        is_first = False


@events.command("cursors")
@click.option("--shard", metavar="ID", help="Of this shard; the default is that of the tenant.")
@global_flags
@pass_target
def cursors(target: Target, shard: str | None) -> None:
    """Show the cursors of a shard: how far somebody has read, and how much is left for them."""
    node, shard_id = place_of(target, shard)
    found = node.call("ListCursors", ext.ListCursorsRequest(shard=shard_id), service=HISTORY).cursors
    lines = [
        f"{cursor.name}: event {cursor.seq:,}, {cursor.behind:,} behind, moved {moment(cursor.moved_ms)}"
        for cursor in found
    ]
    told = [
        {"name": cursor.name, "seq": cursor.seq, "behind": cursor.behind, "moved_ms": cursor.moved_ms}
        for cursor in found
    ]
    target.show(
        {"cursors": told}, "\n".join(lines) or "No cursors; `silo events tail --cursor NAME` makes one."
    )


@events.command("forget-cursor")
@click.argument("name")
@click.option("--shard", metavar="ID", help="Of this shard; the default is that of the tenant.")
@global_flags
@pass_target
def forget_cursor(target: Target, name: str, shard: str | None) -> None:
    """Forget a cursor, when nobody reads under that name any more."""
    node, shard_id = place_of(target, shard)
    node.call("DeleteCursor", ext.DeleteCursorRequest(shard=shard_id, name=name), service=HISTORY)
    target.show({"status": "forgotten", "name": name}, f"Cursor {name} forgotten")


@events.command("job")
@click.argument("job_id")
@click.option("--most", type=click.IntRange(1), help="Only the newest so many events.")
@global_flags
@pass_target
def job(target: Target, job_id: str, most: int | None) -> None:
    """Show the life of one job, from its first event.

    \b
    Example:
      silo events job report-7 --tenant acme
    """
    node, shard_id = place_of(target, None)
    request = ext.GetJobHistoryRequest(shard=shard_id, id=job_id, tenant=target.tenant, most=most or 0)
    told = node.call("GetJobHistory", request, service=HISTORY).events
    target.show({"events": [values(event) for event in told]}, "\n".join(map(line, told)))


@events.command("export")
@click.option(
    "-o",
    "--output",
    type=click.File("w", encoding="utf-8"),
    default="-",
    help="Write here; the default is standard output.",
)
@click.option("--from", "start", metavar="SEQ", type=click.IntRange(1), default=1, help="Begin here.")
@click.option(
    "--to", "end", metavar="SEQ", type=click.IntRange(1), help="End with this one; the default is the newest."
)
@_filters
@global_flags
@pass_target
def export(
    target: Target,
    output: IO[str],
    start: int,
    end: int | None,
    shard: str | None,
    job_id: str | None,
    types: tuple[str, ...],
) -> None:
    """Write events as JSON, one a line.

    \b
    Examples:
      silo events export -o events.jsonl
      silo events export --from 1000 --to 2000 --type JobEnqueued | gzip > enqueued.jsonl.gz
    """
    node, shard_id = place_of(target, shard)
    request = ext.ReadEventsRequest(shard=shard_id, from_seq=start, filter=_filter(target, job_id, types))
    if end is not None:
        request.to_seq = end
    written = 0
    for batch in _watched(node.stream("ReadEvents", request, service=HISTORY)):
        for event in batch.events:
            output.write(json.dumps(values(event), ensure_ascii=False) + "\n")
            written += 1
    click.echo(f"{written:,} events", err=True)


def _watched(batches: Iterator[Any]) -> Iterator[Any]:
    """The same, with a sign of life for whoever looks on."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("event {task.completed:,}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=None)
        for batch in batches:
            progress.update(task, completed=batch.seq)
            yield batch


def _filter(target: Target, job_id: str | None, types: tuple[str, ...]) -> ext.EventFilter:
    return ext.EventFilter(tenant=target.tenant, job_id=job_id, types=types)


def line(event: ext.Event) -> str:
    """An event as a person reads it."""
    about = f"{event.tenant}/{event.job_id}" if event.HasField("job_id") else event.tenant
    fields = [f"{name}={getattr(event, name)}" for name in OPTIONAL[2:] if event.HasField(name)]
    data = "" if event.data == "{}" else event.data
    who = f"{event.actor or 'system'} {event.method}".strip()
    time = moment(event.time_ms).partition(" (")[0]
    return " ".join(
        part
        for part in (f"{event.seq:>8}", time, f"{event.type:<22}", about, *fields, data, f"[{who}]")
        if part
    )


def values(event: ext.Event) -> dict[str, Any]:
    """An event for machines."""
    told: dict[str, Any] = {"seq": event.seq, "time_ms": event.time_ms, "type": event.type}
    told |= {name: getattr(event, name) for name in OPTIONAL if event.HasField(name)}
    return told | {"actor": event.actor, "method": event.method, "data": json.loads(event.data)}
