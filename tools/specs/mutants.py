"""Mutants: models with one deliberate mistake each, of which the checks must find every one.

`specs/mutants.toml` has them, as a text of a model and what stands in its place.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import attrs

from tools.specs.alloy import SPECS, AlloyError, Command

MUTANTS = SPECS / "mutants.toml"


@attrs.frozen
class Mutant:
    """One mistake.

    Attributes:
        about: the mistake, in words.
        file: the model that has it.
        replace, by: its text, which must occur once, and what stands there instead.
        model: the model with the checks.
        caught_by: the checks that must fail.
    """

    name: str
    about: str
    file: str
    replace: str
    by: str
    model: str
    caught_by: tuple[str, ...]

    def made(self, folder: Path) -> list[Command]:
        """Write the models with this mistake into a folder; returns the checks that must find it.

        Raises AlloyError if the text to replace is not there once, as after a change of the model.
        """
        for path in SPECS.glob("*.als"):
            shutil.copy(path, folder)
        path = folder / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.replace) != 1:
            raise AlloyError(
                f"mutant {self.name}: {self.file} must have its text once, but has it"
                f" {text.count(self.replace)} times; see {MUTANTS.name}"
            )
        path.write_text(text.replace(self.replace, self.by), encoding="utf-8")
        return [Command(folder / self.model, "check", name, expected=True) for name in self.caught_by]


def read_mutants(path: Path = MUTANTS) -> list[Mutant]:
    """The mutants, in the order of the file.  Raises AlloyError for one that is incomplete."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return [_mutant(name, table) for name, table in tables.items()]


def _mutant(name: str, table: dict[str, Any]) -> Mutant:
    wanted = {field.name for field in attrs.fields(Mutant)} - {"name"}
    if table.keys() != wanted:
        raise AlloyError(f"mutant {name} has {sorted(table)}, but should have {sorted(wanted)}")
    return Mutant(name=name, **{**table, "caught_by": tuple(table["caught_by"])})
