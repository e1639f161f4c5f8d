"""`siloctl` against a real server in this process; the command itself runs in a thread beside it."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import socket

import msgpack
import pytest

from silo.cli import siloctl
from silo.cli.ctl.connection import Target
from silo.cli.ctl.shards import WAITING, _watched
from silo.cli.ctl.sql import as_text
from silo.cli.ctl.texts import moment
from silo.pb import pprof_pb2 as pprof
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.projections.tasks import TIMERS, JobRef
from silo.shard.disk import row_key
from tests.server.running import running_node
from tests.serving import run


class Ran:
    """What a command said, and its exit code."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def values(self):
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def ctl(capsys):
    def command(*arguments):
        with pytest.raises(SystemExit) as exited:
            siloctl.main(arguments)
        said = capsys.readouterr()
        return Ran(exited.value.code or 0, said.out, said.err)

    return command


def against_a_node(story, **node):
    """Run `story(node, run_command)`; commands are run in a thread, as the node needs the event loop."""

    async def main():
        async with running_node(**node) as running:
            await story(running)

    run(main())


def beside(ctl, node, *arguments):
    return asyncio.to_thread(ctl, "--address", node.address, *arguments)


async def enqueue(node, **fields):
    await node.call(
        "Enqueue", pb.EnqueueRequest(**{"shard": node.shard, "id": "j1", "task_group": "g", **fields})
    )


def test_cluster_info_lists_the_shards(ctl):
    async def story(node):
        told = (await beside(ctl, node, "cluster", "info", "--json")).values
        assert told["num_shards"] == 2
        assert [owner["grpc_addr"] for owner in told["shard_owners"]] == [node.address] * 2
        text = (await beside(ctl, node, "cluster", "info")).out
        assert "Cluster Information" in text
        assert "[-∞, 8000000000000000)" in text

    against_a_node(story, shards=2)


def test_a_job_is_shown_and_moved_along(ctl):
    async def story(node):
        await enqueue(node, metadata={"k": "v"}, start_at_ms=1 << 45)

        async def act(verb):
            return (await beside(ctl, node, "job", verb, node.shard, "j1")).out

        shown = (await beside(ctl, node, "--json", "job", "get", node.shard, "j1", "--attempts")).values
        assert (shown["id"], shown["status"], shown["status_code"]) == ("j1", "scheduled", 0)
        assert shown["metadata"] == {"k": "v"}
        assert shown["attempts"] == []
        assert "  Status:         scheduled\n" in await act("get")
        assert await act("expedite") == "Job j1 expedited successfully\n"
        assert await act("cancel") == "Job j1 cancelled successfully\n"
        assert await act("restart") == "Job j1 restarted successfully\n"
        again = await beside(ctl, node, "job", "restart", node.shard, "j1")
        assert (again.code, again.out) == (1, "")
        assert again.err == (
            "Error: status: FailedPrecondition, "
            'message: "cannot restart job j1: job is still in progress (status: Scheduled)"\n'
        )
        assert await act("cancel") == "Job j1 cancelled successfully\n"
        told = await beside(ctl, node, "job", "delete", node.shard, "j1", "--json")
        assert told.values == {"status": "deleted", "job_id": "j1"}

    against_a_node(story)


async def finish(node, **outcome):
    await enqueue(node)
    request = pb.LeaseTaskRequest(shard=node.shard, id="j1", worker_id="w")
    task = (await node.call("LeaseTask", request)).task
    await node.call("ReportOutcome", pb.ReportOutcomeRequest(shard=node.shard, task_id=task.id, **outcome))


@pytest.mark.parametrize(
    ("form", "shown"), [("hex", "93010203"), ("base64", "kwECAw=="), ("msgpack", "[\n  1,\n  2,\n  3\n]")]
)
def test_a_result_is_shown_in_the_form_that_is_asked_for(ctl, form, shown):
    async def story(node):
        await finish(node, success=pb.SerializedBytes(msgpack=b"\x93\x01\x02\x03"))
        told = await beside(ctl, node, "--json", "job", "result", node.shard, "j1", "-f", form)
        assert told.values["result"] == shown
        assert told.values["status"] == "succeeded"

    against_a_node(story)


def test_a_failure_is_shown_with_its_code(ctl):
    async def story(node):
        await finish(node, failure=pb.Failure(code="E", data=pb.SerializedBytes(msgpack=b"\xc0")))
        told = await beside(ctl, node, "job", "result", node.shard, "j1")
        assert "Error Code: E\nError Data: c0" in told.out

    against_a_node(story)


