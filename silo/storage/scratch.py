"""Directories for what is made beside a shard.  They go with whoever made them, also if that is killed.

What is in them may be data of users, so nothing may stay behind: each directory is locked by its maker, and what nobody
has locked any more is removed by the next who comes.  A lock goes with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "silo-scratch-"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """An empty directory in TMPDIR that is gone afterwards, with all that is in it."""
    sweep()
    directory, lock = _made()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep() -> None:
    """Remove the directories of those who were killed.  One that cannot be removed stays, for the next to try."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _made() -> tuple[Path, int | None]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Somebody who sweeps may have found it before, and holds the lock until it is removed.
        lock = _locked(directory, fcntl.LOCK_EX)
        if directory.exists():
            return directory, lock
        if lock is not None:
            os.close(lock)


def _locked(directory: Path, how: int) -> int | None:
    """Lock a directory; None if it is another's, or gone, or its file system has no locks."""
    with contextlib.suppress(OSError):
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(opened, how)
        except OSError:
            os.close(opened)
            raise
        return opened
    return None
