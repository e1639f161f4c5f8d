"""`silo worker`: run the worker of a program, and show what it does."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import time
from collections import deque

import attrs
import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from silo import logs
from silo.client.errors import ClientError
from silo.client.worker import Metrics, Worker
from silo.errors import ConfigError

LOOK_S = 0.25
RATE_OVER_S = 5.0


@click.command()
@click.argument("app", metavar="MODULE:WORKER")
@click.option(
    "--broker", metavar="HOST:PORT", help="Another broker than the program says; several with commas."
)
@click.option("--worker-id", help="The name that events and SQL have for it.")
@click.option("--live/--no-live", default=None, help="A table of what it does; by itself on a terminal.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="Log every job.")
def worker(
    app: str,
    broker: str | None,
    worker_id: str | None,
    live: bool | None,
    log_format: str,
    verbose: bool,
) -> None:
    """Run a worker until it is told to stop (Ctrl-C or SIGTERM); what it has begun it finishes first.

    MODULE:WORKER names a silo.client.Worker: with a file shop.py in this folder that has

    \b
      worker = Worker("127.0.0.1:7450")
    \b
      @worker.task("emails")
      async def send(payload): ...

    \b
    Examples:
      silo worker shop:worker
      silo worker shop:worker --broker 10.0.0.7:7450 --no-live
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    found = find(app)
    if broker is not None:
        try:
            found.connect_to(broker)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    if worker_id is not None:
        found.worker_id = worker_id
    logs.configure(log_format)
    logging.getLogger("silo.worker").setLevel(logging.DEBUG if verbose else logging.INFO)
    console = Console(stderr=True)
    shown = live if live is not None else console.is_terminal
    try:
        if shown and log_format == "text":
            _run_live(found, console)
        else:
            found.main()
    except (ClientError, ValueError) as error:
        raise ConfigError(f"worker {found.worker_id}: {error}") from error


def find(app: str) -> Worker:
    """The worker that `module:name` names.  Raises ConfigError, with what to do about it."""
    module_name, _, name = app.partition(":")
    if not name:
        raise ConfigError(f"{app}: this takes MODULE:WORKER, such as shop:worker for `worker` in shop.py")
    # As `python -m` does: the program is usually in the folder where one is.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise ConfigError(
            f"{app}: there is no module {error.name} in {os.getcwd()} or on the path of Python"
        ) from None
    found = getattr(module, name, None)
    if not isinstance(found, Worker):
        workers = [key for key, value in vars(module).items() if isinstance(value, Worker)]
        hint = f"it has {', '.join(workers)}" if workers else "it has none at its top"
        raise ConfigError(f"{app}: {name} in {module_name} is not a silo.client.Worker; {hint}")
    return found


# --- the table -----------------------------------------------------------------------------------------------------------


@attrs.define
class _Rate:
    """Jobs a second, over the last few seconds."""

    looks: deque[tuple[float, int]] = attrs.field(factory=deque)

    def look(self, now_s: float, ended: int) -> float:
        self.looks.append((now_s, ended))
        while now_s - self.looks[0][0] > RATE_OVER_S:
            self.looks.popleft()
        began_s, began = self.looks[0]
        return (ended - began) / (now_s - began_s) if now_s > began_s else 0.0


def _run_live(worker: Worker, console: Console) -> None:
    handler = _Above(console)
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    rates = {group: _Rate() for group in worker.metrics}
    try:
        with Live(console=console, auto_refresh=False, transient=False) as live:

            async def show() -> None:
                while True:
                    live.update(table(worker, rates, time.monotonic()), refresh=True)
                    await asyncio.sleep(LOOK_S)

            worker.main(beside=show)
            live.update(table(worker, rates, time.monotonic()), refresh=True)
    finally:
        root.handlers = before


class _Above(logging.Handler):
    """Log lines above the table."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, highlight=False)


def table(worker: Worker, rates: dict[str, _Rate], now_s: float) -> Table:
    """What the worker has done so far."""
    made = Table(
        title=f"worker {worker.worker_id}",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 2, 0, 0),
    )
    made.add_column("task group", no_wrap=True)
    for name in ("running", "jobs/s", "succeeded", "failed", "cancelled", "lost", "ms a job"):
        made.add_column(name, justify="right", no_wrap=True)
    for group, metrics in worker.metrics.items():
        rate = rates[group].look(now_s, metrics.ended)
        made.add_row(group, *_cells(metrics, rate))
    return made


def _cells(metrics: Metrics, rate: float) -> list[str]:
    each_ms = f"{metrics.busy_s / metrics.ended * 1000:,.1f}" if metrics.ended else "-"
    counts = (metrics.succeeded, metrics.failed, metrics.cancelled, metrics.lost)
    return [f"{metrics.running:,}", f"{rate:,.0f}", *(f"{count:,}" for count in counts), each_ms]
