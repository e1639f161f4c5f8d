from __future__ import annotations

import asyncio
import json

import attrs
import pytest

from silo.errors import ConfigError, StoreFailed
from silo.storage.settings import DEFAULTS, settings
from silo.storage.stores import StoreSpec, delete_database, locate, open_database


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


async def put(database, key: bytes) -> None:
    batch = database.batch()
    batch.put(key, b"v")
    await database.write(batch)


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"backend": "fs", "path": "/tmp/silo-test/%shard%"}, "/tmp/silo-test/s1"),
        ({"backend": "fs", "path": "/tmp/silo-test/{shard}/db"}, "/tmp/silo-test/s1/db"),
        ({"backend": "url", "path": "file:///tmp/silo-test/%shard%"}, "/tmp/silo-test/s1"),
        ({"backend": "memory", "path": "/%shard%"}, "memory:///s1"),
        ({"backend": "url", "path": "memory:///x/%shard%"}, "memory:///x/s1"),
        ({"backend": "s3", "path": "s3://bucket/silo/%shard%"}, "s3://bucket/silo/s1"),
        ({"backend": "s3", "path": "s3://bucket/%shard%"}, "s3://bucket/s1"),
        ({"backend": "gcs", "path": "gs://bucket/silo/{shard}"}, "gs://bucket/silo/s1"),
        ({"backend": "url", "path": "s3://bucket/silo/%shard%"}, "s3://bucket/silo/s1"),
        (
            {"backend": "url", "path": "az://box/silo/%shard%", "options": {"account_name": "a"}},
            "az://box/silo/s1",
        ),
    ],
)
def test_a_template_leads_to_a_place(spec, place):
    assert str(locate(StoreSpec(**spec), "s1").main) == place


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"backend": "fs", "path": "/tmp/silo-test"},
            "database template path must contain a shard placeholder (%shard% or {shard}), got: /tmp/silo-test",
        ),
        (
            {"backend": "s3", "path": "s3://b/%shard%", "options": {"regoin": "x"}},
            "database.options: invalid S3 object store config key: regoin",
        ),
        (
            {
                "backend": "fs",
                "path": "/tmp/silo-test/%shard%",
                "wal": StoreSpec(backend="fs", path="/tmp/wal"),
            },
            "database template path must contain a shard placeholder (%shard% or {shard}), got: /tmp/wal",
        ),
        (
            {
                "backend": "s3",
                "path": "s3://b/silo/%shard%",
                "wal": StoreSpec(backend="s3", path="s3://fast/%shard%"),
            },
            "database.wal.path must lead to the same path in its bucket as database.path does",
        ),
        (
            {
                "backend": "fs",
                "path": "/tmp/silo-test/%shard%",
                "wal": StoreSpec(backend="s3", path="s3://fast/%shard%"),
            },
            "database.wal must be on a local disk too",
        ),
    ],
)
def test_a_configuration_that_leads_nowhere_is_refused_with_a_reason(spec, sentence):
    with pytest.raises(ConfigError) as refused:
        locate(StoreSpec(**spec), "s1")
    assert sentence in str(refused.value)


@pytest.mark.parametrize("shard", ["", ".", "..", "a/b", "a b", "ü", "a\n"])
def test_a_shard_cannot_be_called_anything(shard):
    with pytest.raises(ConfigError, match="a shard's name"):
        locate(StoreSpec.in_memory(), shard)


def test_a_directory_that_cannot_be_made_is_a_failure_of_the_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match=r"database\.path"):
        run(open_database(StoreSpec(backend="fs", path=f"{tmp_path}/file/%shard%"), "s1"))


def test_shards_are_apart_and_memory_lasts_as_long_as_the_process():
    async def reopen():
        spec = StoreSpec.in_memory()
        for shard in ("s1", "s2"):
            database = await open_database(spec, shard)
            await put(database, shard.encode())
            await database.close()
        database = await open_database(spec, "s1")
        assert await database.get(b"s1") == b"v"
        assert await database.get(b"s2") is None
        await database.close()
        elsewhere = await open_database(StoreSpec.in_memory(), "s1")
        assert await elsewhere.get(b"s1") is None
        await elsewhere.close()

    run(reopen())


def test_shards_that_share_a_cache_do_not_see_each_others_rows():
    async def fill_and_read():
        spec = StoreSpec.in_memory()
        databases = {shard: await open_database(spec, shard) for shard in ("s1", "s2")}
        for shard, database in databases.items():
            batch = database.batch()
            batch.put(b"k", shard.encode())
            await database.write(batch)
            await database.flush()
        for _ in range(2):
            for shard, database in databases.items():
                assert await database.get(b"k") == shard.encode()
        for database in databases.values():
            await database.close()

    run(fill_and_read())


