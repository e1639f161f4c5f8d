"""The Alloy Analyzer: fetched from Maven Central by Maven, run as a program of its own for each command of a model.

Each command gets a process, so that several run side by side, one that is stuck can be ended, and what a command said is in
a folder of its own.  Starting Java costs about a second.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent.parent
SPECS = ROOT / "specs"
BUILD = ROOT / "build" / "alloy"

ARTIFACT = "org.alloytools:org.alloytools.alloy.dist:6.2.0"
JAR = BUILD / "org.alloytools.alloy.dist-6.2.0.jar"
JAR_SHA256 = "6037cbeee0e8423c1c468447ed10f5fcf2f2743a2ffc39cb1c81f2905c0fdb9d"
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"

JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Most commands are over before the better compiler would have paid for itself: all of them together take a quarter less."""

FETCH_WITHIN_S = 300
COMMAND_WITHIN_S = 300

_COMMAND = re.compile(
    r"^(check|run) (\w+)\b(?:(?!^(?:check|run) ).)*?\bexpect ([01])$", re.MULTILINE | re.DOTALL
)
_ANY_COMMAND = re.compile(r"^(?:check|run) (\w+)", re.MULTILINE)
_ANSWER = re.compile(r"^\d+\. (?:check|run) +(\w+) .*?\b(UNSAT|SAT)\b", re.MULTILINE)


class AlloyError(Exception):
    """The analyzer cannot be had, or did not answer; the text says what to do about it."""


@attrs.frozen
class Command:
    """One command of a model.

    Attributes:
        model: the model's file.
        kind: `check` looks for a counterexample, `run` for a history.
        expected: whether there is to be one.
    """

    model: Path
    kind: str
    name: str
    expected: bool


def commands_of(model: Path) -> list[Command]:
    """The commands of a model, in its order.  Raises AlloyError for one that does not say what it expects."""
    text = model.read_text(encoding="utf-8")
    found = [Command(model, kind, name, expected == "1") for kind, name, expected in _COMMAND.findall(text)]
    silent = set(_ANY_COMMAND.findall(text)) - {command.name for command in found}
    if silent:
        raise AlloyError(
            f"{model.name}: {', '.join(sorted(silent))} must end with `expect 0` or `expect 1`, on the last line"
        )
    return found


def why_not_here() -> str | None:
    """What is missing on this machine, in words; None if the analyzer can be had."""
    if shutil.which("java") is None:
        return "there is no Java; the models need Java 17 or later (Debian: openjdk-17-jre-headless)"
    if not JAR.exists() and shutil.which("mvn") is None:
        return "there is no Maven, which fetches the Alloy Analyzer once (Debian: maven)"
    return None


def fetch() -> None:
    """Have the analyzer's jar in `build/`, as Maven Central has it.  Raises AlloyError."""
    if not JAR.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        call = [
            *("mvn", "--quiet", "--batch-mode", MAVEN_COPY, f"-Dartifact={ARTIFACT}"),
            *(f"-DoutputDirectory={BUILD}", "-Dmdep.useBaseVersion=true"),
        ]
        said = _call(call, FETCH_WITHIN_S)
        if said.returncode:
            raise AlloyError(f"Maven could not fetch {ARTIFACT}:\n{said.stdout.strip()}")
    digest = hashlib.sha256(JAR.read_bytes()).hexdigest()
    if digest != JAR_SHA256:
        raise AlloyError(
            f"{JAR} is not the jar that was tried: its SHA-256 is {digest}.  Remove it and try again"
        )


def is_satisfiable(command: Command, folder: Path) -> bool:
    """Whether the analyzer finds what the command looks for.

    Args:
        folder: where it writes what it found, as text; it is emptied first.

    Raises AlloyError if it gives no answer, such as for a model with a mistake in its syntax.
    """
    call = [
        *("java", *JAVA_OPTIONS, "-jar", str(JAR), "exec", "--force", "--command", command.name),
        *("--type", "text", "--output", str(folder), str(command.model)),
    ]
    said = _call(call, COMMAND_WITHIN_S)
    answers: dict[str, str] = dict(_ANSWER.findall(said.stdout))
    if command.name not in answers:
        raise AlloyError(f"{command.model.name}: no answer to {command.name}:\n{_gist(said.stdout)}")
    return answers[command.name] == "SAT"


def _gist(said: str) -> str:
    """What the analyzer said, without the places in its own code."""
    lines = [line for line in said.strip().splitlines() if not line.startswith("\tat ")]
    return "\n".join(lines[:10]) or "(it said nothing)"


def _call(call: list[str], within_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program with its errors among its output.  Raises AlloyError if it takes too long."""
    try:
        return subprocess.run(
            call,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AlloyError(f"{call[0]} took longer than {within_s:g} s: {' '.join(call)}") from error
