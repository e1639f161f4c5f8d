"""What is made on the side leaves nothing behind, also of those who were killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from silo.storage import scratch
from silo.storage.scratch import scratch_directory, sweep

HOLDER = """
import sys
from silo.storage.scratch import scratch_directory
with scratch_directory() as directory:
    (directory / "rows").write_text("secret")
    print(directory, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_directory_is_gone_with_what_is_in_it():
    with scratch_directory() as directory:
        (directory / "deep").mkdir()
        (directory / "deep" / "rows").write_text("secret")
    assert not directory.exists()


def test_it_is_gone_also_if_what_was_made_there_failed(tmp_path):
    with pytest.raises(FileNotFoundError), scratch_directory() as directory:
        (directory / "nothing").unlink()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_in_use_is_left_alone():
    with scratch_directory() as one, scratch_directory() as other:
        sweep()
        assert one.is_dir()
        assert other.is_dir()
        assert one != other


def test_what_a_killed_process_left_is_removed_by_the_next_and_not_before(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env={"TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        left = Path(holder.stdout.readline().strip())
        sweep()
        assert (left / "rows").read_text() == "secret"
        holder.kill()
    assert left.is_dir()
    with scratch_directory():
        assert not left.exists()


def test_who_sweeps_between_making_and_locking_takes_nothing_from_anybody(monkeypatch):
    real, taken = scratch._locked, []

    def swept_first(directory, how):
        if not taken:
            taken.append(directory)
            directory.rmdir()
        return real(directory, how)

    monkeypatch.setattr(scratch, "_locked", swept_first)
    with scratch_directory() as directory:
        assert directory.is_dir()
        assert directory not in taken


def test_what_is_called_so_and_is_no_directory_of_ours_stays(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (tmp_path / f"{scratch.PREFIX}link").symlink_to(outside)
    (tmp_path / f"{scratch.PREFIX}file").write_text("kept")
    sweep()
    assert (outside / "file").exists()
    assert (tmp_path / f"{scratch.PREFIX}file").exists()
