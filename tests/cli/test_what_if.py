"""`silo what-if` against a real server in this process; the command itself runs in a thread beside it."""

from __future__ import annotations

import asyncio
import json

import pytest

from silo.cli import main as silo_main
from silo.pb import silo_pb2 as pb
from tests.server.running import running_node
from tests.serving import run


@pytest.fixture
def what_if(capsys):
    async def command(node, *arguments):
        def call():
            try:
                silo_main.main(("what-if", "-a", node.address, *arguments))
            except SystemExit as exited:
                return exited.code or 0
            return 0

        code = await asyncio.to_thread(call)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


async def two_jobs(node) -> None:
    """One after the other, as there is one slot."""
    limit = pb.Limit(concurrency=pb.ConcurrencyLimit(key="smtp", max_concurrency=1))
    for job_id in ("j1", "j2"):
        payload = pb.SerializedBytes(msgpack=b"\xc0")
        request = pb.EnqueueRequest(
            shard=node.shard, id=job_id, task_group="mail", payload=payload, limits=[limit]
        )
        await node.call("Enqueue", request)
    for _ in range(2):
        request = pb.LeaseTasksRequest(worker_id="w", max_tasks=1, task_group="mail")
        [task] = (await node.call("LeaseTasks", request)).tasks
        await asyncio.sleep(0.05)
        done = pb.ReportOutcomeRequest(
            shard=task.shard, task_id=task.id, success=pb.SerializedBytes(msgpack=b"\xc0")
        )
        await node.call("ReportOutcome", done)


def test_a_window_is_played_again_with_changes_side_by_side(what_if):
    async def story():
        async with running_node() as node:
            await two_jobs(node)
            code, out, _ = await what_if(node, "--limit", "smtp=2")
            assert code == 0
            assert "2 jobs arrived, 0 were pending or running" in out
            lines = out.splitlines()
            assert "wait p50" in next(line for line in lines if line.startswith("task group"))
            assert next(line for line in lines if "as it was" in line).split()[:5] == [
                "mail",
                "as",
                "it",
                "was",
                "2",
            ]
            [changed] = [line for line in lines if "with the changes" in line]
            assert changed.split()[3:] == ["2", "0", *["0", "ms"] * 4]

            code, out, _ = await what_if(node, "--json", "--limit", "smtp=2")
            told = json.loads(out)
            assert [each["what"] for each in told["task_groups"]] == [
                "as_it_was",
                "simulated",
                "with_the_changes",
            ]
            assert [each["leased"] for each in told["task_groups"]] == [2, 2, 2]
            waits = [each["wait_p100_ms"] for each in told["task_groups"]]
            assert waits[0] >= 50
            assert waits[1] >= 50
            assert waits[2] == 0

    run(story())


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--limit", "smpt=2"], 1, "no job has a concurrency limit that 'smpt' stands for; there are: smtp"),
        (["--workers", "mail"], 2, "'mail': write it as NAME=NUMBER, such as mail=8"),
        (["--priority", "mail=100"], 2, "a priority is 0 (first) to 99"),
        (["--from", "yesterday"], 2, "'yesterday' is no instant; write it as in"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], 1, "the window ends before it begins"),
        (["--to", "2020-01-01"], 1, "no job arrived in this window, and none was pending"),
    ],
)
def test_what_cannot_be_played_is_named(what_if, arguments, code, text):
    async def story():
        async with running_node() as node:
            await two_jobs(node)
            found, _, err = await what_if(node, *arguments)
            assert found == code
            assert text in err

    run(story())
