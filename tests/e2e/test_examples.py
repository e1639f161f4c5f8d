"""The examples do what they say, against a real node."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from silo.pb import silo_pb2 as pb
from silo.settings import Server
from silo.testing import broker
from tests.server.running import running_node
from tests.serving import IN_S, run

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BY_HAND = EXAMPLES / "by_hand.py"


async def start_by_hand(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(BY_HAND),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def said_by(process):
    """Exit code, standard output and standard error."""
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, out.decode(), err.decode()


def test_by_hand_a_program_hands_over_a_job_does_it_and_prints_its_result():
    async def say():
        async with running_node(shards=8) as node:
            assert await said_by(await start_by_hand(node.address)) == (0, "Hello, world!\n", "")
            info = await node.call("GetNodeInfo", pb.GetNodeInfoRequest())
            counts = [(shard.total_jobs, shard.completed_jobs) for shard in info.owned_shards]
            assert sum(total for total, _ in counts) == sum(completed for _, completed in counts) == 1

    run(say())


def test_by_hand_it_waits_for_a_broker_that_starts_later():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    async def say():
        program = await start_by_hand(address)
        async with running_node(server=Server(grpc_addr=address)):
            assert await said_by(program) == (0, "Hello, world!\n", "")

    run(say())


def test_by_hand_it_says_that_it_may_not_call():
    async def say():
        async with running_node(auth_token="secret") as node:
            code, out, err = await said_by(await start_by_hand(node.address))
            assert (code, out) == (1, "")
            assert err == f"the broker at {node.address}: UNAUTHENTICATED: missing authorization header\n"

    run(say())


# --- with silo.client ----------------------------------------------------------------------------------------------------


def run_example(name: str, address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env={**os.environ, "SILO_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=IN_S,
        check=False,
    )


@contextmanager
def started(address: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program in the folder of the examples that goes on until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=EXAMPLES,
        env={**os.environ, "SILO_ADDRESS": address, "PYTHONPATH": str(EXAMPLES.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=IN_S)


def worker_of(name: str, address: str):
    return started(address, "-m", "silo.cli.main", "worker", f"{name}:worker")


def test_hello_says_hello():
    with broker() as silo:
        done = run_example("hello.py", silo.address)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, world!\n", "")


def test_limits_hold_for_each_customer():
    with broker() as silo:
        done = run_example("limits.py", silo.address)
        assert (done.returncode, done.stderr) == (0, "")
        lines = re.findall(r"(\w+): 8 jobs, at most (\d) at once", done.stdout)
        assert [name for name, _ in lines] == ["acme", "globex", "initech"]
        assert all(int(most) <= 2 for _, most in lines)


def test_cancelled_jobs_end_both_kinds_of_handlers():
    with broker() as silo:
        done = run_example("cancellation.py", silo.address)
        assert done.returncode == 0
        said = done.stdout.splitlines()
        assert {"export: cleaning up", "convert: stopping between two pages"} < set(said)
        assert sum(line.endswith(" was cancelled") for line in said) == 2


def test_a_web_app_hands_reports_over_and_shows_them():
    with (
        broker() as silo,
        started(silo.address, "web_app.py", "serve", "0") as app,
        worker_of("web_app", silo.address),
        silo.client() as client,
    ):
        home = "http://" + app.stdout.readline().removeprefix("listening on ").strip()
        with urllib.request.urlopen(f"{home}/reports", data=b'{"rows": 2}', timeout=IN_S) as reply:
            assert reply.status == 202
            job_id = json.load(reply)["job"]
        client.job(job_id).wait(IN_S)
        with urllib.request.urlopen(f"{home}/reports/{job_id}", timeout=IN_S) as reply:
            assert json.load(reply) == {"status": "SUCCEEDED", "result": {"lines": ["line 0", "line 1"]}}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{home}/reports/none", timeout=IN_S)


def test_a_schedule_goes_on_and_runs_once_each_time():
    with broker() as silo, silo.client() as client:
        first = run_example("scheduled.py", silo.address)
        assert first.stdout.startswith("scheduled: clean-up ")
        assert run_example("scheduled.py", silo.address).returncode == 0
        with worker_of("scheduled", silo.address) as one, worker_of("scheduled", silo.address):
            job_id = first.stdout.removeprefix("scheduled: ").strip()
            due = client.job(job_id).wait(IN_S)
            next_id = f"clean-up {(datetime.fromisoformat(due) + timedelta(seconds=2)).isoformat()}"
            client.job(next_id).wait(IN_S)
        assert one.returncode == 0
        found = client.query("select id, count(*) as n from jobs group by id")
        assert all(row["n"] == 1 for row in found.rows)
        attempts = client.query("select job_id, count(*) as n from attempts group by job_id").rows
        assert all(row["n"] == 1 for row in attempts)
