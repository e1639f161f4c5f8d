"""A name that one side lacks is found, whichever side that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_specs import TABLE, faults

MODEL = """\
-- SILO-SLOT-1: fewer are held than the maximum.
assert SILO_SLOT_1 { always some univ }

check SILO_SLOT_1 for 3 expect 0
"""
ROW = "| SILO-SLOT-1 | Fewer are held. | `specs/slots.als` | `silo/slots.py` |\n"
CODE = "# SILO-SLOT-1: asked here.\nheld = 0\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository in which all agrees."""
    for folder in ("specs", "silo"):
        (tmp_path / folder).mkdir()
    (tmp_path / "specs" / "slots.als").write_text(MODEL, encoding="utf-8")
    (tmp_path / "silo" / "slots.py").write_text(CODE, encoding="utf-8")
    (tmp_path / TABLE).write_text("# Invariants\n\n" + ROW, encoding="utf-8")
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_this_repository_agrees() -> None:
    assert faults() == []


def test_nothing_is_said_when_all_agrees(root: Path) -> None:
    assert faults(root) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        pytest.param("specs/invariants.md", ROW, "", "add a row", id="the table lacks what a model states"),
        pytest.param(
            "specs/invariants.md",
            ROW,
            ROW + ROW.replace("SLOT-1", "SLOT-2").replace("`silo/slots.py`", "not built yet"),
            "specs/slots.als does not state SILO-SLOT-2",
            id="no model states what the table has",
        ),
        pytest.param(
            "specs/invariants.md",
            ROW,
            ROW.replace("slots.als", "other.als"),
            "which is none of specs/slots.als",
            id="the model is missing",
        ),
        pytest.param("specs/invariants.md", ROW, ROW + ROW, "more than once", id="a name has two rows"),
        pytest.param(
            "specs/invariants.md",
            ROW,
            ROW + "| SILO-SLOT-2 | half a row |\n",
            "mentions SILO-SLOT-2, but has no row",
            id="a row is not one",
        ),
        pytest.param(
            "specs/slots.als", "-- SILO", "SILO", "no comment `-- SILO-SLOT-1", id="an assertion has no words"
        ),
        pytest.param(
            "specs/slots.als",
            "assert SILO_SLOT_1",
            "pred slot",
            "has no `assert SILO_SLOT_1`",
            id="no assertion",
        ),
        pytest.param(
            "specs/slots.als", "check", "-- check", "has no `check SILO_SLOT_1`", id="nothing checks it"
        ),
        pytest.param(
            "silo/slots.py", "# SILO-SLOT-1: ", "# ", "has no comment `# SILO-SLOT-1", id="the code lacks it"
        ),
        pytest.param(
            "silo/slots.py",
            "held",
            "# SILO-SLOT-9: too\nheld",
            "names SILO-SLOT-9, which specs/invariants.md does not have",
            id="the code has one too many",
        ),
        pytest.param(
            "specs/invariants.md",
            "`silo/slots.py`",
            "not built yet",
            "says that SILO-SLOT-1 is not built yet, but silo/slots.py keeps it",
            id="what was to come is there",
        ),
        pytest.param(
            "specs/invariants.md", "`silo/slots.py`", "somewhere", "names no code", id="the row names no code"
        ),
    ],
)
def test_a_name_that_one_side_lacks_is_found(root: Path, path: str, old: str, new: str, said: str) -> None:
    change(root / path, old, new)

    assert any(said in fault for fault in faults(root)), faults(root)


def test_code_that_the_table_does_not_know_of_is_found(root: Path) -> None:
    (root / "silo" / "more.py").write_text(CODE, encoding="utf-8")

    assert faults(root) == ["silo/more.py names SILO-SLOT-1, but specs/invariants.md does not say so"]
