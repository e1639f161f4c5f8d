"""`silo events` against a real server in this process; the command itself runs in a thread beside it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from silo.cli import main as silo_main
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.pb.silo_ext_pb2_grpc import HistoryStub
from tests.server.running import running_node
from tests.serving import IN_S, run


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


async def a_job(node, job_id: str) -> None:
    payload = pb.SerializedBytes(msgpack=b"\x81\xa1n\x05")
    request = pb.EnqueueRequest(shard=node.shard, id=job_id, task_group="g", payload=payload)
    await node.call("Enqueue", request)


def test_the_life_of_a_job_is_told_in_lines_or_in_json(silo):
    async def story():
        async with running_node() as node:
            await a_job(node, "j1")
            await node.call("CancelJob", pb.CancelJobRequest(shard=node.shard, id="j1"))
            code, out, _ = await asyncio.to_thread(silo, "events", "job", "j1", "-a", node.address)
            lines = out.splitlines()
            assert code == 0
            assert [line.split()[2] for line in lines] == [
                "JobEnqueued",
                "ChainStarted",
                "CancellationRequested",
                "JobCancelled",
            ]
            assert '"payload":{"n":5}' in lines[0]
            assert lines[0].endswith("[client Enqueue]")

            _, out, _ = await asyncio.to_thread(
                silo, "events", "job", "j1", "--most", "1", "-a", node.address, "--json"
            )
            [told] = json.loads(out)["events"]
            assert (told["type"], told["job_id"], told["method"]) == ("JobCancelled", "j1", "CancelJob")

            code, _, err = await asyncio.to_thread(silo, "events", "job", "nobody", "-a", node.address)
            assert code == 1
            assert "job not found" in err

    run(story())


def test_events_are_exported_a_line_each(silo, tmp_path):
    async def story():
        async with running_node() as node:
            for number in range(5):
                await a_job(node, f"j{number}")
            file = tmp_path / "events.jsonl"
            code, _, err = await asyncio.to_thread(
                silo, "events", "export", "-o", str(file), "-a", node.address
            )
            told = [json.loads(line) for line in file.read_text().splitlines()]
            assert (code, err) == (0, "11 events\n")
            assert [event["seq"] for event in told] == list(range(1, 12))

            arguments = ("--from", "4", "--to", "9", "--type", "JobEnqueued", "-a", node.address)
            _, out, _ = await asyncio.to_thread(silo, "events", "export", *arguments)
            assert [json.loads(line)["job_id"] for line in out.splitlines()] == ["j1", "j2", "j3"]

            code, _, err = await asyncio.to_thread(
                silo, "events", "export", "--type", "Nosuch", "-a", node.address
            )
            assert code == 1
            assert "there is no type of event called Nosuch; docs/events.md has them all" in err

    run(story())


async def shown(node, command, count: int) -> list[str]:
    """The jobs of the first lines of a tail, which is then ended, once it has moved its cursor behind them."""
    history = HistoryStub(node.channel)
    tail = await asyncio.create_subprocess_exec(
        *command, "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(IN_S):
            told = [json.loads(await tail.stdout.readline()) for _ in range(count)]
            while True:
                [cursor] = (await history.ListCursors(ext.ListCursorsRequest(shard=node.shard))).cursors
                if cursor.seq >= told[-1]["seq"]:
                    return [event["job_id"] for event in told]
                await asyncio.sleep(0.01)
    finally:
        tail.kill()
        await tail.wait()


def test_a_tail_with_a_cursor_goes_on_where_the_last_one_was(silo):
    async def story():
        async with running_node() as node:
            tail = [str(Path(sys.executable).with_name("silo")), "events", "tail", "-a", node.address]
            tail += ["--cursor", "billing", "--type", "JobEnqueued"]
            for number in range(3):
                await a_job(node, f"j{number}")
            assert await shown(node, [*tail, "--from", "1"], 3) == ["j0", "j1", "j2"]
            await a_job(node, "j3")
            assert await shown(node, tail, 1) == ["j3"]

            code, out, _ = await asyncio.to_thread(silo, "events", "cursors", "-a", node.address)
            assert code == 0
            assert out.startswith("billing: event ")
            _, out, _ = await asyncio.to_thread(silo, "events", "cursors", "-a", node.address, "--json")
            [told] = json.loads(out)["cursors"]
            assert told["name"] == "billing"
            code, _, _ = await asyncio.to_thread(
                silo, "events", "forget-cursor", "billing", "-a", node.address
            )
            assert code == 0
            _, out, _ = await asyncio.to_thread(silo, "events", "cursors", "-a", node.address)
            assert out == "No cursors; `silo events tail --cursor NAME` makes one.\n"
            code, _, err = await asyncio.to_thread(silo, "events", "forget-cursor", "x", "-a", node.address)
            assert (code, "there is no cursor called x" in err) == (1, True)

    run(story())


def test_a_tail_shows_what_was_and_what_comes_until_it_is_ended():
    async def story():
        async with running_node() as node:
            await a_job(node, "first")
            command = [
                str(Path(sys.executable).with_name("silo")),
                "events",
                "tail",
                "--from",
                "1",
                "-a",
                node.address,
            ]
            tail = await asyncio.create_subprocess_exec(
                *command, "--type", "JobEnqueued", "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            try:
                assert tail.stdout is not None
                async with asyncio.timeout(IN_S):
                    assert json.loads(await tail.stdout.readline())["job_id"] == "first"
                    await a_job(node, "second")
                    assert json.loads(await tail.stdout.readline())["job_id"] == "second"
            finally:
                tail.kill()
                await tail.wait()

    run(story())