def test_a_tenant_and_a_token_are_passed_on(ctl):
    async def story(node):
        shard = node.shard_of("acme")
        token = [("authorization", "Bearer secret")]
        request = pb.EnqueueRequest(shard=shard, id="j1", task_group="g", tenant="acme")
        await node.call("Enqueue", request, token)
        get = ("job", "get", shard, "j1")
        nobody = await beside(ctl, node, *get)
        assert 'message: "missing authorization header"\nHint: this server wants a token' in nobody.err
        assert "Hint: the token in" in (await beside(ctl, node, "--auth-token", "x", *get)).err
        flags = ("--auth-token", "secret")
        unnamed = await beside(ctl, node, *flags, *get)
        assert 'message: "tenant id required"\nHint: ' in unnamed.err
        assert "--tenant" in unnamed.err
        assert (await beside(ctl, node, *flags, *get, "-t", "acme")).code == 0
        found = (await beside(ctl, node, *flags, "tenant", "locate", "acme", "--json")).values
        assert found["shard_id"] == shard

    against_a_node(story, shards=3, tenancy=True, auth_token="secret")


def test_a_token_in_the_environment_counts_less_than_a_flag(ctl, monkeypatch):
    monkeypatch.setenv("SILO_AUTH_TOKEN", "secret")

    async def story(node):
        info = ("cluster", "info")
        assert (await beside(ctl, node, *info)).code == 0
        for wrong in (("--auth-token", "x", *info), (*info, "--auth-token", "x")):
            assert "invalid auth token" in (await beside(ctl, node, *wrong)).err
        monkeypatch.setenv("SILO_AUTH_TOKEN", "x")
        assert (await beside(ctl, node, "--auth-token", "secret", *info)).code == 0

    against_a_node(story, auth_token="secret")


def test_a_tenant_that_belongs_elsewhere_or_nowhere_has_a_way_out(ctl):
    async def elsewhere(node):
        lost = await beside(ctl, node, "job", "get", node.shard_of("tenant-a"), "j1", "-t", "tenant-b")
        assert "is not within shard" in lost.err
        assert "Hint: `siloctl tenant locate tenant-b` tells" in lost.err

    async def nowhere(node):
        lost = await beside(ctl, node, "job", "get", node.shard, "j1", "-t", "acme")
        assert lost.err.endswith(
            "Hint: this server has no tenants (its tenancy.enabled is false): leave out --tenant\n"
        )

    against_a_node(elsewhere, shards=2, tenancy=True)
    against_a_node(nowhere)


def test_attempts_are_shown_with_their_times_and_errors(ctl):
    errors = [msgpack.packb({"message": "no such user", "code": 404}), b"\xc1", b""]

    async def story(node):
        policy = pb.RetryPolicy(retry_count=3, initial_interval_ms=0, backoff_factor=1)
        await enqueue(node, retry_policy=policy)
        untried = await beside(ctl, node, "job", "get", node.shard, "j1", "--attempts")
        assert "No attempt yet" in untried.out
        assert "- (to start at once)" in untried.out
        for data in errors:
            await fail(node, pb.Failure(code="BAD", data=pb.SerializedBytes(msgpack=data)))
        get = ("job", "get", node.shard, "j1", "--attempts")
        values = (await beside(ctl, node, "--json", *get)).values["attempts"]
        assert [(one["error_code"], one["error_data"], one["error_data_hex"]) for one in values] == [
            ("BAD", {"message": "no such user", "code": 404}, errors[0].hex()),
            ("BAD", None, "c1"),
            ("BAD", None, ""),
        ]
        text = (await beside(ctl, node, *get)).out
        assert "Attempt 1\n" in text
        assert '  Error Code:     BAD\n  Error Data:     {"message": "no such user", "code": 404}\n' in text
        assert "  Error Data:     c1\n" in text
        assert f"  Started:        {moment(values[0]['started_at_ms'])}\n" in text
        assert f"  Finished:       {moment(values[0]['finished_at_ms'])}\n" in text

    against_a_node(story)


async def fail(node, failure):
    request = pb.LeaseTaskRequest(shard=node.shard, id="j1", worker_id="w")
    task = (await node.call("LeaseTask", request)).task
    await node.call(
        "ReportOutcome", pb.ReportOutcomeRequest(shard=node.shard, task_id=task.id, failure=failure)
    )


def test_a_shard_is_looked_after(ctl):
    async def story(node):
        async def act(*arguments):
            return (await beside(ctl, node, "shard", *arguments)).out.splitlines()[-1]

        assert await act("flush", node.shard) == f"flushed shard {node.shard}"
        assert await act("compact", node.shard) == f"full compaction submitted for shard {node.shard}"
        assert await act("force-release", node.shard) == f"Force-released shard lease for {node.shard}"
        assert await act("split-status", node.shard) == f"No split in progress for shard {node.shard}"
        assert await act("configure", node.shard) == "  Current ring:  (default)"
        refused = await beside(ctl, node, "shard", "split", node.shard, "--auto")
        assert refused.code == 1
        assert "split request failed: not supported by this backend" in refused.err

    against_a_node(story)


