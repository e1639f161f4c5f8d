"""The models are run, and what the analyzer answers is compared with what was expected."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from silo.events.catalogue import EVENTS
from tools.specs.alloy import SPECS, AlloyError, commands_of, is_satisfiable, why_not_here
from tools.specs.mutants import read_mutants

ROOT = Path(__file__).parent.parent.parent
IN_S = 100
MODELS = sorted(SPECS.glob("*.als"))
needs_alloy = pytest.mark.skipif(why_not_here() is not None, reason=str(why_not_here()))


def specs(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "specs"), *arguments],
        capture_output=True,
        text=True,
        timeout=IN_S,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("model", MODELS, ids=[model.stem for model in MODELS])
def test_every_command_says_what_it_expects(model: Path) -> None:
    commands_of(model)


def test_a_command_that_does_not_say_what_it_expects_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "silent.als"
    model.write_text(
        "sig A {}\nrun One { some A } for 1\nrun Two { some A } for 1 expect 1\n", encoding="utf-8"
    )

    with pytest.raises(AlloyError, match="One must end with"):
        commands_of(model)


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: mutant.name)
def test_every_mutant_can_be_made_and_names_checks_that_there_are(mutant, tmp_path: Path) -> None:
    checks = {command.name for command in commands_of(SPECS / mutant.model) if command.kind == "check"}

    made = mutant.made(tmp_path)

    assert made
    assert {command.name for command in made} <= checks
    assert (tmp_path / mutant.file).read_text(encoding="utf-8") != (SPECS / mutant.file).read_text(
        encoding="utf-8"
    )


def test_every_invariant_has_a_mutant_that_its_check_catches() -> None:
    caught = {name for mutant in read_mutants() for name in mutant.caught_by}
    checks = {
        command.name for model in MODELS for command in commands_of(model) if command.name.startswith("SILO_")
    }

    assert sorted(checks - caught) == []


def test_every_event_is_modelled_or_said_to_be_left_out() -> None:
    text = (SPECS / "shard_events.als").read_text(encoding="utf-8")
    modelled = {
        "".join(map(str.capitalize, name.split("_")))
        for name in re.findall(r"^pred (\w+)", text, re.MULTILINE)
    }
    mentioned = modelled | set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", text))

    assert sorted({kind.__name__ for kind in EVENTS} - mentioned) == []


def test_without_java_it_says_so_and_how_to_get_it(tmp_path: Path) -> None:
    said = specs(PATH=str(tmp_path))

    assert said.returncode == 1
    assert "cannot be run: there is no Java" in said.stdout
    assert "openjdk" in said.stdout


def test_the_build_goes_on_without_java(tmp_path: Path) -> None:
    said = specs("--skip-without-java", PATH=str(tmp_path))

    assert said.returncode == 0
    assert "the formal models were not run: there is no Java" in said.stdout


def test_a_name_that_nothing_has_is_refused() -> None:
    if why_not_here() is not None:
        pytest.skip(str(why_not_here()))

    said = specs("--only", "NoSuchCommand")

    assert said.returncode == 1
    assert "no command and no mutant is called 'NoSuchCommand'" in said.stderr


@needs_alloy
@pytest.mark.slow
def test_a_check_that_holds_and_a_mutant_that_it_catches() -> None:
    holds, caught = specs("--only", "SILO_OWN_3"), specs("--only", "a_reply_before_it_is_durable")

    assert "holds" in holds.stdout
    assert holds.returncode == 0
    assert " caught " in caught.stdout
    assert caught.returncode == 0


@needs_alloy
@pytest.mark.slow
def test_a_model_with_a_mistake_in_it_gets_no_answer(tmp_path: Path) -> None:
    model = tmp_path / "broken.als"
    model.write_text("sig A {\nrun One { some A } for 1 expect 1\n", encoding="utf-8")
    [command] = commands_of(model)

    with pytest.raises(AlloyError, match="Syntax error"):
        is_satisfiable(command, tmp_path / "found")
