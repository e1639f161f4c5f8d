"""The command: `python tools/mutate`, or `make mutate ARGS=...`."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# So that `tools.mutate` is found wherever the command is called from.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutations.bugs import BUGS, Bug
from tools.mutate.copies import ROOT, Verdict, hunt

DOCS = ROOT / "docs" / "mutations.md"
PLAIN_WIDTH = 150


def _chosen(_: click.Context, __: click.Parameter, text: str | None) -> list[Bug]:
    if text is None:
        return list(BUGS)
    known = {bug.name: bug for bug in BUGS}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no bug {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", "bugs", metavar="BUG,...", callback=_chosen, help="Only these; the default is all.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="How many seeds to look at, at most.",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 2, show_default=True, help="Bugs at once."
)
@click.option("--write-docs", is_flag=True, help=f"Write the table to {DOCS.relative_to(ROOT)}.")
def main(bugs: list[Bug], seeds: int, jobs: int, write_docs: bool) -> None:
    """Put deliberate bugs into copies of Silo, one each, and see whether the simulator finds them.

    A bug that is not found is a hole in the simulator's checks or in its scenarios.  The exit code is 1 if there is one.

    \b
    Examples:
      make mutate
      python tools/mutate --only reply-before-durable,one-try-too-many --seeds 200
    """
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    verdicts: dict[str, Verdict] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=len(bugs))
        with ThreadPoolExecutor(jobs) as pool:
            hunts = {pool.submit(hunt, bug, seeds): bug for bug in bugs}
            for future in as_completed(hunts):
                verdicts[hunts[future].name] = future.result()
                progress.update(task, advance=1, description=hunts[future].name)
                if not console.is_terminal:
                    console.print(
                        f"{hunts[future].name}: {verdicts[hunts[future].name].check or 'NOT FOUND'}"
                    )
    table = Table(title="deliberate bugs, and what finds them")
    for column in ("bug", "found by the check", "in scenario", "seed"):
        table.add_column(column)
    for bug in bugs:
        verdict = verdicts[bug.name]
        table.add_row(bug.name, verdict.check or "[red]NOT FOUND", verdict.scenario, verdict.seed)
    console.print(table)
    missed = [bug.name for bug in bugs if not verdicts[bug.name].check]
    console.print(
        f"{len(bugs) - len(missed)} of {len(bugs)} were found"
        + (f"; not {', '.join(missed)}" if missed else "")
    )
    if write_docs:
        DOCS.write_text(_page(bugs, verdicts))
    sys.exit(1 if missed else 0)


HEAD = """# Deliberate bugs

<!-- Written by `python tools/mutate --write-docs`. -->

Who checks the checks?  Each line below is a bug that somebody might make: a guard removed, an event not applied, a release
forgotten, a reply before its time.  `make mutate` puts each of them into a copy of the program and runs the
[simulator](simulator.md) on it, which must find it.  A bug that it does not find is a hole, and gets a check or a scenario.

The bugs are in [tests/mutations/bugs.py](../tests/mutations/bugs.py).

| bug | what is wrong | where | found by the check | in scenario |
| --- | --- | --- | --- | --- |
"""


def _page(bugs: list[Bug], verdicts: dict[str, Verdict]) -> str:
    lines = [
        f"| {bug.name} | {bug.about} | `silo/{bug.file}` | {verdicts[bug.name].check or '**not found**'} "
        f"| {verdicts[bug.name].scenario} |"
        for bug in bugs
    ]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
