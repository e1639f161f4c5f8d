"""The simulator itself: one seed is one history, what is found is found again, and becomes short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from silo.events.timeline import timeline
from silo.projections import concurrency
from silo.testing.run import History, run
from silo.testing.scenarios import ALL
from silo.testing.shrink import chosen, shrink
from tests.mutations.bugs import BUGS
from tools.mutate.copies import ROOT, DoesNotApply, planted


@pytest.mark.parametrize("name", sorted(ALL))
def test_nothing_is_found_in_the_first_seeds_and_each_gives_one_history(name):
    for seed in range(2):
        once, again = run(ALL[name], seed), run(ALL[name], seed)

        assert once.failure is None, f"python tools/simulate --scenario {name} --seed {seed}"
        assert once.events > 5
        assert (once.digest, once.events, once.seconds) == (again.digest, again.events, again.seconds)


def test_other_seeds_are_other_histories():
    assert len({run(ALL["mixed"], seed).digest for seed in range(4)}) == 4


def test_every_scenario_says_what_it_is_for_and_bears_the_name_of_its_file():
    for name, scenario in ALL.items():
        assert scenario.about
        assert (ROOT / "silo" / "testing" / "scenarios" / f"{name}.py").exists()


@pytest.fixture
def leaking(monkeypatch):
    """Slots are never given back."""
    monkeypatch.setattr(concurrency, "_release", lambda *_: None)


def the_failure(name: str) -> History:
    return next(found for seed in range(20) if (found := run(ALL[name], seed)).failure is not None)


@pytest.mark.usefixtures("leaking")
def test_what_is_found_becomes_short_and_is_found_again():
    failed = the_failure("concurrency_limits")
    scenario = ALL["concurrency_limits"]
    assert failed.failure is not None
    shortest, places = shrink(scenario, failed)

    assert shortest.failure is not None
    assert shortest.failure.check == failed.failure.check
    assert len(places) <= 3 < len(failed.plan)
    again = run(scenario, failed.seed, plan=chosen(scenario.plan(failed.seed), places))
    assert again.failure is not None
    assert str(again.failure) == str(shortest.failure)


def test_a_timeline_tells_each_event_in_a_line():
    history = run(ALL["retry_frees_slot"], 0)
    [log] = history.logs.values()
    lines = list(timeline(log, since_ms=log[0].time_ms))

    assert len(lines) == history.events
    assert "ShardCreated" in lines[0]
    assert any("JobEnqueued" in line and "a/first" in line and "[client" in line for line in lines)


# --- the commands --------------------------------------------------------------------------------------------------------


def simulate(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/simulate", *arguments],
        cwd=root,
        env=os.environ | {"COLUMNS": "150"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_command_runs_seeds_twice_and_counts(tmp_path):
    told = tmp_path / "told.json"
    done = simulate("--scenario", "mixed,floods", "--seeds", "3", "--json", str(told))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 seeds" in done.stdout
    assert "0 failed" in done.stdout
    assert '"failed": []' in told.read_text()


def test_the_command_names_what_there_is():
    done = simulate("--scenario", "nosuch")

    assert done.returncode == 2
    assert "there is no scenario 'nosuch'" in done.stderr
    assert "takeovers" in done.stderr


def test_the_command_shows_one_seed():
    done = simulate("--scenario", "mixed", "--seed", "1")

    assert done.returncode == 0
    assert "mixed, seed 1: nothing was found in" in done.stdout


# --- deliberate bugs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_deliberate_bug_still_fits_the_program_and_is_in_the_table(bug):
    file = ROOT / "silo" / bug.file
    compile(planted(bug, file.read_text()), bug.file, "exec")
    assert f"| {bug.name} | {bug.about} |" in (ROOT / "docs" / "mutations.md").read_text()
    assert set(bug.scenarios) <= set(ALL)


def test_a_bug_whose_place_has_changed_says_so():
    with pytest.raises(DoesNotApply, match="has the text 0 times"):
        planted(BUGS[0], "something else")
