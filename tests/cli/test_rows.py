"""`silo verify` and `silo rebuild` as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from silo.cluster.occupancy import Occupancy
from silo.cluster.single_node import beside, find_or_create
from silo.projections.jobs import JOBS
from silo.settings import load
from silo.shard.cancel import cancel
from silo.shard.disk import decoded, row_key
from silo.shard.enqueue import enqueue
from silo.shard.jobs import JobName
from silo.storage.stores import StoreSpec, open_database
from tests.builders import a_job
from tests.serving import IN_S, serving

SHARD = "5b1f0c9e-6a3e-4c55-9d0e-2f1f3a1c8a77"
DAMAGED = JobName("acme", "j3")


def spec(data: Path) -> StoreSpec:
    return StoreSpec(backend="fs", path=f"{data}/%shard%", fsync=False)


async def a_history(data: Path) -> None:
    """A shard map with one shard, and a few jobs in it."""
    config = data / "silo.toml"
    config.write_text(f'[database]\nbackend = "fs"\npath = "{data}/%shard%"\n')
    store = beside(load(str(config), {}).settings.database)
    await find_or_create(store, initial_shard_count=1, created_at_ms=1, new_id=lambda: SHARD)

    async def open_it():
        return await open_database(spec(data), SHARD)

    async with serving(open_it) as shard:
        for number in range(10):
            await shard.execute(enqueue, a_job(job_id=f"j{number}"))
        await shard.execute(cancel, DAMAGED)
        await shard.checkpoint()


async def damage(data: Path) -> None:
    """One row says something else than its events."""
    database = await open_database(spec(data), SHARD)
    key = (DAMAGED.tenant, DAMAGED.job_id)
    row = decoded(JOBS, key, await database.get(row_key(JOBS, key)))
    batch = database.batch()
    batch.put(row_key(JOBS, key), JOBS.encode(attrs.evolve(row, attempts=7)))
    await database.write(batch)
    await database.close()


@pytest.fixture
def data(tmp_path):
    asyncio.run(a_history(tmp_path))
    return tmp_path


def silo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("silo")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=IN_S, check=False)


def test_all_is_well_with_what_a_server_has_left(data):
    found = silo("verify", "--data", str(data))

    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith(f"shard {SHARD}: 23 events in ")
    assert found.stdout.endswith("all is well\n")


def test_a_row_that_is_damaged_is_named_with_its_events_and_made_anew(data):
    asyncio.run(damage(data))
    found = silo("verify", "--data", str(data))

    assert found.returncode == 1
    assert "and a difference:\n  jobs ('acme', 'j3'): the log gives " in found.stdout
    assert "JobEnqueued            acme/j3" in found.stdout
    assert "JobCancelled           acme/j3" in found.stdout
    assert f"`silo rebuild --shard {SHARD}`" in found.stdout

    assert silo("rebuild", "--data", str(data), "--shard", SHARD).returncode == 0
    assert silo("verify", "--data", str(data)).returncode == 0


def test_one_projection_can_be_put_right_by_itself(data):
    asyncio.run(damage(data))
    other = silo("rebuild", "--data", str(data), "--projection", "counters")
    assert (other.returncode, "all is well" in other.stdout) == (0, True)
    assert silo("verify", "--data", str(data)).returncode == 1

    mended = silo("rebuild", "--data", str(data), "--projection", "jobs")
    assert (mended.returncode, mended.stderr) == (0, "")
    assert "1 rows put right; the first:\n  jobs ('acme', 'j3'): the log gives attempts = 0" in mended.stdout
    assert silo("verify", "--data", str(data)).returncode == 0


def test_it_can_be_said_as_json(data):
    asyncio.run(damage(data))
    [told] = json.loads(silo("verify", "-c", str(data / "silo.toml"), "--json").stdout)

    assert told["shard"] == SHARD
    assert told["events"] == 23
    assert told["difference"].startswith("jobs ('acme', 'j3')")
    assert len(told["events_there"]) == 4


def test_a_server_that_is_at_work_is_left_alone(data):
    occupancy = Occupancy.of(load(str(data / "silo.toml"), {}).settings.database)
    occupancy.enter("127.0.0.1:7450")
    try:
        found = silo("verify", "--data", str(data))
    finally:
        occupancy.leave()

    assert found.returncode == 2
    assert "gRPC on 127.0.0.1:7450) is at work on" in found.stderr
    assert "stop it first, or ask it by `siloctl shard verify`" in found.stderr


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_what_is_not_there_is_named(command, data, tmp_path):
    nowhere = silo(command, "--data", str(tmp_path / "nowhere"))
    assert nowhere.returncode == 2
    assert "there are no shards in" in nowhere.stderr
    unknown = silo(command, "--data", str(data), "--shard", "00000000-0000-4000-8000-000000000000")
    assert unknown.returncode == 2
    assert f"there are {SHARD}" in unknown.stderr


def test_help_teaches():
    told = silo("verify", "--help").stdout

    assert "silo verify -c silo.toml --json" in told
    assert "`silo rebuild` makes it good" in " ".join(told.split())
