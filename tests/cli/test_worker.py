"""`silo worker` as a person runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from silo.cli.worker import _Rate, table
from silo.client import Status, Worker
from silo.testing import broker
from tests.serving import IN_S

APP = """
import time
from silo.client import Worker

worker = Worker("127.0.0.1:1", drain_s=0.2)
nothing = 5

@worker.task("stuck")
def stuck(_):
    print("stuck", flush=True)
    time.sleep(3600)

@worker.task("greetings")
async def greet(payload):
    if payload == "no":
        raise ValueError("not this one")
    return f"Hello, {payload}!"
"""


def start(home: Path, *arguments: str, stdout: int | None = None) -> subprocess.Popen:
    (home / "shop.py").write_text(APP)
    return subprocess.Popen(
        [sys.executable, "-m", "silo.cli.main", "worker", *arguments],
        cwd=home,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )


def said(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=IN_S)
    return process.returncode, err


def test_a_worker_does_jobs_until_it_is_told_to_stop(tmp_path):
    with broker() as silo, silo.client() as client:
        process = start(tmp_path, "shop:worker", "--broker", silo.address, "--worker-id", "w1")
        try:
            assert client.enqueue("greetings", "world", id="a").wait(IN_S) == "Hello, world!"
            failed = client.enqueue("greetings", "no", id="b")
            with pytest.raises(Exception, match="ValueError: not this one"):
                failed.wait(IN_S)
            assert {event.actor for event in client.job("a").history()} == {"client", "w1"}
        finally:
            process.send_signal(signal.SIGTERM)
            code, log = said(process)
        assert code == 0
        assert "worker w1 does stuck, greetings at " in log
        assert "job b failed in attempt 1 (the last one): ValueError: not this one" in log
        assert "stopping: no new tasks" in log
        assert client.job("a").status() is Status.SUCCEEDED


def test_a_thread_that_does_not_end_in_time_does_not_keep_the_process(tmp_path):
    with broker() as silo, silo.client() as client:
        process = start(tmp_path, "shop:worker", "--broker", silo.address, stdout=subprocess.PIPE)
        client.enqueue("stuck")
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=IN_S)
        assert process.returncode == 1
        assert "1 tasks did not end in time; other workers get them when their leases end" in log


def test_logs_as_json_carry_the_job(tmp_path):
    with broker() as silo, silo.client() as client:
        process = start(tmp_path, "shop:worker", "--broker", silo.address, "--log-format", "json", "-v")
        lines: list[str] = []
        found = threading.Event()

        def read() -> None:
            for line in process.stderr:
                lines.append(line)
                if '"job_id": "a"' in line:
                    found.set()

        reading = threading.Thread(target=read)
        reading.start()
        client.enqueue("greetings", "world", id="a")
        assert found.wait(IN_S), lines
        process.send_signal(signal.SIGTERM)
        process.wait(IN_S)
        reading.join(IN_S)
        process.stderr.close()


@pytest.mark.parametrize(
    ("app", "text"),
    [
        ("shop", "shop: this takes MODULE:WORKER, such as shop:worker for `worker` in shop.py"),
        ("shop:nobody", "shop:nobody: nobody in shop is not a silo.client.Worker; it has worker"),
        ("shop:nothing", "shop:nothing: nothing in shop is not a silo.client.Worker; it has worker"),
        ("shup:worker", "shup:worker: there is no module shup in "),
    ],
)
def test_what_is_no_worker_is_said_with_a_way_out(tmp_path, app, text):
    code, log = said(start(tmp_path, app))
    assert code == 1
    assert log.startswith(f"Config error: {text}")
    assert "Traceback" not in log


def test_a_worker_that_may_not_call_says_why(tmp_path):
    with broker(auth_token="secret") as silo:
        code, log = said(start(tmp_path, "shop:worker", "--broker", silo.address))
        assert code == 1
        assert log.splitlines()[-1].endswith("missing authorization header")
        assert "Traceback" not in log


def test_an_address_that_is_none_is_a_configuration_error(tmp_path):
    code, log = said(start(tmp_path, "shop:worker", "--broker", "nowhere"))
    assert (code, log) == (
        1,
        "Config error: 'nowhere' is not the address of a broker; it looks like 127.0.0.1:7450\n",
    )


def test_the_table_shows_what_was_done_and_how_fast():
    worker = Worker("127.0.0.1:1", worker_id="w1")
    worker.task("emails")(lambda payload: None)
    rates = {"emails": _Rate()}
    metrics = worker.metrics["emails"]
    table(worker, rates, 100.0)
    metrics.succeeded, metrics.failed, metrics.running, metrics.busy_s = 1_200, 3, 7, 2.406
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(worker, rates, 102.0))
    text = console.export_text()
    console.file.close()
    row = next(line for line in text.splitlines() if "emails" in line)
    assert row.split() == ["emails", "7", "602", "1,200", "3", "0", "0", "2.0"]
    assert all(word in text for word in ("succeeded", "cancelled", "ms a job"))
