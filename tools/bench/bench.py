"""What a row has at hand while it is measured: directories, parts in processes of their own, and somebody who watches."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.bench.part import Found, P, Part, run_part
from tools.bench.report import Report

if TYPE_CHECKING:
    from tools.bench.rows import Sizes


class Bench:
    """One run of the bench.

    Args:
        directory: where temporary directories are made; None: where the system makes them.
    """

    def __init__(self, report: Report, *, directory: str | None, console: Console) -> None:
        self.report = report
        self.console = console
        # Absolute, as parts run elsewhere.
        self._directory = os.path.abspath(directory) if directory is not None else None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    @property
    def sizes(self) -> Sizes:
        return self.report.sizes

    def __enter__(self) -> Self:
        if self._directory is not None:
            Path(self._directory).mkdir(parents=True, exist_ok=True)
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @contextmanager
    def directory(self) -> Iterator[str]:
        """A new directory, which is removed at the end."""
        path = tempfile.mkdtemp(prefix="silo-bench-", dir=self._directory)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def say(self, text: str) -> None:
        """Tell whoever watches."""
        self.console.print(text, highlight=False)

    def part(self, title: str, part: Part[P], *args: P.args, **arguments: P.kwargs) -> Found:
        """Run a part, and show how far it is under this title.  Raises PartFailed."""
        shown = self._progress.add_task(title, total=None)

        def progress(done: int, total: int) -> None:
            self._progress.update(shown, completed=done, total=total)

        try:
            with tempfile.TemporaryDirectory(prefix="silo-bench-") as path:
                return run_part(part, progress, Path(path, "stderr"), *args, **arguments)
        finally:
            self._progress.remove_task(shown)
