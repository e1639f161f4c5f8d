"""`silo what-if`: a stretch of the log, lived through again with other workers, limits or priorities."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from silo.cli.ctl.connection import HISTORY, Connection, Failed, Target, global_flags, pass_target, place_of
from silo.cli.ctl.texts import duration, moment
from silo.domain.ids import Ids
from silo.errors import Invalid
from silo.events import codec
from silo.events.catalogue import Event
from silo.pb import silo_ext_pb2 as ext
from silo.query.as_of import moment_of
from silo.shard.draft import Rules
from silo.what_if.changes import Assignment, Changes, assignment, priority
from silo.what_if.recording import USED, Act, Recording
from silo.what_if.simulation import Simulation
from silo.what_if.waits import Measured, Waits, together

PERCENTS = (50, 90, 99, 100)
AS_IT_WAS, SIMULATED, CHANGED = "as it was", "simulated", "with the changes"
TELL_EVERY = 1_000


class _Parsed(click.ParamType[Any]):
    """What a function makes of the text, which raises Invalid."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except Invalid as error:
            self.fail(str(error), param, ctx)


INSTANT = _Parsed("instant", lambda text: moment_of(text).time_ms)


def _changes(command: Callable[..., None]) -> Callable[..., None]:
    for name, parse, text in (
        ("tenant-priority", priority, "Priority of a tenant's jobs, 0 (first) to 99."),
        ("priority", priority, "Priority of the jobs of a task group, 0 (first) to 99."),
        ("rate", assignment, "Limit of a rate limit, by its name."),
        ("limit", assignment, "Maximum of a concurrency limit, fixed or floating, by its key."),
        ("workers", assignment, "How many attempts of a task group may run at the same time."),
    ):
        option = click.option(
            f"--{name}", type=_Parsed("assignment", parse), multiple=True, metavar="NAME=N", help=text
        )
        command = option(command)
    return command


@click.command("what-if")
@_changes
@click.option(
    "--from",
    "start",
    type=INSTANT,
    metavar="TIME",
    help="Begin here; the default is the first event.",
)
@click.option("--to", "end", type=INSTANT, metavar="TIME", help="End here; the default is the newest event.")
@click.option("--shard", metavar="ID", help="Of this shard; the default is that of the tenant.")
@global_flags
@pass_target
def what_if(
    target: Target,
    start: int | None,
    end: int | None,
    shard: str | None,
    workers: tuple[Assignment, ...],
    limit: tuple[Assignment, ...],
    rate: tuple[Assignment, ...],
    priority: tuple[Assignment, ...],
    tenant_priority: tuple[Assignment, ...],
) -> None:
    """Play a past window again, with other workers, limits or priorities, and compare how long jobs waited.

    Arrivals, cancellations, durations and outcomes are those of the log; everything else is decided again by the code that
    serves, in virtual time.  Nothing is written.  In a NAME, * stands for anything; the last one that matches counts.
    Without a change it shows how true to life the simulation is.

    \b
    Examples:
      silo what-if --workers mail=16
      silo what-if --from '2026-11-03 14:00' --to '2026-11-03 15:00' --limit 'api:*=20' --priority reports=50
    """
    changes = Changes(
        workers=workers, limits=limit, rates=rate, priorities=priority, tenant_priorities=tenant_priority
    )
    if start is not None and end is not None and start >= end:
        raise Failed("the window ends before it begins")
    node, shard_id = place_of(target, shard)
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        recording, waits = _record(_events(node, shard_id, progress), start, end)
        if not recording.actions and not recording.carried_in:
            raise Failed(
                "no job arrived in this window, and none was pending",
                hint="`silo events tail --from 1` shows what there is, with its times",
            )
        if unmatched := changes.unmatched((life.name, life.spec) for life in recording.lives):
            raise Failed(unmatched)
        measured = {AS_IT_WAS: waits.measured(recording.to_ms)}
        plays = {SIMULATED: Changes()} | ({CHANGED: changes} if changes else {})
        refused: Counter[str] = Counter()
        for name, played in plays.items():
            measured[name], refused = _play(name, recording, played, progress)
    target.show(_values(shard_id, recording, measured), _text(recording, measured, refused))


def _record(events: Iterator[Event], start: int | None, end: int | None) -> tuple[Recording, Waits]:
    recording: Recording | None = None
    waits = Waits(start or 0)
    for event in events:
        if recording is None:
            recording = Recording(start if start is not None else event.time_ms)
        if end is not None and event.time_ms >= end:
            break
        recording.add(event)
        waits.add(event)
    recording = recording or Recording(start or 0)
    recording.end(end)
    return recording, waits


