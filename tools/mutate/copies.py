"""A copy of the program with one deliberate bug, and the simulator at work on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

from tests.mutations.bugs import Bug

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 100


@attrs.frozen
class Verdict:
    """What found a bug; everything is empty if nothing did."""

    check: str = ""
    scenario: str = ""
    seed: str = ""


class DoesNotApply(Exception):
    """The text that a bug replaces is not there just once: the code has changed, and the bug must follow."""


def planted(bug: Bug, text: str) -> str:
    """The text of a file with the bug in it.  Raises DoesNotApply."""
    if text.count(bug.old) != 1:
        raise DoesNotApply(f"{bug.name}: silo/{bug.file} has the text {text.count(bug.old)} times")
    return text.replace(bug.old, bug.new)


def hunt(bug: Bug, seeds: int) -> Verdict:
    """Run the simulator on a copy with this bug, scenario by scenario, until it is found."""
    with tempfile.TemporaryDirectory(prefix="silo-bug-") as directory:
        copy = Path(directory)
        for folder in ("silo", "tools"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / "silo" / bug.file
        file.write_text(planted(bug, file.read_text()))
        for scenario in bug.scenarios:
            verdict = _simulate(copy, scenario, seeds)
            if verdict.check:
                return verdict
    return Verdict()


def _simulate(copy: Path, scenario: str, seeds: int) -> Verdict:
    told = copy / "told.json"
    command = [
        sys.executable,
        "tools/simulate",
        *(
            "--scenario",
            scenario,
            "--seeds",
            str(seeds),
            "--stop",
            "--no-shrink",
            "--jobs",
            "1",
            "--json",
            str(told),
        ),
    ]
    with subprocess.Popen(
        command,
        cwd=copy,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # With the processes that it has started.
            os.killpg(process.pid, signal.SIGKILL)
            return Verdict(f"no end within {TIMEOUT_S} s", scenario)
    if process.returncode == 0:
        return Verdict()
    if not told.exists():
        raise RuntimeError(f"the simulator did not run: {errors[-2000:]}")
    failed = json.loads(told.read_text())["failed"][0]
    return Verdict(failed["check"], failed["scenario"], str(failed["seed"]))
