"""Row `peers`: other durable queues on the same machine, in the same run, each as its documents recommend for production.

    PgQueuer       on PostgreSQL, which flushes each transaction to disk
    Procrastinate  on the same
    Celery         on Redis with `appendfsync always`, late acknowledgement

Each has a program of its own (pgqueuer_load.py and so on), which runs in an environment of its own and does what the row
`stream` does with Silo: enqueues in lots, drains what waits with handlers that do nothing, then one job after the other with
an idle worker.  What they need is installed by setup.py; what cannot be is left out, with the reason.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.bench.bench import Bench
from tools.bench.peers.servers import Missing, postgres, redis
from tools.bench.peers.setup import python_with_peers
from tools.bench.probes import percentile
from tools.bench.report import Figure

PROGRAMS = Path(__file__).parent / "programs"
PEERS = (
    ("PgQueuer", "pgqueuer_load.py", postgres),
    ("Procrastinate", "procrastinate_load.py", postgres),
    ("Celery", "celery_load.py", redis),
)
TIMEOUT_S = 600


def figures(bench: Bench) -> Iterator[Figure]:
    try:
        python = python_with_peers(bench.say)
    except Missing as missing:
        bench.say(f"  no peers: {missing}")
        return
    jobs, samples = max(bench.sizes.jobs // 3, 2_000), min(bench.sizes.samples, 500)
    for name, program, server in PEERS:
        try:
            with bench.directory() as directory, server(Path(directory)) as (address, version):
                found = _run(python, PROGRAMS / program, address, jobs, samples)
        except Missing as missing:
            bench.say(f"  {name} is left out: {missing}")
            continue
        row = f"peer: {name} {found['version']} on {version}"
        for what in ("enqueue", "drain"):
            yield Figure(
                row=row, name=f"{what} alone", value=found[what], unit="jobs/s", fsync=True, note=found["how"]
            )
        for share in (50, 99):
            value = percentile(found["ms"], share)
            yield Figure(
                row=row, name=f"enqueue to handler start, p{share}", value=value, unit="ms", fsync=True
            )


def _run(python: Path, program: Path, address: str, jobs: int, samples: int) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), str(program), address, str(jobs), str(samples)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise Missing(f"{program.name} failed: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
