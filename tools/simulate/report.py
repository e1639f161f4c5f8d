"""What a run of the simulator shows: its totals, and what it found."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

import attrs
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.table import Table

from silo.events.timeline import timeline
from silo.testing.run import EPOCH_MS, History
from silo.testing.scenario import Scenario
from silo.testing.shrink import shrink as shrunk
from tools.simulate.seeds import Outcome

EVENTS_SHOWN_MAX = 80


@attrs.define
class Sum:
    """Of one scenario."""

    seeds: int = 0
    failed: int = 0
    seconds: float = 0.0
    events: int = 0
    faults: Counter[str] = attrs.field(factory=Counter)


class Totals:
    """Of all scenarios of a run."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, Sum] = defaultdict(Sum)
        self._began = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        total = self._sums[outcome.scenario]
        total.seeds += 1
        total.failed += bool(outcome.failure)
        total.seconds += outcome.seconds
        total.events += outcome.events
        total.faults += outcome.faults

    @property
    def hours(self) -> float:
        return sum(each.seconds for each in self._sums.values()) / 3600

    def show(self, console: Console) -> None:
        wall_s = time.monotonic() - self._began
        table = Table(title="simulated worlds, each of them twice")
        table.add_column("scenario")
        for column in ("seeds", "failed", "simulated h", "events", "faults"):
            table.add_column(column, justify="right")
        for name, total in sorted(self._sums.items()):
            failed = f"[red]{total.failed}" if total.failed else "0"
            table.add_row(
                name,
                f"{total.seeds:,}",
                failed,
                f"{total.seconds / 3600:.2f}",
                f"{total.events:,}",
                f"{sum(total.faults.values()):,}",
            )
        console.print(table)
        faults = sum((each.faults for each in self._sums.values()), Counter[str]())
        console.print(
            "faults: " + (", ".join(f"{count:,} {kind}" for kind, count in faults.most_common()) or "none")
        )
        seeds = sum(each.seeds for each in self._sums.values())
        console.print(
            f"{seeds:,} seeds, {self.hours:.1f} simulated hours in {wall_s:.0f} s: "
            f"{2 * self.hours * 3600 / wall_s:,.0f} times faster than real time, both runs counted; "
            f"{sum(each.failed for each in self._sums.values()):,} failed"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "wall_s": time.monotonic() - self._began,
            "simulated_hours": self.hours,
            "scenarios": {name: attrs.asdict(total) for name, total in sorted(self._sums.items())},
        }


def show_failure(console: Console, scenario: Scenario, history: History, *, shrink: bool) -> None:
    """Show what was found, what led there, and how to see it again."""
    assert history.failure is not None
    console.rule(f"[red]{scenario.name}, seed {history.seed}")
    console.print(f"[bold red]{escape(str(history.failure))}")
    command = f"python tools/simulate --scenario {scenario.name} --seed {history.seed}"
    console.print(f"\nto see it again:  [bold]{command}")
    if shrink:
        with Progress(TextColumn("{task.description}"), console=console, transient=True) as progress:
            task = progress.add_task("looking for a shorter history", total=None)

            def tell(runs: int, left: int) -> None:
                progress.update(task, description=f"looking for a shorter history: {runs} runs, {left} steps")

            whole = len(history.plan)
            history, places = shrunk(scenario, history, progress=tell)
        console.print(
            f"with {len(places)} of its {whole} steps:  [bold]{command} --steps {','.join(map(str, places))}"
        )
    console.print("\n[bold]what happens[/]")
    for step in history.plan:
        console.print(escape(str(step)), soft_wrap=True)
    for shard_id, log in history.logs.items():
        console.print(f"\n[bold]the last events of shard {shard_id}[/]")
        for line in timeline(log[-EVENTS_SHOWN_MAX:], since_ms=EPOCH_MS):
            console.print(escape(line), soft_wrap=True, highlight=False)
