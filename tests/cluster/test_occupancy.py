from __future__ import annotations

import os
from pathlib import Path

import pytest

from silo.cluster.occupancy import NAME, Occupancy
from silo.settings import Database


def test_whoever_comes_second_hears_of_the_first_who_can_see_the_second(tmp_path: Path) -> None:
    database = Database(backend="fs", path=f"{tmp_path}/data/%shard%")
    first, second, third = (Occupancy.of(database) for _ in range(3))

    assert first.enter("127.0.0.1:1") is None
    assert second.enter("127.0.0.1:2") == f"another server (pid {os.getpid()}, gRPC on 127.0.0.1:1)"
    assert first.newest() == f"another server (pid {os.getpid()}, gRPC on 127.0.0.1:2)"
    second.leave()
    assert third.enter("127.0.0.1:3") is not None
    for server in (first, third, third):
        server.leave()
    assert first.enter("127.0.0.1:1") is None
    first.leave()


def test_a_server_does_not_take_itself_for_another(tmp_path: Path) -> None:
    alone = Occupancy(tmp_path / NAME)
    alone.enter("127.0.0.1:1")

    assert alone.newest() == "another process"
    alone.leave()


def test_a_server_that_has_not_said_yet_who_it_is_is_another_one_all_the_same(tmp_path: Path) -> None:
    first, second = Occupancy(tmp_path / NAME), Occupancy(tmp_path / NAME)
    first.enter("127.0.0.1:1")
    (tmp_path / NAME).write_text("")

    assert second.enter("127.0.0.1:2") == "another process"
    first.leave()
    second.leave()


@pytest.mark.parametrize("backend", ["memory", "s3"])
def test_where_there_are_no_locks_it_cannot_be_told(backend: str) -> None:
    path = "s3://bucket/%shard%" if backend == "s3" else "/%shard%"
    here = Occupancy.of(Database(backend=backend, path=path))

    assert here.enter("127.0.0.1:1") is None
    assert here.newest() == "another process"
    here.leave()
