"""The command: `python tools/specs`, or `make specs ARGS=...`."""

from __future__ import annotations

import fnmatch
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# So that `tools.specs` is found wherever the command is called from.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tools.specs.alloy import (
    BUILD,
    SPECS,
    AlloyError,
    Command,
    commands_of,
    fetch,
    is_satisfiable,
    why_not_here,
)
from tools.specs.mutants import read_mutants

PLAIN_WIDTH = 120
"""Of the table, where it does not go to a terminal."""


@attrs.frozen
class Job:
    """One call of the analyzer.  `mutant` is empty for the models as they are."""

    command: Command
    mutant: str
    folder: Path


@attrs.frozen
class Answer:
    """What came of it.  `trouble` is why there was no answer, else empty."""

    job: Job
    satisfiable: bool
    seconds: float
    trouble: str

    @property
    def is_right(self) -> bool:
        return not self.trouble and self.satisfiable == self.job.command.expected

    @property
    def in_words(self) -> str:
        """What the answer means."""
        if self.trouble:
            return "no answer"
        if self.job.mutant:
            return "caught" if self.satisfiable else "NOT caught"
        if self.job.command.kind == "check":
            return "counterexample" if self.satisfiable else "holds"
        return "history found" if self.satisfiable else "no such history"


def _as_they_are(only: str) -> Iterator[Job]:
    for model in sorted(SPECS.glob("*.als")):
        for command in commands_of(model):
            if fnmatch.fnmatch(command.name, only):
                yield Job(command, "", BUILD / "found" / model.stem / command.name)


def _with_mistakes(only: str, scratch: Path) -> Iterator[Job]:
    for mutant in read_mutants():
        if not fnmatch.fnmatch(mutant.name, only):
            continue
        folder = scratch / mutant.name
        folder.mkdir()
        for command in mutant.made(folder):
            yield Job(command, mutant.name, folder / "found" / command.name)


def _ask(job: Job) -> Answer:
    began = time.monotonic()
    try:
        satisfiable, trouble = is_satisfiable(job.command, job.folder), ""
    except AlloyError as error:
        satisfiable, trouble = False, str(error)
    return Answer(job, satisfiable, time.monotonic() - began, trouble)


def _ask_all(jobs: list[Job], at_once: int, console: Console) -> list[Answer]:
    """The answers, in the order of the jobs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    answers: dict[Job, Answer] = {}
    with (
        Progress(*columns, console=console, transient=True) as progress,
        ThreadPoolExecutor(at_once) as pool,
    ):
        bar = progress.add_task("asking", total=len(jobs))
        for done in as_completed([pool.submit(_ask, job) for job in jobs]):
            answer = done.result()
            answers[answer.job] = answer
            progress.update(bar, advance=1, description=answer.job.command.name)
    return [answers[job] for job in jobs]


def _table(answers: list[Answer]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "command", "mutant", "answer"):
        table.add_column(heading)
    table.add_column("s", justify="right")
    for answer in answers:
        job = answer.job
        words = answer.in_words if answer.is_right else f"[bold red]{answer.in_words}[/]"
        table.add_row(job.command.model.stem, job.command.name, job.mutant, words, f"{answer.seconds:.1f}")
    return table


def _explain(wrong: list[Answer], console: Console) -> None:
    for answer in wrong:
        job = answer.job
        place = f"{job.command.model.name}: {job.command.name}"
        if answer.trouble:
            console.print(answer.trouble, markup=False, highlight=False)
        elif job.mutant:
            console.print(f"{place} does not see the mistake of the mutant {job.mutant}", highlight=False)
        elif answer.satisfiable:
            console.print(f"{place} has a counterexample, step by step in {job.folder}", highlight=False)
        else:
            console.print(f"{place}: there is no such history within the scope", highlight=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only",
    default="*",
    metavar="NAME",
    help="Only commands or mutants of this name; * stands for any text.",
)
@click.option(
    "--mutants/--no-mutants", "with_mutants", default=True, help="Whether to try the mutants as well."
)
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="How many to ask at once.")
@click.option(
    "--skip-without-java", is_flag=True, help="Where Java or Maven is missing, say so and exit with 0."
)
def main(only: str, with_mutants: bool, jobs: int, skip_without_java: bool) -> None:
    """Run the formal models in specs/ with the Alloy Analyzer.

    Each check must find no counterexample, each run the history that it describes, and each mutant (a model with a mistake
    made on purpose, see specs/mutants.toml) must be found out.  The first call fetches the analyzer with Maven.

    \b
    Examples:
      python tools/specs --only 'SILO_SLOT*'       the checks of one area
      python tools/specs --only a_lost_release     one mutant
      java -jar build/alloy/*.jar gui specs/job_shard.als
                                                   look at histories as pictures
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    missing = why_not_here()
    if missing is not None:
        verdict = "the formal models were not run" if skip_without_java else "the formal models cannot be run"
        console.print(f"{verdict}: {missing}", highlight=False, soft_wrap=True)
        sys.exit(0 if skip_without_java else 1)
    with tempfile.TemporaryDirectory(prefix="silo-specs-") as scratch:
        try:
            fetch()
            wanted = [*_as_they_are(only), *(_with_mistakes(only, Path(scratch)) if with_mutants else ())]
        except AlloyError as error:
            raise click.ClickException(str(error)) from error
        if not wanted:
            raise click.ClickException(f"no command and no mutant is called {only!r}")
        began = time.monotonic()
        answers = _ask_all(wanted, jobs, console)
    console.print(_table(answers))
    wrong = [answer for answer in answers if not answer.is_right]
    _explain(wrong, console)
    console.print(
        f"{len(answers) - len(wrong)} of {len(answers)} as expected, {time.monotonic() - began:.0f} s",
        highlight=False,
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
