"""Is another server at work on the same data directory?

Nothing keeps two servers apart: the newer one wins, by fencing.  That is right if it replaces the other, and a mistake if
somebody started two, so both are to say what happens.  Each server keeps a lock on `cluster/server` beside the shard
map, which the kernel lets go of when the process ends, however it ends.  The lock is shared, as the newer one comes while
the older one is still there; the file names the one that came last.

In a bucket there are no locks, so there it cannot be told.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from silo.settings import Database

NAME = "cluster/server"


class Occupancy:
    """One server's presence in a data directory.  `path` is the file that it keeps locked, None if there is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: int | None = None
        self._said = b""

    @classmethod
    def of(cls, database: Database) -> Occupancy:
        """The presence of a server with this database."""
        template = database.template
        return cls(Path(template.root, NAME) if template.kind == "fs" else None)

    def enter(self, grpc_addr: str) -> str | None:
        """Say that this server is here.

        Args:
            grpc_addr: where it listens, for the others.

        Returns who is here already, in words; None if nobody is, or it cannot be told.  Raises OSError.
        """
        if self._path is None:
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other = None
        except BlockingIOError:
            other = self.newest()
        fcntl.flock(self._file, fcntl.LOCK_SH)
        os.ftruncate(self._file, 0)
        self._said = json.dumps({"pid": os.getpid(), "grpc_addr": grpc_addr}).encode()
        os.pwrite(self._file, self._said, 0)
        return other

    def newest(self) -> str:
        """Who came last, in words; not this server itself."""
        said = b"" if self._file is None else os.pread(self._file, 4096, 0)
        try:
            other = json.loads(said if said != self._said else b"")
            return f"another server (pid {other['pid']}, gRPC on {other['grpc_addr']})"
        except (ValueError, KeyError):
            # There is no file, the other has not written yet, or is a program that does not.
            return "another process"

    def leave(self) -> None:
        """This server is no longer here.  May be called at any time."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
