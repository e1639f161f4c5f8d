"""The command: `python tools/simulate`, or `make simulate ARGS=...`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# So that `tools.simulate` is found wherever the command is called from.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from silo.testing.run import run
from silo.testing.scenarios import ALL
from silo.testing.shrink import chosen
from tools.simulate.report import Totals, show_failure
from tools.simulate.seeds import Outcome, run_seeds

SEEDS_AT_ONCE = 4
PLAIN_WIDTH = 150
"""Of tables, where they do not go to a terminal."""

HELP = "\b\nScenarios:\n" + "\n".join(f"  {name:<20} {ALL[name].about}" for name in sorted(ALL))


def _scenarios(_: click.Context, __: click.Parameter, text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else sorted(ALL)
    for name in names:
        if name not in ALL:
            raise click.BadParameter(f"there is no scenario {name!r}; there are {', '.join(sorted(ALL))}")
    return names


def _places(_: click.Context, __: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"numbers with commas between, not {text!r}") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=HELP)
@click.option(
    "--seeds", type=click.IntRange(1), default=20, show_default=True, help="How many seeds of each scenario."
)
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="The first of them.")
@click.option(
    "--scenario", "names", metavar="S,...", callback=_scenarios, help="Only these; the default is all."
)
@click.option(
    "--seed", type=click.IntRange(0), help="Only this seed, and show its history; needs one --scenario."
)
@click.option("--steps", metavar="N,...", callback=_places, help="With --seed: only these steps of its plan.")
@click.option("--shrink/--no-shrink", default=True, help="Look for the shortest history that fails.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 2,
    show_default=True,
    help="Processes at work.",
)
@click.option("--stop", is_flag=True, help="Stop at the first seed that fails.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write the totals to this file.")
def main(
    seeds: int,
    first: int,
    names: list[str],
    seed: int | None,
    steps: list[int] | None,
    shrink: bool,
    jobs: int,
    stop: bool,
    json_file: str | None,
) -> None:
    """Run Silo's brokers in simulated worlds, in which everything that can go wrong does, by a seed.

    Each seed of each scenario runs twice, in processes that hash differently, and must give the same events.  What is found
    is shown with the history that led there, made as short as possible, and with the command that shows it again.

    The exit code is 1 if anything was found.

    \b
    Examples:
      make simulate
      python tools/simulate --seeds 1000 --scenario mixed,crash_anywhere
      python tools/simulate --scenario mixed --seed 17
    """
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    if seed is not None:
        if len(names) != 1:
            raise click.UsageError("--seed needs one --scenario")
        sys.exit(_show_one(console, names[0], seed, steps, shrink=shrink))
    if steps is not None:
        raise click.UsageError("--steps needs a --seed")
    sys.exit(
        _run_many(
            console,
            names,
            range(first, first + seeds),
            shrink=shrink,
            jobs=jobs,
            stop=stop,
            json_file=json_file,
        )
    )


def _show_one(console: Console, name: str, seed: int, steps: list[int] | None, *, shrink: bool) -> int:
    scenario = ALL[name]
    whole = scenario.plan(seed)
    if steps is not None and max(steps) >= len(whole):
        raise click.BadParameter(
            f"the plan of seed {seed} has {len(whole)} steps, from 0", param_hint="--steps"
        )
    history = run(scenario, seed, plan=chosen(whole, steps) if steps is not None else None)
    if history.failure is None:
        console.print(
            f"{name}, seed {seed}: nothing was found in {history.seconds:.1f} simulated seconds with "
            f"{history.events} events and {history.calls} calls; digest {history.digest[:16]}"
        )
        return 0
    show_failure(console, scenario, history, shrink=shrink and steps is None)
    return 1


def _run_many(
    console: Console,
    names: list[str],
    seeds: range,
    *,
    shrink: bool,
    jobs: int,
    stop: bool,
    json_file: str | None,
) -> int:
    totals = Totals()
    failed: list[Outcome] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[found]}"),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=len(names) * len(seeds), found="")
        for outcome in run_seeds(names, seeds, jobs=jobs, at_once=1 if stop else SEEDS_AT_ONCE):
            totals.add(outcome)
            if outcome.failure:
                failed.append(outcome)
            found = f"{totals.hours:.1f} simulated hours" + (f", {len(failed)} FAILED" if failed else "")
            progress.update(task, advance=1, description=outcome.scenario, found=found)
            if stop and failed:
                break
    totals.show(console)
    if json_file is not None:
        told = totals.as_json() | {"failed": [attrs.asdict(outcome) for outcome in failed]}
        Path(json_file).write_text(json.dumps(told, indent=2) + "\n")
    shown: set[tuple[str, str]] = set()
    for outcome in sorted(failed, key=lambda each: (each.scenario, each.seed)):
        if (outcome.scenario, outcome.check) in shown:
            continue
        shown.add((outcome.scenario, outcome.check))
        history = run(ALL[outcome.scenario], outcome.seed)
        if history.failure is None:
            console.print(f"[red]{outcome.scenario}, seed {outcome.seed}: {outcome.failure}")
        else:
            show_failure(console, ALL[outcome.scenario], history, shrink=shrink)
    return 1 if failed else 0


if __name__ == "__main__":
    main()