def _events(node: Connection, shard_id: str, progress: Progress) -> Iterator[Event]:
    wanted = ext.EventFilter(types=[kind.__name__ for kind in USED])
    request = ext.ReadEventsRequest(shard=shard_id, filter=wanted, as_records=True)
    task = progress.add_task("reading the log", total=None)
    for batch in node.stream("ReadEvents", request, service=HISTORY):
        progress.update(task, completed=batch.seq, description=f"reading the log: {batch.seq:,} events")
        for event in batch.events:
            yield from codec.decode(event.seq, event.record)
    progress.remove_task(task)


def _play(
    name: str, recording: Recording, changes: Changes, progress: Progress
) -> tuple[dict[str, Measured], Counter[str]]:
    weight = recording.priority_weight_ms
    rules = Rules() if weight is None else Rules(priority_weight_ms=weight)
    # The same recording is always played in the same way.
    ids = Ids(random.Random(1).randbytes)
    simulation, waits = Simulation(recording, changes, rules, ids), Waits(recording.from_ms)
    task = progress.add_task(name, total=recording.to_ms - recording.from_ms)
    for number, event in enumerate(simulation.events()):
        waits.add(event)
        if not number % TELL_EVERY:
            progress.update(task, completed=event.time_ms - recording.from_ms)
    return waits.measured(recording.to_ms), simulation.refused


# --- what is shown ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Line:
    group: str
    name: str
    measured: Measured


def _lines(measured: dict[str, dict[str, Measured]]) -> Iterator[_Line]:
    groups = sorted({group for found in measured.values() for group in found})
    nobody = Measured((), 0)
    for group in groups:
        for name, found in measured.items():
            yield _Line(group, name, found.get(group, nobody))
    if len(groups) > 1:
        for name, found in measured.items():
            yield _Line("all", name, together(found))


def _values(shard_id: str, recording: Recording, measured: dict[str, dict[str, Measured]]) -> dict[str, Any]:
    return {
        "shard": shard_id,
        "from_ms": recording.from_ms,
        "to_ms": recording.to_ms,
        "task_groups": [
            {
                "task_group": group,
                "what": name.replace(" ", "_"),
                "leased": found.get(group, Measured((), 0)).leased,
                "still_waiting": found.get(group, Measured((), 0)).waiting,
            }
            | {
                f"wait_p{percent}_ms": found.get(group, Measured((), 0)).percentile(percent)
                for percent in PERCENTS
            }
            for group in sorted({group for each in measured.values() for group in each})
            for name, found in measured.items()
        ],
    }


def _text(recording: Recording, measured: dict[str, dict[str, Measured]], refused: Counter[str]) -> str:
    arrived = sum(action.act is Act.ARRIVE for action in recording.actions)
    begin, end = (moment(ms).partition(" (")[0] for ms in (recording.from_ms, recording.to_ms))
    length = duration(recording.to_ms - recording.from_ms)
    peaks = [
        f"{group} {peak}"
        + (" (and hardly ever waited for a worker)" if recording.workers(group) is None else "")
        for group, peak in sorted(recording.peak_running.items())
    ]
    lines = [
        f"{begin} to {end}, {length}: {arrived:,} jobs arrived, {len(recording.carried_in):,} were pending or running",
        "at work at the same time, at most: " + ", ".join(peaks),
        "",
        _table(measured),
    ]
    if left_out := recording.left_out + refused:
        lines.append("left out: " + ", ".join(f"{count} {what}" for what, count in left_out.items()))
    return "\n".join(lines)


def _table(measured: dict[str, dict[str, Measured]]) -> str:
    table = Table(box=None, pad_edge=False)
    table.add_column("task group")
    table.add_column("")
    for name in ("leased", "still waiting", "wait p50", "p90", "p99", "max"):
        table.add_column(name, justify="right")
    last = None
    for line in _lines(measured):
        if last is not None and line.group != last:
            table.add_row()
        waits = [line.measured.percentile(percent) for percent in PERCENTS]
        table.add_row(
            line.group if line.group != last else "",
            line.name,
            f"{line.measured.leased:,}",
            f"{line.measured.waiting:,}",
            *(duration(wait) if wait is not None else "-" for wait in waits),
        )
        last = line.group
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(each.rstrip() for each in captured.get().splitlines())
