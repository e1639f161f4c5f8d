"""What the demo shows: a line for each step, a bar while it goes on, tables at the end.

On a terminal the bar moves; elsewhere, and where CI=true, a plain line says every second or so how far things are.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from silo.cli.demo_audit import Audit, Outage
from silo.cli.demo_plan import CRANES, PRIORITIES, Kind, PlannedJob
from silo.domain.jobs import JobStatus
from silo.events.catalogue import (
    AttemptFailed,
    AttemptSucceeded,
    ChainStarted,
    Event,
    JobEnqueued,
    LeaseExpired,
    LeaseRenewed,
    SlotGranted,
    SlotWaited,
    TaskLeased,
)

PLAIN_EVERY_S = 1.0
PLAIN_WIDTH = 110


@attrs.frozen(kw_only=True)
class Figures:
    """How far things are."""

    enqueued: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retries: int = 0

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.cancelled

    def __str__(self) -> str:
        return (
            f"succeeded {self.succeeded:,}  failed {self.failed:,}  cancelled {self.cancelled:,}  "
            f"retries {self.retries:,}"
        )


class Screen:
    """The console, and the time since the demo began."""

    def __init__(self, jobs: int) -> None:
        environment_is_plain = os.environ.get("CI", "").lower() in ("true", "1")
        self._console = Console(highlight=False, force_terminal=False if environment_is_plain else None)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, force_terminal=False, width=PLAIN_WIDTH)
        self._jobs = jobs
        self._began = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque()
        self._told_at = 0.0
        self._told = Figures()
        self._bar = Progress(
            TextColumn("         {task.description:9}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>6,.0f} of {task.total:,.0f}"),
        )
        self._enqueued = self._bar.add_task("enqueued", total=jobs)
        self._ended = self._bar.add_task("ended", total=jobs)
        self._below = Text()

    # --- while it goes on ------------------------------------------------------------------------------------------------

    def say(self, text: str = "") -> None:
        """A line, or several."""
        self._console.print(text, soft_wrap=True)

    def title(self, title: str, more: str = "") -> None:
        """The heading of what follows."""
        self._console.print(f"\n[bold]{title}[/]{': ' if more else ''}{more}\n")

    def step(self, text: str) -> None:
        """Something that happened just now."""
        self._console.print(f"[dim]{self._elapsed():6.1f} s[/]  {text}", soft_wrap=True)

    @contextlib.contextmanager
    def bar(self) -> Iterator[None]:
        """The bar, for as long as the block lasts, where there is a terminal for it."""
        if not self._console.is_terminal:
            yield
            return
        with Live(Group(self._bar, self._below), console=self._console, transient=True):
            yield

    def show(self, figures: Figures) -> None:
        """How far things are; may be called as often as one likes."""
        per_second = self._per_second(figures.ended)
        if self._console.is_terminal:
            self._bar.update(self._enqueued, completed=figures.enqueued)
            self._bar.update(self._ended, completed=figures.ended)
            self._below.plain = f"          {figures}  {per_second:,} jobs/s"
        elif self._elapsed() - self._told_at >= PLAIN_EVERY_S and figures != self._told:
            self._told_at, self._told = self._elapsed(), figures
            self.step(
                f"enqueued {figures.enqueued:,}  ended {figures.ended:,} of {self._jobs:,}: "
                f"{figures}  {per_second:,} jobs/s"
            )

    def _per_second(self, ended: int) -> int:
        """How many jobs ended in the last second."""
        now = self._elapsed()
        self._samples.append((now, ended))
        while now - self._samples[0][0] > 1.0:
            self._samples.popleft()
        since, before = self._samples[0]
        return round((ended - before) / (now - since)) if now - since > 0.5 else 0

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    # --- at the end --------------------------------------------------------------------------------------------------------

    def counts(self, found: Audit) -> None:
        """How many jobs of each tenant ended in which way."""
        statuses = list(JobStatus)
        table = _table("tenant", "in shard", *(f">{status.kind.lower()}" for status in statuses), ">all")
        for tenant in sorted(found.counts):
            counts = [found.count(tenant, status) for status in statuses]
            table.add_row(
                tenant, found.owners[tenant][:8], *(f"{count:,}" for count in counts), f"{sum(counts):,}"
            )
        totals = [sum(found.count(tenant, status) for tenant in found.counts) for status in statuses]
        table.add_section()
        table.add_row("all", "", *(f"{total:,}" for total in totals), f"{sum(totals):,}")
        self._console.print(table)

    def waits(self, found: Audit, jobs: Sequence[PlannedJob], outage: Outage) -> None:
        """How long jobs waited for a worker, by priority."""
        table = _table("from enqueue to start", ">jobs", ">p50", ">p99", ">longest")
        for priority in PRIORITIES:
            some = [job for job in jobs if job.priority == priority]
            waits = found.waits_ms(some, outage, caught=False)
            table.add_row(f"priority {priority}", *_percentiles(waits))
        table.add_row("caught by the outage", *_percentiles(found.waits_ms(jobs, outage, caught=True)))
        self._console.print(table)

    def limit(self, found: Audit, jobs: Sequence[PlannedJob]) -> None:
        """What the harbour's limit did."""
        limited = [job for job in jobs if job.kind is Kind.LIMITED]
        waits_ms = found.waits_for_crane_ms()
        most = found.most_at_the_crane
        self.say(
            f"  {len(limited):,} jobs, {CRANES} slots: never more than {most} were held at once, and all were given back"
        )
        if waits_ms:
            middle_s, longest_s = waits_ms[len(waits_ms) // 2] / 1000, waits_ms[-1] / 1000
            self.say(
                f"  {len(waits_ms):,} stood in line, for {middle_s:.1f} s in the middle, {longest_s:.1f} s at most,"
            )
            self.say("  while the jobs of the other tenants went to the same workers")

    def history(self, events: Sequence[Event], outage: Outage) -> None:
        """One job's events, and where in between the broker was killed."""
        table = _table(">number", ">after", "event", "", "caused by")
        began_ms = events[0].time_ms
        before_ms = began_ms
        for event in events:
            if before_ms < outage.killed_ms < event.time_ms:
                after = f"{(outage.killed_ms - began_ms) / 1000:.3f} s"
                table.add_row("", after, "[red]the broker is killed[/]", "(no event)", "")
            by = f"{event.actor}, {event.method}" if event.method else event.actor
            after = f"{(event.time_ms - began_ms) / 1000:.3f} s"
            table.add_row(f"{event.seq:,}", after, type(event).__name__, escape(_details(event)), escape(by))
            before_ms = event.time_ms
        self._console.print(table)

    def pairs(self, pairs: Mapping[str, str]) -> None:
        """Things, and what they are for."""
        width = max(map(len, pairs))
        for thing, meaning in pairs.items():
            self.say(f"  {escape(thing):{width}}   {meaning}")


def _table(*headings: str) -> Table:
    """A table; the columns whose heading begins with `>` are figures."""
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for heading in headings:
        is_figure = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"), justify="right" if is_figure else "left", no_wrap=is_figure
        )
    return table


