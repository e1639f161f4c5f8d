"""Is each promise about limits shown by a test?

`acceptance.txt` has the promises, each with the tests that show it.  A test names the promises that it shows in a comment.
When those have changed,

    python -m tests.test_acceptance

writes the tests anew below their promises.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs
import pytest

TESTS = Path(__file__).parent
TABLE = TESTS / "acceptance.txt"
SIMULATION = TESTS.parent / "silo" / "testing" / "scenarios"

RANGES = (
    (1, 25),
    (30, 37),
    (40, 44),
    (50, 60),
    (70, 77),
    (80, 88),
    (90, 100),
    (110, 111),
    (120, 131),
    (140, 151),
    (160, 167),
    (170, 173),
    (180, 184),
)
SIMULATED = (190, 198)

HEAD = re.compile(r"(A\d+)  (.*)")


def lines(*ranges: tuple[int, int]) -> list[str]:
    return [f"A{number}" for first, last in ranges for number in range(first, last + 1)]


@attrs.define
class Promise:
    sentence: str
    tests: list[str] = attrs.field(factory=list)


@cache
def promises() -> dict[str, Promise]:
    """The table, in its order."""
    found: dict[str, Promise] = {}
    latest = ""
    for line in TABLE.read_text().splitlines():
        if head := HEAD.fullmatch(line):
            latest = head[1]
            assert latest not in found, f"{latest} stands in the table twice"
            found[latest] = Promise(head[2])
        elif line.startswith(" "):
            found[latest].tests.append(line.strip())
        else:
            assert not line or line.startswith(("#", "== ")), f"what is this: {line}"
    return found


@cache
def marks() -> dict[str, list[str]]:
    """Which tests name each promise."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for test, comments in commented(path.read_text()):
            for line in dict.fromkeys(re.findall(r"\bA\d+\b", comments)):
                found.setdefault(line, []).append(f"{path.relative_to(TESTS)}::{test}")
    return found


def commented(source: str) -> Iterator[tuple[str, str]]:
    """The tests of a file, each with its comments."""
    if not re.search(r"#.*\bA\d+\b", source):
        return
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            last = node.end_lineno or first
            yield node.name, " ".join(comments.get(line, "") for line in range(first, last + 1))


def test_the_table_has_every_line_once_and_in_order():
    assert list(promises()) == lines(*RANGES, SIMULATED)
    sentences = [promise.sentence for promise in promises().values()]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("line", lines(*RANGES))
def test_each_promise_is_shown_by_the_tests_that_the_table_names(line):
    named, found = promises()[line].tests, marks().get(line, [])

    assert named, f"no test shows {line}"
    assert named == found, f"the marks of {line} have changed; see the top of this file"


def test_no_test_names_a_promise_that_nobody_gave():
    assert marks().keys() <= set(lines(*RANGES))


@pytest.mark.parametrize("line", lines(SIMULATED))
def test_each_promise_about_whole_histories_is_named_in_a_scenario(line):
    sources = "\n".join(path.read_text() for path in SIMULATION.rglob("*.py"))

    assert re.search(rf"\b{line}\b", sources), f"no scenario shows {line}"


def write_tests() -> None:
    """Write the tests that name each promise below it."""
    found, told = marks(), []
    for line in TABLE.read_text().splitlines():
        if line.startswith(" "):
            continue
        told.append(line)
        if head := HEAD.fullmatch(line):
            told += [f"      {test}" for test in found.get(head[1], [])]
    TABLE.write_text("\n".join(told) + "\n")


if __name__ == "__main__":
    write_tests()
