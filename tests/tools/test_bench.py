"""The bench runs, and writes down what it found.  How fast that was is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
IN_S = 100


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "bench"), *arguments],
        capture_output=True,
        text=True,
        timeout=IN_S,
        check=False,
    )


@pytest.mark.slow
def test_a_row_is_measured_and_written_as_json(tmp_path):
    said = bench(
        *("--quick", "--only", "in-process", "--jobs", "500"),
        *("--dir", str(tmp_path / "data"), "--json", str(tmp_path / "x.json")),
    )

    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads((tmp_path / "x.json").read_text())
    assert {"began", "took_s", "machine", "settings", "broker", "figures", "failures"} <= found.keys()
    assert {"cores", "python", "slatedb", "load_before", "load_after"} <= found["machine"].keys()
    assert (found["settings"]["jobs"], found["settings"]["repeat"]) == (500, 1)
    assert found["failures"] == {}
    figures = {(figure["row"], figure["name"]): figure for figure in found["figures"]}
    for fsync in (True, False):
        figure = figures[f"in process, fsync {'on' if fsync else 'off'}", "life cycle"]
        assert (figure["unit"], figure["fsync"]) == ("jobs/s", fsync)
        assert figure["min"] == figure["median"] == figure["max"] > 0
        assert figure["ratio"] == pytest.approx(figure["median"] / figure["target"]["value"])
    assert list((tmp_path / "data").iterdir()) == [], "the temporary directories are removed"


def test_a_row_that_does_not_exist_is_refused_with_those_that_do():
    said = bench("--only", "in-process,unairy")

    assert said.returncode == 2
    assert "there is no row 'unairy'; there are in-process, unary, batch, stream, peers, backlog" in " ".join(
        said.stderr.split()
    )


def test_help_names_every_row():
    said = bench("--help")

    assert said.returncode == 0
    for row in (
        "in-process",
        "unary",
        "stream",
        "peers",
        "backlog",
        "open",
        "replay",
        "latency",
        "idle",
        "micro",
    ):
        assert f"\n    {row} " in said.stdout