def _percentiles(values: Sequence[int]) -> list[str]:
    """How many they are, the middle one, the one that only a hundredth exceeds, and the last."""
    if not values:
        return ["0"]
    return [
        f"{len(values):,}",
        *(f"{values[math.ceil((len(values) - 1) * part)]:,} ms" for part in (0.5, 0.99, 1.0)),
    ]


def _details(event: Event) -> str:
    match event:
        case JobEnqueued():
            policy = event.spec.retry_policy
            tries = f", up to {policy.retry_count + 1} attempts" if policy else ""
            return f"priority {event.spec.priority}{tries}"
        case ChainStarted():
            wait_ms = event.start_ms - event.time_ms
            return f"attempt {event.attempt}, " + (
                f"to start in {wait_ms:,} ms" if wait_ms > 0 else "to start at once"
            )
        case TaskLeased():
            return f"attempt {event.attempt}, leased for {(event.expires_ms - event.time_ms) / 1000:g} s"
        case LeaseRenewed():
            return f"for another {(event.expires_ms - event.time_ms) / 1000:g} s"
        case LeaseExpired():
            return f"{event.worker_id} was silent for too long"
        case AttemptFailed():
            return f"attempt {event.attempt}, {event.error_code}"
        case AttemptSucceeded():
            return f"attempt {event.attempt}, result of {len(event.result)} bytes"
        case SlotWaited():
            return f"in line for {event.queue}, of which there are {event.maximum}"
        case SlotGranted():
            return f"one of {event.maximum} slots of {event.queue}"
        case _:
            return ""
