"""A fleet of `silo worker` processes, one of which dies every second: each job ends, and none runs after its success."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from silo.client import AsyncClient, NewJob, Retry, Status
from tests.crash.broker import broker

WORKERS = 8
JOBS = 400
TENANTS = ("acme", "globex", "initech")
SECONDS = float(os.environ.get("SILO_FLEET_S", "12"))
"""How long workers are killed; SILO_FLEET_S=60 kills them for a minute."""

SEED = int(os.environ.get("SILO_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

APP = """
import asyncio
from silo.client import Worker

worker = Worker(concurrency=8)

@worker.task("fleet")
async def work(payload):
    await asyncio.sleep(payload)
    return "done"
"""


class Fleet:
    """Worker processes; only this object ends them."""

    def __init__(self, home: Path, address: str) -> None:
        (home / "fleet.py").write_text(APP)
        self.killed = 0
        self._home = home
        self._address = address
        self._processes = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "silo.cli.main", "worker", "fleet:worker", "--broker", self._address],
            cwd=self._home,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )

    def kill_one(self, chance: random.Random) -> None:
        """End one as a power cut would, and start another."""
        place = chance.randrange(WORKERS)
        self._processes[place].kill()
        self._processes[place].wait()
        self._processes[place] = self._start()
        self.killed += 1

    def stop(self) -> list[int]:
        """Tell all to stop.  Returns their exit codes."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        return [process.wait(60) for process in self._processes]


@pytest.mark.slow
@pytest.mark.timeout(300 + 2 * SECONDS)
def test_every_job_of_a_fleet_under_sigkill_ends_and_none_runs_after_its_success(tmp_path):
    print(f"SILO_CRASH_SEED={SEED}")
    chance = random.Random(SEED)
    with broker(tmp_path / "data") as running:
        fleet = Fleet(tmp_path, running.address)
        try:
            asyncio.run(asyncio.wait_for(_live(running.address, fleet, chance), 200 + 2 * SECONDS))
        finally:
            codes = fleet.stop()
        assert set(codes) <= {0, 143}, codes
    assert fleet.killed >= SECONDS - 1


async def _live(address: str, fleet: Fleet, chance: random.Random) -> None:
    async with AsyncClient(address) as client:
        jobs = await client.enqueue_many(
            NewJob(
                task_group="fleet",
                payload=chance.uniform(0, 8 * WORKERS * 2 * SECONDS / JOBS),
                id=f"job-{number}",
                tenant=TENANTS[number % len(TENANTS)],
                retry=Retry(times=200, first_s=0.1, longest_s=1),
            )
            for number in range(JOBS)
        )
        killing = asyncio.create_task(_kill(fleet, chance))
        for job in jobs:
            assert await job.wait() == "done"
        await killing

        crashes = 0
        for job in jobs:
            assert await job.status() is Status.SUCCEEDED
            kinds = [event.type for event in await job.history()]
            assert kinds.count("AttemptSucceeded") == 1
            # Whatever a job did, its success was the last of it: no lease came after.
            assert kinds.index("AttemptSucceeded") > max(
                place for place, kind in enumerate(kinds) if kind == "TaskLeased"
            )
            crashes += kinds.count("TaskLeased") - 1
        print(f"{fleet.killed} workers killed, {crashes} attempts lost with them")
        assert crashes > 0


async def _kill(fleet: Fleet, chance: random.Random) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + SECONDS
    while loop.time() < until:
        await asyncio.sleep(1)
        fleet.kill_one(chance)
