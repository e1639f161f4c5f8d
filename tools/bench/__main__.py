"""The command: `python tools/bench`, or `make bench ARGS=...`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

# So that `tools.bench` is found wherever the command is called from.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import click
from rich.console import Console

from tools.bench.bench import Bench
from tools.bench.report import Report
from tools.bench.rows import FULL, QUICK, ROWS, Sizes, measure

PLAIN_WIDTH = 180
"""Of the table, where it does not go to a terminal."""

HELP = "\b\nRows:\n" + "\n".join(f"  {name:<12} {row.about}" for name, row in ROWS.items())


def _chosen(_: click.Context, __: click.Parameter, text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else [name for name in ROWS if name != "peers"]
    for name in names:
        if name not in ROWS:
            raise click.BadParameter(f"there is no row {name!r}; there are {', '.join(ROWS)}")
    return names


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part.replace("_", "")) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"numbers with commas between, not {text!r}") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=HELP)
@click.option(
    "--only", metavar="ROW,...", callback=_chosen, help="Only these rows; the default is all but peers."
)
@click.option(
    "--quick", is_flag=True, help="Small sizes, about a minute: to see that it works, not how fast."
)
@click.option("--repeat", type=click.IntRange(1), default=1, help="Measure so often; shown are medians.")
@click.option("--jobs", type=click.IntRange(64), help="Jobs of the rows in-process and unary.")
@click.option(
    "--backlog", metavar="N,...", callback=_numbers, help="Waiting jobs of the rows backlog and open."
)
@click.option("--dir", "directory", type=click.Path(file_okay=False), help="Data goes below this directory.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write everything to this file.")
@click.option(
    "--profile", is_flag=True, help="Run the life cycle in process under cProfile, and nothing else."
)
def main(
    only: list[str],
    quick: bool,
    repeat: int,
    jobs: int | None,
    backlog: tuple[int, ...] | None,
    directory: str | None,
    json_file: str | None,
    profile: bool,
) -> None:
    """Measure Silo on this machine.

    Each row runs in processes of its own, with its data in a temporary directory on local disk that is removed afterwards.
    The broker works as `silo serve` sets it up, with one shard.  A figure with a target has a ratio: 1.00 or more means
    that the target is met, for a rate as for a time.

    Other work on the machine shows in every figure: look at the load that is printed, and use --repeat.

    \b
    Examples:
      make bench ARGS="--quick"
      python tools/bench --only in-process,unary --repeat 3 --json bench.json
      python tools/bench --only backlog --backlog 100000
      python tools/bench --profile --jobs 20000
    """
    # Whoever ends this with SIGTERM wants the servers and directories of the bench to go as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is measured goes to standard output, what happens meanwhile to standard error.
    report = Report(sizes=_sizes(quick=quick, jobs=jobs, backlog=backlog), repeat=repeat)
    with Bench(report, directory=directory, console=Console(stderr=True)) as bench:
        interrupted = measure(bench, ["profile"] if profile else only)
    report.end()
    console = Console()
    report.show(console if console.is_terminal else Console(width=PLAIN_WIDTH))
    if json_file is not None:
        Path(json_file).write_text(report.as_json(), encoding="utf-8")
    sys.exit(130 if interrupted else 1 if report.failures else 0)


def _sizes(*, quick: bool, jobs: int | None, backlog: tuple[int, ...] | None) -> Sizes:
    sizes = QUICK if quick else FULL
    return sizes.with_(jobs=jobs, backlogs=backlog)


if __name__ == "__main__":
    main()
