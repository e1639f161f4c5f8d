"""`silo job` against a real server in this process; the command itself runs in a thread beside it."""

from __future__ import annotations

import asyncio
import json

import pytest

from silo.cli import main as silo_main
from silo.pb import silo_pb2 as pb
from tests.server.running import running_node
from tests.serving import run


@pytest.fixture
def silo(capsys):
    def command(*arguments):
        code = 0
        try:
            silo_main.main(arguments)
        except SystemExit as exited:
            code = exited.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def slots(maximum: int) -> pb.Limit:
    return pb.Limit(concurrency=pb.ConcurrencyLimit(key="printer", max_concurrency=maximum))


async def enqueue(node, job_id: str, tenant: str | None = None, **fields) -> None:
    shard = node.shard_of(tenant or "-")
    await node.call(
        "Enqueue", pb.EnqueueRequest(shard=shard, id=job_id, tenant=tenant, task_group="g", **fields)
    )


def test_why_a_job_is_not_running(silo):
    async def story():
        async with running_node(shards=4) as node:
            for number in range(8):
                await enqueue(node, f"j{number}", limits=[slots(1)])
            await node.call("LeaseTasks", pb.LeaseTasksRequest(worker_id="w-1", task_group="g", max_tasks=1))

            code, out, _ = await asyncio.to_thread(silo, "job", "explain", "j7", "-a", node.address)
            lines = out.splitlines()
            assert code == 0
            assert lines[:2] == [
                "Job j7, attempt 1",
                "  1 of 1 slots of the queue 'printer' are held; 6 are before it.",
            ]
            assert "  1  here    printer: 1 of 1 slots held, 7 jobs waiting" in lines
            assert "Before it in line for printer: j1, j2, j3, j4, j5 and 1 more" in lines
            assert lines[-1].startswith("  j0  since 20")
            assert lines[-1].endswith(", run by w-1")

            _, out, _ = await asyncio.to_thread(silo, "job", "explain", "j7", "-a", node.address, "--json")
            told = json.loads(out)
            assert (told["standing"], told["line"]["ahead"]) == ("STANDING_WAITS_FOR_SLOT", 6)
            assert isinstance(told["since_ms"], int)

    run(story())


def test_a_job_of_a_tenant_is_found_on_its_shard(silo):
    async def story():
        async with running_node(shards=4, tenancy=True) as node:
            for tenant in ("tenant-a", "tenant-b", "customer-123"):
                await enqueue(node, "j1", tenant)
                where = ("-a", node.address, "--tenant", tenant)
                code, out, _ = await asyncio.to_thread(silo, "job", "explain", "j1", *where)
                assert code == 0
                assert "It is ready for any worker of task group 'g'" in out

    run(story())


def test_a_job_that_nobody_knows_is_an_error(silo):
    async def story():
        async with running_node() as node:
            told = await asyncio.to_thread(silo, "job", "explain", "nobody", "-a", node.address)
            assert told == (1, "", 'Error: status: NotFound, message: "job not found"\n')

    run(story())


def test_help_teaches(silo):
    code, out, _ = silo("job", "explain", "--help")

    assert code == 0
    assert "silo job explain report-7" in out
