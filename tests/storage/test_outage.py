"""The store fails: that is noticed in bounded time, and after it has come back all that was acknowledged is there."""

from __future__ import annotations

import asyncio
import resource
import signal

import attrs
import pytest

from silo.errors import StoreFailed
from silo.storage.stores import StoreSpec, open_database

# One retry instead of five: the same way in less time.
HASTY = {
    "object_store_max_retries": 1,
    "compactor_options": {"object_store_max_retries": 1},
    "garbage_collector_options": {"object_store_max_retries": 1},
}


def run(main):
    return asyncio.run(asyncio.wait_for(main, 60))


async def put(database, key: bytes, value: bytes = b"v") -> None:
    batch = database.batch()
    batch.put(key, value)
    await database.write(batch)


async def expect_refusals(database) -> None:
    for call in (
        put(database, b"z"),
        database.get(b"k00000"),
        database.scan(b"k", b"l", limit=1),
        database.flush(),
    ):
        with pytest.raises(StoreFailed):
            await call


@pytest.fixture
def full_disk():
    """No file can grow beyond what the process is told; writing more fails with EFBIG instead of a signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("fsync", [True, False])
def test_a_disk_that_takes_no_more_fails_the_write(tmp_path, full_disk, fsync):
    async def fill():
        spec = StoreSpec(backend="fs", path=f"{tmp_path}/%shard%", slatedb=HASTY, fsync=fsync)
        database = await open_database(spec, "s1")
        for number in range(20):
            await put(database, b"k%05d" % number)
        full_disk(1_000)
        with pytest.raises(StoreFailed):
            await put(database, b"too large", b"v" * 100_000)
        full_disk(resource.RLIM_INFINITY)
        await expect_refusals(database)
        await database.abandon()

        database = await open_database(spec, "s1")
        assert [key for key, _ in await database.scan(b"k", b"l", limit=100)] == [
            b"k%05d" % n for n in range(20)
        ]
        await put(database, b"again")
        await database.close()

    run(fill())


@pytest.mark.parametrize("fsync", [True, False])
def test_a_directory_that_goes_away_and_comes_back(tmp_path, fsync):
    async def lose_it():
        spec = StoreSpec(backend="fs", path=f"{tmp_path}/data/%shard%", slatedb=HASTY, fsync=fsync)
        database = await open_database(spec, "s1")
        await put(database, b"k00000")
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        (tmp_path / "data").write_text("a file, so that SlateDB cannot make the directory anew")
        with pytest.raises(StoreFailed):
            await put(database, b"k00001")
        await expect_refusals(database)
        await database.abandon()
        # Still away: whoever opens it may try again.
        with pytest.raises(StoreFailed):
            await open_database(spec, "s1")

        (tmp_path / "data").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "data")
        database = await open_database(spec, "s1")
        assert await database.get(b"k00000") == b"v"
        await database.close()

    run(lose_it())


def test_a_store_that_nobody_serves_is_noticed_in_bounded_time():
    async def open_in_vain():
        spec = StoreSpec(
            backend="s3",
            path="s3://bucket/silo/%shard%",
            # Nothing listens on port 9 of this machine.
            options={
                "endpoint": "http://127.0.0.1:9",
                "allow_http": "true",
                "region": "x",
                "access_key_id": "x",
                "secret_access_key": "x",
            },
            slatedb=HASTY,
        )
        with pytest.raises(StoreFailed):
            await open_database(attrs.evolve(spec, open_timeout_ms=2_000), "s1")

    run(open_in_vain())
