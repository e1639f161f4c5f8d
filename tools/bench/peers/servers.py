"""The servers that peers need, each for as long as a block lasts, on a free port of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

STARTS_WITHIN_S = 30

# PostgreSQL as its documents recommend it for a machine of this size; what makes it durable stays as it is.
POSTGRES = (
    "shared_buffers=1GB",
    "effective_cache_size=3GB",
    "wal_buffers=16MB",
    "max_wal_size=4GB",
    "checkpoint_completion_target=0.9",
    "random_page_cost=1.1",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
)


class Missing(Exception):
    """A peer cannot be measured here; the text says why."""


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _install(package: str) -> None:
    """Install a package of Debian, if this is one and may be changed."""
    if os.geteuid() or not shutil.which("apt-get"):
        raise Missing(f"{package} is not installed, and this is no Debian that may be changed")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", package]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{package} cannot be installed: {done.stderr[-500:]}")


def _program(name: str, package: str, places: Sequence[str] = ()) -> str:
    """The path of a program, which is installed if it is not there."""
    for attempt in (0, 1):
        found = [str(path) for place in places for path in sorted(Path("/").glob(place))]
        if found:
            return found[-1]
        if path := shutil.which(name):
            return path
        if not attempt:
            _install(package)
    raise Missing(f"there is no {name}")


def _as_nobody_special() -> tuple[list[str], int | None]:
    """How to start a program that refuses to run as root, and the user that it then is."""
    if os.geteuid():
        return [], None
    user = "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
    return ["runuser", "-u", user, "--"], pwd.getpwnam(user).pw_uid


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Missing(f"the server did not start: {log.read_text(errors='replace')[-1000:]}")


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_for(port, process, log)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def postgres(directory: Path) -> Iterator[tuple[str, str]]:
    """A PostgreSQL; its address, and which one it is."""
    initdb = _program("initdb", "postgresql", ["usr/lib/postgresql/*/bin/initdb"])
    server = str(Path(initdb).with_name("postgres"))
    prefix, user = _as_nobody_special()
    data, log = directory / "postgres", directory / "postgres.log"
    data.mkdir()
    if user is not None:
        directory.chmod(0o755)
        os.chown(data, user, -1)
    made = subprocess.run(
        [*prefix, initdb, "-D", str(data), "-U", "bench", "--auth=trust", "-E", "UTF8"],
        capture_output=True,
        text=True,
        check=False,
        cwd=data,
    )
    if made.returncode:
        raise Missing(f"initdb failed: {made.stderr[-500:]}")
    port = _free_port()
    options = [part for setting in POSTGRES for part in ("-c", setting)]
    address = ["-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    with _running([*prefix, server, "-D", str(data), *address, *options], port, log):
        said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
        yield f"postgresql://bench@127.0.0.1:{port}/postgres", f"PostgreSQL {said.split()[2]}"


@contextmanager
def redis(directory: Path) -> Iterator[tuple[str, str]]:
    """A Redis that flushes every command to disk; its address, and which one it is."""
    server = _program("redis-server", "redis-server")
    port = _free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    durable = ["--appendonly", "yes", "--appendfsync", "always"]
    with _running([server, *options, *durable], port, directory / "redis.log"):
        said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
        version = next(part.removeprefix("v=") for part in said.split() if part.startswith("v="))
        yield f"redis://127.0.0.1:{port}/0", f"Redis {version}, appendfsync always"