def test_a_shard_is_checked_while_it_is_at_work(ctl):
    async def story(node):
        await enqueue(node)
        told = await beside(ctl, node, "shard", "check", node.shard)
        assert (told.code, told.err) == (0, "")
        assert told.out == f"1 jobs of shard {node.shard} looked at: everything adds up\n"
        told = await beside(ctl, node, "--json", "shard", "check", node.shard)
        assert told.values == {"shard_id": node.shard, "jobs": 1, "violations": []}

    against_a_node(story)


def test_what_does_not_add_up_is_told_and_the_exit_code_says_so(ctl):
    async def story(node):
        await enqueue(node)
        await node.call("FlushShard", pb.FlushShardRequest(shard=node.shard))
        [opened] = node.node.broker.shards
        database = opened.shard.database
        batch = database.batch()
        batch.put(row_key(TIMERS, (7, 7)), TIMERS.encode(JobRef("-", "ghost")))
        await database.write(batch)

        told = await beside(ctl, node, "shard", "check", node.shard)
        assert told.code == 1
        assert "1 jobs of shard" in told.out
        assert "  timers has 1 entries, but there should be 0\n" in told.out
        assert "the shard's rows contradict each other\nHint: keep a copy of the data" in told.err

    against_a_node(story)


def test_a_row_that_is_damaged_is_found_and_put_right_while_the_shard_is_at_work(ctl):
    async def story(node):
        await enqueue(node)
        told = await beside(ctl, node, "shard", "verify", node.shard)
        assert (told.code, told.err) == (0, "")
        assert told.out == f"3 events of shard {node.shard} folded: all is well\n"
        [opened] = node.node.broker.shards
        database = opened.shard.database
        batch = database.batch()
        batch.put(row_key(TIMERS, (7, 7)), TIMERS.encode(JobRef("-", "ghost")))
        await database.write(batch)

        told = await beside(ctl, node, "shard", "verify", node.shard)
        assert told.code == 1
        assert (
            "a difference\n  timers (7, 7): the log gives no row, found tenant = '-', job_id = 'ghost'"
            in told.out
        )
        assert "the rows are not those that the log gives\nHint: `siloctl shard rebuild" in told.err
        told = await beside(ctl, node, "--json", "shard", "rebuild", node.shard, "--projection", "tasks")
        assert told.code == 0
        assert (told.values["events"], told.values["rows_changed"]) == (3, 1)
        told = await beside(ctl, node, "shard", "rebuild", node.shard)
        assert told.out == f"3 events of shard {node.shard} folded: all is well\n"

    against_a_node(story)


def test_who_waits_for_its_turn_is_told_once(capsys):
    waits = ext.VerifyReport(waiting=True)
    reports = [waits, waits, ext.VerifyReport(seq=1, seq_total=2), ext.VerifyReport(seq=2, done=True)]
    assert _watched(iter(reports), Target(), "events", ext.VerifyReport()).done
    assert capsys.readouterr().err == f"{WAITING}\n"


def test_a_shard_in_memory_has_no_archive(ctl):
    async def story(node):
        told = await beside(ctl, node, "shard", "archive", node.shard)
        assert (told.code, "a shard that is kept in memory has no archive" in told.err) == (1, True)

    against_a_node(story)


def test_what_jobs_carried_is_erased(ctl):
    async def story(node):
        await enqueue(node, id="j1")
        refused = await beside(ctl, node, "job", "erase", node.shard, "j1")
        assert (refused.code, "cancel it first" in refused.err) == (1, True)
        await beside(ctl, node, "job", "cancel", node.shard, "j1")
        told = await beside(ctl, node, "job", "erase", node.shard, "j1")
        assert told.out.startswith(
            "Job j1 erased; the log follows soon, and says ErasureFinished (requested_seq "
        )
        told = await beside(ctl, node, "--json", "tenant", "erase", "-", "--yes")
        assert (told.code, told.values["status"]) == (0, "erasing")

    against_a_node(story)


