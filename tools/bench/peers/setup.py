"""An environment with the peers, made once, apart from that of the project."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

from tools.bench.peers.servers import Missing

PACKAGES = (
    "pgqueuer>=1.6",
    "procrastinate>=3.10",
    "celery[redis]>=5.7",
    "asyncpg>=0.32",
    "psycopg[binary,pool]>=3.3",
)


def home() -> Path:
    """Where it lies: in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "silo-bench" / "peers"


def python_with_peers(say: Callable[[str], None]) -> Path:
    """The interpreter of the environment.  Raises Missing if it cannot be made."""
    python = home() / "bin" / "python"
    ready = home() / "ready"
    if ready.exists():
        return python
    say(f"  installing the peers into {home()}")
    try:
        venv.create(home(), with_pip=True, clear=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"{PACKAGES} cannot be installed: {getattr(error, 'stderr', '') or error}") from error
    ready.touch()
    return python
