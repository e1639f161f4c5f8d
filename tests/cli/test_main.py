"""`silo` as a person runs it: a process of its own, its exit code, and what it says."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from silo.cli import main

IN_S = 30


def silo(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "silo.cli.main", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=IN_S,
    )


@contextmanager
def serving(*arguments):
    """A server that has said that it started.  Ends with the block, however it can."""
    command = [sys.executable, "-m", "silo.cli.main", "serve", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if "server started" in line:
                break
        process.said = "".join(said)
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_stops_when_it_is_told_to(tmp_path, number):
    with serving("--data", tmp_path, "--grpc-addr", "127.0.0.1:0") as server:
        assert re.search(
            r"server started: gRPC on 127.0.0.1:[1-9]\d*, 8 shards in .* \(fsync on\)", server.said
        )
        assert str(tmp_path) in server.said
        server.send_signal(number)
        assert server.wait(IN_S) == 0


def test_a_server_that_finds_its_port_taken_says_what_to_do(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = silo("serve", "--data", str(tmp_path), "--grpc-addr", address)
    assert failed.returncode == 1
    [sentence] = failed.stderr.splitlines()[-1:]
    assert sentence.startswith(f"Config error: cannot listen on {address}")
    assert "--grpc-addr" in sentence
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_servers_on_the_same_data_both_say_what_happens_and_the_older_one_stops(tmp_path):
    where = ("--data", tmp_path, "--grpc-addr", "127.0.0.1:0")
    with serving(*where) as first, serving(*where) as second:
        assert f"another server (pid {first.pid}, gRPC on {address_of(first)}) is at work on" in second.said
        assert "is at work on" not in first.said
        assert first.wait(IN_S) == 1
        said = first.stderr.read()
        assert "another process has opened shard" in said
        assert said.splitlines()[-1].endswith(
            f"server stopped: another server (pid {second.pid}, gRPC on {address_of(second)}) has taken over the shards "
            f"in {tmp_path}; only one may serve them: if that is to be this one, stop the other and start this one again"
        )
        assert second.poll() is None


def test_a_server_that_was_killed_is_not_at_work(tmp_path):
    where = ("--data", tmp_path, "--grpc-addr", "127.0.0.1:0")
    with serving(*where) as first:
        first.kill()
        first.wait(IN_S)
    with serving(*where) as second:
        assert "is at work on" not in second.said


def address_of(server):
    return re.search(r"gRPC on ([\d.:]+),", server.said)[1]


def test_a_server_whose_data_cannot_be_written_says_so(tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    failed = silo("serve", "--data", str(place / "data"), "--grpc-addr", "127.0.0.1:0")
    assert failed.returncode == 1
    assert "Error: " in failed.stderr.splitlines()[-1]
    assert str(place) in failed.stderr
    assert "Traceback" not in failed.stderr


BUCKET = """
[server]
grpc_addr = "127.0.0.1:0"
[database]
backend = "s3"
path = "s3://bucket/silo/%shard%"
options = {{ endpoint = "http://{endpoint}", region = "r", access_key_id = "k", secret_access_key = "s", allow_http = true }}
"""


@pytest.mark.slow
def test_a_server_whose_bucket_does_not_answer_ends_with_1_and_says_why(tmp_path):
    """Several, as about every second one was aborted by a thread of the store when the interpreter ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "silo.toml"
    config.write_text(BUCKET.format(endpoint=endpoint))
    command = [sys.executable, "-m", "silo.cli.main", "serve", "-c", str(config)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    try:
        said = [process.communicate(timeout=IN_S)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [1] * 6
    for text in said:
        assert text.splitlines()[-1].startswith("Error: shard map cluster/shard-map.json: ")
        assert endpoint in text


def test_data_on_the_command_line_must_fit_the_file(tmp_path):
    config = tmp_path / "silo.toml"
    config.write_text('[database]\nbackend = "memory"\npath = "/%shard%"\n')
    failed = silo("serve", "-c", str(config), "--data", "/tmp/x")
    assert (failed.returncode, failed.stderr) == (
        1,
        'Config error: --data is a local directory, but the file has database.backend = "memory"\n',
    )


@pytest.mark.parametrize("data", ["s3://bucket/silo", "data/%shard%", "data/{shard}"])
def test_data_on_the_command_line_is_a_directory(data, capsys):
    assert exits("serve", "--data", data) == 1
    assert "this takes a directory" in capsys.readouterr().err


def exits(*arguments):
    with pytest.raises(SystemExit) as exited:
        main.main(arguments)
    return exited.value.code or 0


def test_help_teaches_by_examples(capsys):
    assert exits("--help") == 0
    said = capsys.readouterr().out
    assert "silo serve -c silo.toml" in said
    assert "validate-config" in said


def test_the_version_is_told(capsys):
    assert exits("--version") == 0
    assert re.fullmatch(r"silo \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_wrong_call_has_an_exit_code_of_its_own(capsys):
    assert exits("serve", "--no-such-flag") == 2


def test_a_valid_file_is_valid(tmp_path, capsys):
    config = tmp_path / "silo.toml"
    config.write_text("[server]\ndev_mode = true\nnonsense = 1\n")
    assert exits("validate-config", "-c", str(config)) == 0
    said = capsys.readouterr()
    assert said.out == f"Config is valid: {config}\n"
    assert "nonsense" in said.err


def test_an_invalid_file_is_named_with_its_mistake(tmp_path, capsys):
    config = tmp_path / "silo.toml"
    config.write_text('[server]\ngrpc_addr = "localhost:1"\n')
    assert exits("validate-config", "-c", str(config)) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"Config error: {config}: ")
    assert "grpc_addr" in said.err


def test_a_file_that_is_not_there_is_an_error(capsys):
    assert exits("validate-config", "-c", "/nowhere/silo.toml") == 1
    assert "/nowhere/silo.toml" in capsys.readouterr().err
