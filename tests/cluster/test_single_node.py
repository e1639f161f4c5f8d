"""A restart finds its shards, and nodes that start at once agree on them."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore, MemoryStore

from silo.cluster.shard_map import ShardMap
from silo.cluster.single_node import KEY, FoundMap, InObjectStore, MapStore, OnDisk, beside, find_or_create
from silo.domain.ids import Ids
from silo.errors import ConfigError, Corrupt, StoreFailed
from silo.settings import Database

STORES = ["disk", "object store on disk", "object store in memory"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MapStore:
    if request.param == "disk":
        return OnDisk(tmp_path / KEY, fsync=False)
    if request.param == "object store on disk":
        return InObjectStore(LocalStore(tmp_path))
    return InObjectStore(MemoryStore())


def start(store: MapStore, *, count: int = 8, seed: int = 1) -> FoundMap:
    return asyncio.run(starting(store, count=count, seed=seed))


async def starting(store: MapStore, *, count: int = 8, seed: int = 1) -> FoundMap:
    new_id = Ids(random.Random(seed).randbytes).uuid4
    return await find_or_create(store, initial_shard_count=count, created_at_ms=1_000, new_id=new_id)


def test_the_first_start_makes_the_shards_asked_for(store: MapStore) -> None:
    found = start(store, count=3)

    assert len(found.shards.shards) == 3
    assert found.warnings == ()


def test_a_later_start_finds_the_same_shards(store: MapStore) -> None:
    assert start(store, seed=2) == start(store, seed=3)


def test_another_count_does_not_change_a_cluster_and_is_reported(store: MapStore) -> None:
    first = start(store, count=8)
    second = start(store, count=16)

    assert second.shards == first.shards
    [warning] = second.warnings
    assert warning.startswith("the cluster has 8 shards and keeps them")
    assert "initial_shard_count = 16 counts only for a new cluster" in warning


def test_nodes_that_start_at_once_serve_the_same_shards(store: MapStore) -> None:
    async def race() -> list[FoundMap]:
        return await asyncio.gather(*(starting(store, seed=seed) for seed in range(20)))

    found = asyncio.run(race())

    assert len({result.shards.to_json() for result in found}) == 1
    assert found[0] == start(store)


def test_a_map_is_created_only_once(store: MapStore) -> None:
    async def create_twice() -> tuple[bool, bool, bytes | None]:
        return await store.create(b"first"), await store.create(b"second"), await store.read()

    assert asyncio.run(create_twice()) == (True, False, b"first")


def test_a_damaged_map_is_refused_rather_than_replaced(store: MapStore) -> None:
    asyncio.run(store.create(b'{"format": 1, "sha'))

    with pytest.raises(Corrupt, match="shard map"):
        start(store)
    assert asyncio.run(store.read()) == b'{"format": 1, "sha'


@pytest.mark.parametrize("backend", ["fs", "url"])
def test_the_map_lies_beside_the_shards(backend: str, tmp_path: Path) -> None:
    scheme = "file://" if backend == "url" else ""
    database = Database(backend=backend, path=f"{scheme}{tmp_path}/data/%shard%/db", fsync=False)
    found = start(beside(database))

    assert ShardMap.from_json((tmp_path / "data/cluster/shard-map.json").read_bytes()) == found.shards
    assert start(beside(database), seed=2) == found
    assert [path.name for path in (tmp_path / "data/cluster").iterdir()] == ["shard-map.json"]


@pytest.mark.parametrize(("backend", "scheme"), [("memory", ""), ("url", "memory://")])
def test_in_memory_each_path_has_a_map_for_the_life_of_the_process(backend: str, scheme: str) -> None:
    one = Database(backend=backend, path=f"{scheme}/{backend}-one/%shard%")
    other = Database(backend=backend, path=f"{scheme}/{backend}-other/%shard%")

    assert start(beside(one), seed=1) == start(beside(one), seed=2)
    assert start(beside(one), seed=1) != start(beside(other), seed=2)


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is forced to the disk or given its name, in order; files by name."""
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def recorded_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append(f"sync {path.name if path.is_dir() else 'content'}")
        fsync(descriptor)

    def recorded_link(source: Any, target: Path) -> None:
        calls.append("name it")
        link(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "link", recorded_link)
    return calls


def test_a_map_on_disk_gets_its_name_when_its_content_and_directories_are_safe(
    tmp_path: Path, disk_calls: list[str]
) -> None:
    start(OnDisk(tmp_path / "data" / KEY, fsync=True))

    assert disk_calls == ["sync data", f"sync {tmp_path.name}", "sync content", "name it", "sync cluster"]


def test_a_later_start_makes_the_name_safe_that_a_killed_one_may_have_left(
    tmp_path: Path, disk_calls: list[str]
) -> None:
    start(OnDisk(tmp_path / KEY, fsync=False))
    disk_calls.clear()

    start(OnDisk(tmp_path / KEY, fsync=True))

    assert disk_calls == ["sync cluster"]


def test_without_fsync_nothing_is_forced_to_the_disk(tmp_path: Path, disk_calls: list[str]) -> None:
    start(OnDisk(tmp_path / KEY, fsync=False))

    assert disk_calls == ["name it"]


def test_a_directory_that_cannot_be_made_is_a_failure_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreFailed, match=r"shard map .*/file/cluster/shard-map\.json: Not a directory"):
        start(OnDisk(tmp_path / "file" / KEY, fsync=True))


def test_an_object_store_takes_its_options_from_the_settings() -> None:
    options = {
        "endpoint": "http://127.0.0.1:9000",
        "region": "us-east-1",
        "access_key_id": "key",
        "secret_access_key": "secret",
        "allow_http": "true",
    }

    assert isinstance(
        beside(Database(backend="s3", path="s3://bucket/silo/%shard%", options=options)), InObjectStore
    )


def test_an_option_that_the_store_does_not_know_is_a_mistake_in_the_configuration() -> None:
    database = Database(backend="s3", path="s3://bucket/silo/%shard%", options={"regoin": "x"})

    with pytest.raises(ConfigError, match=r"^\[database\] s3://bucket/silo: .*'regoin' is not valid.*$"):
        beside(database)


def test_an_object_store_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "cluster").write_text("a file where the store wants a directory")

    with pytest.raises(StoreFailed, match=r"^shard map cluster/shard-map\.json: .*$"):
        start(InObjectStore(LocalStore(tmp_path)))