def test_before_a_whole_tenant_is_erased_somebody_is_asked(ctl, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    failed = ctl("tenant", "erase", "acme")
    assert "Erase the payloads, results and error data of all jobs of acme? [y/N]" in failed.out
    assert "Aborted!" in failed.err


@pytest.mark.parametrize(
    ("selectors", "text"),
    [
        ([], "one of --at <tenant-id>, --at-hash <hash>, or --auto must be specified"),
        (["--auto", "--at", "t"], "--at, --at-hash, and --auto are mutually exclusive"),
        (
            ["--at-hash", "12"],
            "invalid --at-hash '12': expected a 16-character hex hash (from `siloctl tenant hash`)",
        ),
    ],
)
def test_a_split_needs_one_place(ctl, selectors, text):
    failed = ctl("shard", "split", "s", *selectors)
    assert (failed.code, failed.err) == (1, f"Error: {text}\n")


def test_an_unknown_shard_is_not_found(ctl):
    async def story(node):
        failed = await beside(ctl, node, "job", "get", "0", "j1")
        assert failed.code == 1
        assert failed.err.startswith(
            "Error: shard '0' not found in cluster\nHint: `siloctl cluster info` lists"
        )

    against_a_node(story)


def test_sql_is_shown_as_a_table_and_a_mistake_in_it_is_named(ctl):
    async def story(node):
        shown = await beside(ctl, node, "query", node.shard, "SELECT 1 AS one, 'x' AS letter")
        assert [cell.strip() for cell in shown.out.splitlines()[2].split("|")] == ["1", "x"]
        assert shown.out.rstrip().endswith("1 row(s) returned")
        failed = await beside(ctl, node, "query", node.shard, "SELECT nosuch FROM jobs")
        assert failed.code == 1
        assert "SQL error: Schema error: No field named nosuch" in failed.err

    against_a_node(story)


def test_tasks_are_dumped(ctl):
    async def story(node):
        assert "Async Task Dump (" in (await beside(ctl, node, "dump-tasks")).out

    against_a_node(story)


@pytest.mark.parametrize(("asked", "written"), [("busy", "busy.pb.gz"), ("busy.pb", "busy.pb")])
def test_a_cpu_profile_is_saved_for_pprof(ctl, tmp_path, asked, written):
    async def story(node):
        told = await beside(ctl, node, "--json", "profile", "-d", "1", "-o", str(tmp_path / asked))
        path = tmp_path / written
        assert told.values["output_file"] == str(path)
        assert (told.values["status"], told.values["duration_seconds"]) == ("completed", 1)
        content = path.read_bytes()
        profile = gzip.decompress(content) if written.endswith(".gz") else content
        assert len(profile) == told.values["profile_bytes"]
        looks = sum(sample.value[0] for sample in pprof.Profile.FromString(profile).sample)
        assert looks == told.values["samples"]
        text = (await beside(ctl, node, "profile", "-d", "1", "-o", str(path))).out
        assert f"Profile saved to: {path}\n" in text
        assert f"go tool pprof -top {path}" in text

    against_a_node(story)


def test_a_profile_without_a_directory_for_it_is_not_made(ctl, tmp_path):
    failed = ctl("profile", "-o", str(tmp_path / "none" / "x"))
    assert (failed.code, failed.out) == (1, "")
    assert f"there is no directory {tmp_path}/none" in failed.err


def test_a_heap_profile_says_that_there_is_none(ctl, tmp_path):
    async def story(node):
        failed = await beside(ctl, node, "heap-profile", "-o", str(tmp_path / "x.heap"))
        assert failed.code == 1
        assert "heap profiling is not enabled in the allocator" in failed.err
        assert list(tmp_path.iterdir()) == []

    against_a_node(story)


def test_a_server_that_is_not_there_is_an_error_with_a_way_out(ctl):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    failed = ctl("-a", address, "cluster", "info")
    assert failed.code == 1
    assert failed.err.startswith("Error: status: Unavailable")
    assert f"Hint: no server answers at {address}: start one with `silo serve`" in failed.err
    assert "--address" in failed.err


def test_the_hash_of_a_tenant_needs_no_server(ctl):
    assert ctl("tenant", "hash", "tenant-a").out == "24cbcbec76c2694a\n"
    assert ctl("tenant", "hash", "-", "--json").values == {"tenant_id": "-", "hash": "7a162ebe4ce6fc55"}


def test_a_configuration_is_checked_without_a_server(ctl, tmp_path):
    config = tmp_path / "silo.toml"
    config.write_text("[server]\ndev_mode = 3\n")
    failed = ctl("validate-config", "-c", str(config))
    assert failed.code == 1
    assert failed.out.startswith("Config error: ")
    assert failed.err.startswith("Error: Config validation failed: ")
    config.write_text("[server]\n")
    assert ctl("--json", "validate-config", "-c", str(config)).values["status"] == "valid"


def test_a_wrong_call_has_an_exit_code_of_its_own(ctl):
    assert ctl("job", "get", "only-a-shard").code == 2


def test_rows_of_sql_are_cut_and_aligned():
    text = as_text(["id", "größe"], [{"id": "j1", "größe": 3}, {"id": "ü" * 20, "größe": None}])
    assert text.splitlines() == [
        "              id |            größe",
        "---------------- | ----------------",
        "              j1 |                3",
        f"{'ü' * 16} |             null",
        "",
        "2 row(s) returned",
    ]
