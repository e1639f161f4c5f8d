"""Do the formal models and the code speak of the same invariants?

    python -m tools.check_specs    exits with 1, and says what to do, if one side lacks a name

Three places name each invariant: a model in `specs/` states and checks it, a row of `specs/invariants.md` says it in words,
and a comment in `silo/` marks the code that keeps it.  An invariant of something that is yet to be built has `not built yet`
in its row instead of code.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path("specs", "invariants.md")
NOT_BUILT = "not built yet"

_NAME = r"SILO-[A-Z]+-\d+"
_STATED = re.compile(rf"^\s*-- ({_NAME}): ", re.MULTILINE)
_ASSERTED = re.compile(r"^assert (SILO_[A-Z]+_\d+)\b", re.MULTILINE)
_CHECKED = re.compile(r"^check (SILO_[A-Z]+_\d+)\b", re.MULTILINE)
_MARKED = re.compile(rf"# ({_NAME}): ")
_MENTIONED = re.compile(_NAME)
_ROW = re.compile(rf"^\| ({_NAME}) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_PATH = re.compile(r"`([^`]+)`")


@attrs.frozen
class Row:
    """One row of the table: the model's file, and the files of the code that keeps the invariant."""

    model: str
    code: frozenset[str]
    is_built: bool


@attrs.frozen
class Model:
    """What one model says of invariants, by name."""

    stated: frozenset[str]
    asserted: frozenset[str]
    checked: frozenset[str]


def faults(root: Path = ROOT) -> list[str]:
    """What does not agree, each in a sentence; none if all is well."""
    text = (root / TABLE).read_text(encoding="utf-8")
    rows = _rows(text)
    models = {str(path.relative_to(root)): _model(path) for path in sorted((root / "specs").glob("*.als"))}
    code = _code(root)
    return [
        *_faults_of_the_table(text, rows),
        *_faults_of_the_models(models, rows),
        *_faults_of_the_code(code, rows),
    ]


# --- reading -------------------------------------------------------------------------------------------------------------


def _rows(text: str) -> dict[str, Row]:
    return {
        name: Row(
            model="".join(_PATH.findall(model)),
            code=frozenset(_PATH.findall(code)),
            is_built=code.strip() != NOT_BUILT,
        )
        for name, _, model, code in _ROW.findall(text)
    }


def _model(path: Path) -> Model:
    text = path.read_text(encoding="utf-8")
    return Model(
        stated=frozenset(_STATED.findall(text)),
        asserted=frozenset(name.replace("_", "-") for name in _ASSERTED.findall(text)),
        checked=frozenset(name.replace("_", "-") for name in _CHECKED.findall(text)),
    )


def _code(root: Path) -> dict[str, set[str]]:
    """Which files mark each name."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((root / "silo").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for name in _MARKED.findall(text):
            found[name].add(str(path.relative_to(root)))
    return found


# --- comparing -----------------------------------------------------------------------------------------------------------


def _faults_of_the_table(text: str, rows: Mapping[str, Row]) -> Iterator[str]:
    names = [name for name, *_ in _ROW.findall(text)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{TABLE} has {name} more than once"
    for name in sorted(set(_MENTIONED.findall(text)) - rows.keys()):
        yield f"{TABLE} mentions {name}, but has no row for it of the form | name | sentence | `model` | `code` |"


def _faults_of_the_models(models: Mapping[str, Model], rows: Mapping[str, Row]) -> Iterator[str]:
    for path, model in models.items():
        for name in sorted(model.stated - rows.keys()):
            yield f"{path} states {name}, which {TABLE} does not have: add a row"
        for name in sorted(model.stated - model.asserted):
            yield f"{path} states {name}, but has no `assert {name.replace('-', '_')}`"
        for name in sorted(model.asserted - model.checked):
            yield f"{path} asserts {name}, but has no `check {name.replace('-', '_')}`"
        for name in sorted(model.asserted - model.stated):
            yield f"{path} asserts {name}, but no comment `-- {name}: ...` says what it is"
    for name, row in rows.items():
        model_named = models.get(row.model)
        if model_named is None:
            yield f"{TABLE}: the model of {name} is {row.model or 'not named'}, which is none of {', '.join(models)}"
        elif name not in model_named.stated:
            yield f"{TABLE}: {row.model} does not state {name}"


def _faults_of_the_code(code: Mapping[str, set[str]], rows: Mapping[str, Row]) -> Iterator[str]:
    for name in sorted(code.keys() - rows.keys()):
        yield f"{', '.join(sorted(code[name]))} names {name}, which {TABLE} does not have"
    for name, row in rows.items():
        marked = code.get(name, set())
        if not row.is_built:
            if marked:
                yield f"{TABLE} says that {name} is {NOT_BUILT}, but {', '.join(sorted(marked))} keeps it: name the code"
            continue
        if not row.code:
            yield f"{TABLE} names no code that keeps {name}; if there is none so far, write `{NOT_BUILT}` without the quotes"
        for path in sorted(row.code - marked):
            yield f"{path} keeps {name} according to {TABLE}, but has no comment `# {name}: ...`"
        for path in sorted(marked - row.code):
            yield f"{path} names {name}, but {TABLE} does not say so"


def main() -> int:
    found = faults()
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
