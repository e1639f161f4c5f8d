"""`silo demo` as somebody runs it: what it says, what it leaves behind, and that it would notice if something were wrong."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from silo.cli.demo import demo
from silo.cli.demo_audit import Audit, Life, problems, result_of
from silo.cli.demo_plan import CRANES, ENDS, TENANTS, Kind, PlannedJob, plan
from silo.domain.jobs import JobStatus
from silo.projections.counters import CountRow

IN_S = 60


@contextmanager
def running_demo(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process, in a session of its own."""
    command = [sys.executable, "-m", "silo.cli.main", "demo", *arguments]
    process = subprocess.Popen(
        command,
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def of_session(leader: int) -> list[str]:
    """The processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name may hold anything, so the fields are counted from where it ends.
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == leader and state != "Z":
            found.append(stat.parent.name)
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@needs_proc
def test_every_job_reaches_its_end_although_the_broker_is_killed(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--jobs", "200") as process:
        said, _ = process.communicate(timeout=IN_S)

        assert process.returncode == 0, said
        for line in (
            r"SIGKILL to the broker \(pid \d+\): \d+ jobs acknowledged",
            r"the broker answers again, \d+\.\d s after the kill",
            r"ok  each of 200 acknowledged jobs is there once and ended once, as planned",
            r"all +0 +0 +\d+ +[34] +[45] +200",
            r"why does job-\d+ of the harbour not run\?",
            r"10 jobs, 2 slots: never more than 2 were held at once, and all were given back",
            r"JobEnqueued .* demo, Enqueue",
            r"AttemptFailed +attempt \d, DemoFailure +worker-\d, ReportOutcome",
            r"AttemptSucceeded +attempt \d",
            r"serve -c silo-demo-data/silo.toml",
        ):
            assert re.search(line, said), f"{line}\nis not in\n{said}"
        assert of_session(process.pid) == []
        assert "\x1b" not in said


@needs_proc
def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--jobs", "2000") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "workers started" in line:
                break
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=IN_S)

        assert process.returncode == 130
        assert "Interrupted: all processes of the demo are stopped" in said
        assert of_session(process.pid) == []


@needs_proc
def test_a_broker_that_dies_by_itself_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--jobs", "2000") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if started := re.search(r"broker started \(pid (\d+)\)", line):
                broker = int(started[1])
            if "workers started" in line:
                break
        subprocess.run(["kill", "-9", str(broker)], check=True)
        said, _ = process.communicate(timeout=IN_S)

        assert process.returncode == 1
        assert re.search(
            r"The demo failed: the broker \(pid \d+\) ended with exit code -9; .*broker.log", said
        )
        assert of_session(process.pid) == []


def test_only_the_data_of_a_demo_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")

    outcome = CliRunner().invoke(demo, ["--data", str(tmp_path)])

    assert outcome.exit_code == 1
    assert "exists and is not from a demo" in outcome.output
    assert (tmp_path / "letters").read_text() == "dear"


# --- the proof proves something ------------------------------------------------------------------------------------------


JOBS = plan(100)


def as_planned() -> Audit:
    """What the shards have if all went well."""
    found = Audit(
        lives={
            (job.tenant, job.id): Life(
                enqueued=1,
                ends=[ENDS[job.kind]],
                result=result_of(job) if ENDS[job.kind] is JobStatus.SUCCEEDED else b"",
            )
            for job in JOBS
        }
    )
    for tenant in TENANTS:
        ends = [ENDS[job.kind] for job in JOBS if job.tenant == tenant]
        found.counts[tenant] = CountRow(tuple(ends.count(status) for status in JobStatus))
    return found


def a_plain_job() -> PlannedJob:
    return next(job for job in JOBS if job.kind is Kind.PLAIN)


def test_all_is_well_if_all_is_as_planned() -> None:
    assert list(problems(as_planned(), JOBS)) == []


def test_an_acknowledged_job_that_is_missing_is_noticed() -> None:
    found, job = as_planned(), a_plain_job()
    del found.lives[job.tenant, job.id]

    assert "was acknowledged, and the log has it 0 times" in next(problems(found, JOBS))


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        pytest.param([], "not at all", id="it never ended"),
        pytest.param([JobStatus.FAILED], "failed", id="it ended otherwise"),
        pytest.param([JobStatus.SUCCEEDED] * 2, "succeeded and succeeded", id="it ended twice"),
    ],
)
def test_a_job_that_did_not_end_as_planned_is_noticed(ends: list[JobStatus], told: str) -> None:
    found, job = as_planned(), a_plain_job()
    found.life(job).ends = ends

    assert next(problems(found, JOBS)).endswith(f"was to end as succeeded, and ended {told}")


def test_a_wrong_result_is_noticed() -> None:
    found, job = as_planned(), a_plain_job()
    found.life(job).result = result_of(attrs.evolve(job, id="another"))

    assert "has a result that is not that of its payload" in next(problems(found, JOBS))


def test_a_counter_that_differs_from_the_log_is_noticed() -> None:
    found = as_planned()
    found.counts["bakery"] = CountRow((1, 0, 0, 0, 0))

    assert "the rows count 1 jobs of bakery as scheduled, the log gives 0" in list(problems(found, JOBS))


def test_a_limit_that_was_not_kept_is_noticed() -> None:
    found = as_planned()
    found.most_at_the_crane = CRANES + 1
    found.at_the_crane = {"task"}

    told = list(problems(found, JOBS))
    assert told[0] == "3 jobs of the harbour were at its 2 cranes at the same time"
    assert told[1] == "1 slots of the harbour were never given back"


def test_a_job_that_nobody_enqueued_is_noticed() -> None:
    found = as_planned()
    found.lives["bakery", "stranger"] = Life(enqueued=1)

    assert "the logs have 1 jobs that nobody enqueued" in list(problems(found, JOBS))


def test_a_plan_has_every_kind_of_job_and_every_tenant() -> None:
    assert {job.kind for job in JOBS} == set(Kind)
    assert {job.tenant for job in JOBS} == set(TENANTS)