# ---- the WAL store


def with_wal(tmp_path, name: str, **more) -> StoreSpec:
    wal = StoreSpec(backend="fs", path=f"{tmp_path}/{name}/%shard%")
    return StoreSpec(backend="fs", path=f"{tmp_path}/main/%shard%", wal=wal, **more)


@pytest.mark.parametrize("fsync", [True, False])
def test_a_shard_is_not_opened_without_its_wal_store(tmp_path, fsync):
    async def mislay_the_log():
        right = with_wal(tmp_path, "wal", fsync=fsync)
        database = await open_database(right, "s1")
        await put(database, b"only in the log")
        await database.abandon()
        assert list((tmp_path / "wal/s1/wal").glob("*.sst"))

        for wrong, said in (
            (attrs.evolve(right, wal=None), "its main store"),
            (with_wal(tmp_path, "x"), "x/s1"),
        ):
            with pytest.raises(ConfigError) as refused:
                await open_database(wrong, "s1")
            assert f"keeps its log in {tmp_path}/wal/s1, but the configuration says" in str(refused.value)
            assert said in str(refused.value)

        database = await open_database(right, "s1")
        assert await database.get(b"only in the log") == b"v"
        await database.close()

    run(mislay_the_log())


def test_a_wal_store_is_not_given_to_a_shard_that_was_made_without(tmp_path):
    async def add_one():
        spec = with_wal(tmp_path, "wal")
        database = await open_database(attrs.evolve(spec, wal=None), "s1")
        await put(database, b"k")
        await database.close()
        with pytest.raises(ConfigError, match="keeps its log in its main store, but the configuration says"):
            await open_database(spec, "s1")

    run(add_one())


@pytest.mark.parametrize("separate_wal", [True, False])
def test_a_deleted_database_is_gone_and_can_be_made_anew(tmp_path, separate_wal):
    async def delete():
        spec = with_wal(tmp_path, "wal")
        if not separate_wal:
            spec = attrs.evolve(spec, wal=None)
        for shard in ("s1", "s2"):
            database = await open_database(spec, shard)
            await put(database, b"k")
            await database.close()
        await delete_database(spec, "s1")
        assert not [path for path in tmp_path.rglob("s1/**/*") if path.is_file()]
        for shard, value in (("s1", None), ("s2", b"v")):
            database = await open_database(spec, shard)
            assert await database.get(b"k") == value
            await database.close()

    run(delete())


# ---- SlateDB's settings


def test_overrides_are_merged_at_every_depth():
    made = json.loads(
        settings(
            {"compactor_options": {"worker": {"max_sst_size": 1 << 20}}, "flush_interval": "1500ms"}
        ).to_json_string()
    )
    assert made["compactor_options"]["worker"]["max_sst_size"] == 1 << 20
    assert made["compactor_options"]["poll_interval"] == DEFAULTS["compactor_options"]["poll_interval"]
    assert made["flush_interval"] == "1s+500ms"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"flush_intervl": "1s"}, "database.slatedb.flush_intervl"),
        ({"compactor_options": {"worker": {"x": 1}}}, "database.slatedb.compactor_options.worker.x"),
        ({"flush_interval": 5}, "invalid type: integer `5`"),
        ({"flush_interval": "soon"}, "database.slatedb.flush_interval"),
        ({"l0_max_ssts": object()}, "database.slatedb.l0_max_ssts"),
    ],
)
def test_a_setting_that_slatedb_does_not_take_is_refused(overrides, sentence):
    with pytest.raises(ConfigError) as refused:
        settings(overrides)
    assert sentence in str(refused.value)


def test_a_setting_can_be_nothing():
    assert json.loads(settings({"compactor_options": None}).to_json_string())["compactor_options"] is None


def test_a_setting_can_name_the_shard(tmp_path):
    async def open_with_a_disk_cache():
        cache = {"object_store_cache_options": {"root_folder": f"{tmp_path}/cache/%shard%"}}
        spec = StoreSpec(backend="fs", path=f"{tmp_path}/db/%shard%", slatedb=cache)
        for _ in range(2):
            database = await open_database(spec, "s1")
            await put(database, b"k")
            await database.flush()
            await database.scan(b"a", b"z", limit=10)
            await database.close()

    run(open_with_a_disk_cache())
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"s1"}
