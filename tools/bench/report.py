"""The figures: what was measured, beside what is wanted; as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import Console
from rich.table import Table

from silo.server.from_settings import shard_options
from silo.settings import Settings

if TYPE_CHECKING:
    from tools.bench.rows import Sizes

BUSY_LOAD = 0.5
"""With so many other processes at work when it starts, the figures are said to be noisy."""


@attrs.frozen
class Target:
    """What a figure should be, at least or at most."""

    value: float
    at_most: bool = False

    def ratio(self, found: float) -> float:
        """How well it is met: 1 or more is well, whichever way the target goes."""
        over, under = (self.value, found) if self.at_most else (found, self.value)
        return over / under if under else float("inf")

    def __str__(self) -> str:
        return f"{'<' if self.at_most else '>='} {shown(self.value)}"


@attrs.frozen
class Figure:
    """One thing that was measured.

    Attributes:
        row: which row of the bench found it, and `name` what it is; together they are unique.
        fsync: whether acknowledged writes had reached the disk itself; None: it makes no difference.
    """

    row: str = attrs.field(kw_only=True)
    name: str = attrs.field(kw_only=True)
    value: float = attrs.field(kw_only=True)
    unit: str = attrs.field(kw_only=True)
    target: Target | None = attrs.field(kw_only=True, default=None)
    note: str = attrs.field(kw_only=True, default="")
    fsync: bool | None = attrs.field(kw_only=True, default=None)


@attrs.frozen
class Line:
    """One figure, measured one or several times."""

    figure: Figure
    values: list[float] = attrs.field(factory=list)

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        return self.figure.target.ratio(self.value) if self.figure.target else None


class Report:
    """All figures of one run, and under which circumstances they were measured."""

    def __init__(self, *, sizes: Sizes, repeat: int) -> None:
        self.sizes = sizes
        self.repeat = repeat
        self.failures: dict[str, str] = {}
        self.profile: list[str] = []
        self._lines: dict[tuple[str, str], Line] = {}
        self._began = datetime.now(UTC)
        self._took_s = 0.0
        self._loads = [os.getloadavg()[0]]
        self._clock = time.monotonic()

    @property
    def is_noisy(self) -> bool:
        """Whether something else was at work when this began."""
        return self._loads[0] > BUSY_LOAD

    def add(self, figure: Figure) -> None:
        line = self._lines.setdefault((figure.row, figure.name), Line(figure))
        line.values.append(figure.value)

    def end(self) -> None:
        self._took_s = time.monotonic() - self._clock
        self._loads.append(os.getloadavg()[0])

    def show(self, console: Console) -> None:
        """The table, for people."""
        table = Table(title=self._title())
        for heading in ("row", "", "figure", "unit", "target", "ratio", "fsync", "note"):
            table.add_column(heading, justify="right" if heading in ("figure", "target", "ratio") else "left")
        last = ""
        for line in self._by_row():
            figure, ratio = line.figure, line.ratio
            if last and figure.row != last:
                table.add_section()
            table.add_row(
                figure.row if figure.row != last else "",
                figure.name,
                _values(line),
                figure.unit,
                str(figure.target or ""),
                "" if ratio is None else f"[{'green' if ratio >= 1 else 'red'}]{ratio:.2f}",
                {None: "", True: "on", False: "off"}[figure.fsync],
                figure.note,
            )
            last = figure.row
        if self._lines:
            console.print(table)
        for name, reason in self.failures.items():
            console.print(f"[red]{name} failed:[/] {reason}", highlight=False)
        for text in self.profile:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _by_row(self) -> list[Line]:
        """In the order in which they were found, but the figures of one row together."""
        rows: dict[str, list[Line]] = {}
        for line in self._lines.values():
            rows.setdefault(line.figure.row, []).append(line)
        return [line for lines in rows.values() for line in lines]

    def _title(self) -> str:
        machine = _machine()
        return (
            f"{machine['cores']} cores, Python {machine['python']}, slatedb {machine['slatedb']}, "
            f"median of {self.repeat}; load of the machine {self._loads[0]:.1f} before"
            + (": NOISY" if self.is_noisy else "")
        )

    def as_json(self) -> str:
        """Everything, for machines."""
        lines = [
            {
                "row": line.figure.row,
                "name": line.figure.name,
                "unit": line.figure.unit,
                "median": line.value,
                "min": min(line.values),
                "max": max(line.values),
                "values": line.values,
                "target": line.figure.target and attrs.asdict(line.figure.target),
                "ratio": line.ratio,
                "note": line.figure.note,
                "fsync": line.figure.fsync,
            }
            for line in self._by_row()
        ]
        return json.dumps(
            {
                "began": self._began.isoformat(timespec="seconds"),
                "took_s": round(self._took_s, 1),
                "machine": _machine() | {"load_before": self._loads[0], "load_after": self._loads[-1]},
                "settings": attrs.asdict(self.sizes) | {"repeat": self.repeat},
                "broker": attrs.asdict(shard_options(Settings())),
                "figures": lines,
                "failures": self.failures,
            },
            indent=2,
        )


def _values(line: Line) -> str:
    if len(line.values) == 1:
        return shown(line.value)
    return f"{shown(line.value)} ({shown(min(line.values))} to {shown(max(line.values))})"


def shown(value: float) -> str:
    """With about three digits that count."""
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 100 or value == int(value)
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
    )


def _machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "memory_kib": int(_first_value("/proc/meminfo", "MemTotal").removesuffix(" kB") or 0),
        "system": platform.platform(),
        "python": platform.python_version(),
        "slatedb": version("slatedb"),
        "grpcio": version("grpcio"),
    }


def _first_value(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
