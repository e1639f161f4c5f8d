from __future__ import annotations

import asyncio
import re
import struct

import attrs
import pytest

from silo.errors import ConfigError, Corrupt, Fenced, StoreFailed
from silo.storage import slate
from silo.storage.ffi import generated
from silo.storage.fsync import Syncing
from silo.storage.slate import named
from silo.storage.stores import StoreSpec, open_database

IN_S = 30


def run(main):
    asyncio.run(asyncio.wait_for(main, IN_S))


def a_batch(database, **rows):
    batch = database.batch()
    for key, value in rows.items():
        batch.put(key.encode(), value.encode())
    return batch


def test_the_second_opener_fences_the_first():
    async def open_twice():
        spec = StoreSpec.in_memory()
        first = await open_database(spec, "shard")
        await first.write(a_batch(first, a="1"))
        second = await open_database(spec, "shard")
        sentence = "another process has opened this shard; this one stops serving it"
        with pytest.raises(Fenced, match=sentence):
            await first.write(a_batch(first, a="2"))
        # From then on nothing that it says can be taken for true, so it says nothing.
        for call in (first.get(b"a"), first.scan(b"a", b"b", limit=1), first.snapshot(), first.flush()):
            with pytest.raises(Fenced, match=sentence):
                await call
        await first.abandon()
        assert await second.get(b"a") == b"1"
        await second.close()

    run(open_twice())


def test_closing_keeps_everything_and_abandoning_what_was_acknowledged():
    async def reopen():
        spec = StoreSpec.in_memory()
        database = await open_database(spec, "shard")
        await database.write(a_batch(database, a="1"))
        await database.close()
        await database.close()
        database = await open_database(spec, "shard")
        await database.write(a_batch(database, b="2"))
        unfinished = asyncio.create_task(database.write(a_batch(database, c="3")))
        await asyncio.sleep(0)
        await database.abandon()
        await database.abandon()
        with pytest.raises(StoreFailed):
            await unfinished
        with pytest.raises(StoreFailed, match="abandoned"):
            await database.get(b"a")
        database = await open_database(spec, "shard")
        assert [await database.get(key) for key in (b"a", b"b")] == [b"1", b"2"]
        await database.close()
        with pytest.raises(StoreFailed, match="closed"):
            await database.write(a_batch(database, d="4"))

    run(reopen())


def test_closing_waits_for_writes_in_flight():
    async def close_while_writing():
        spec = StoreSpec.in_memory()
        database = await open_database(spec, "shard")
        writes = [asyncio.create_task(database.write(a_batch(database, **{f"k{n}": "v"}))) for n in range(20)]
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*writes)
        database = await open_database(spec, "shard")
        assert len(await database.scan(b"k", b"l", limit=100)) == 20
        await database.close()

    run(close_while_writing())


def test_a_cancelled_caller_changes_nothing():
    async def cancel():
        spec = StoreSpec.in_memory()
        database = await open_database(spec, "shard")
        for number in range(100):
            write = asyncio.create_task(database.write(a_batch(database, **{f"k{number:03}": "v"})))
            # Cancelled at every stage between the call and the acknowledgement.
            for _ in range(number % 10 + 1):
                await asyncio.sleep(0)
            write.cancel()
        await database.write(a_batch(database, last="v"))
        await database.abandon()
        database = await open_database(spec, "shard")
        assert len(await database.scan(b"k", b"l", limit=1_000)) == 100
        await database.close()

    run(cancel())


def test_writes_in_flight_take_effect_in_the_order_of_the_calls():
    async def write_one_key():
        database = await open_database(StoreSpec.in_memory(), "shard")
        done: list[int] = []

        async def write(number: int) -> None:
            await database.write(a_batch(database, key=str(number)))
            done.append(number)

        await asyncio.gather(*(write(number) for number in range(200)))
        assert done == list(range(200))
        assert await database.get(b"key") == b"199"
        await database.close()

    run(write_one_key())


class NeverDurable(Syncing):
    async def wal(self) -> None:
        await asyncio.Event().wait()


def test_a_write_that_does_not_become_durable_in_time_breaks_the_database():
    async def wait_in_vain():
        spec = attrs.evolve(StoreSpec.in_memory(), durability_timeout_ms=50)
        database = await open_database(spec, "shard")
        database._syncing = NeverDurable()
        writes = [asyncio.create_task(database.write(a_batch(database, a=str(n)))) for n in range(2)]
        for write in writes:
            with pytest.raises(StoreFailed, match="not durable within 50 ms"):
                await write
        with pytest.raises(StoreFailed, match="not durable within 50 ms"):
            await database.get(b"a")
        await database.abandon()
        database = await open_database(spec, "shard")
        await database.write(a_batch(database, b="1"))
        await database.close()

    run(wait_in_vain())


def test_a_batch_is_written_once_and_its_keys_are_not_empty():
    async def misuse():
        database = await open_database(StoreSpec.in_memory(), "shard")
        batch = a_batch(database, a="1")
        await database.write(batch)
        with pytest.raises(ValueError, match="already"):
            await database.write(batch)
        with pytest.raises(ValueError, match="at least one byte"):
            database.batch().put(b"", b"v")
        with pytest.raises(ValueError, match="at least one byte"):
            database.batch().delete(b"")
        await database.write(database.batch())
        await database.close()

    run(misuse())


def test_compaction_merges_all_files_into_one_run():
    async def compact():
        database = await open_database(StoreSpec.in_memory(), "shard")
        await database.compact()
        for number in range(3):
            await database.write(a_batch(database, **{f"k{number}": "v"}))
            await database.flush()
        before = await database.storage_info()
        assert (before.l0_sst_count, before.sorted_runs) == (4, ())
        assert before.total_l0_size > 0
        await database.compact()
        while (after := await database.storage_info()).l0_sst_count:  # noqa: ASYNC110
            # There is no signal for it, the compactor is SlateDB's; the run as a whole is bounded.
            await asyncio.sleep(0.05)
        assert [run.sst_count for run in after.sorted_runs] == [1]
        assert len(await database.scan(b"k", b"l", limit=10)) == 3
        await database.close()

    run(compact())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (generated.Error.Closed(generated.CloseReason.FENCED, "detected newer DB client"), Fenced),
        (generated.Error.Closed(generated.CloseReason.PANIC, "background task panicked"), StoreFailed),
        (generated.Error.Closed(generated.CloseReason.CLEAN, "db is closed"), StoreFailed),
        (generated.Error.Unavailable("wal unavailable"), StoreFailed),
        (generated.Error.Internal("?"), StoreFailed),
        (generated.Error.Data("object store error (Object at location x not found)"), StoreFailed),
        (generated.Error.Data("checksum mismatch"), Corrupt),
        (generated.Error.Invalid("segment extractor configuration mismatch"), ConfigError),
        (generated.InternalError("Rust panicked"), StoreFailed),
        (OSError(28, "No space left on device"), StoreFailed),
        (TimeoutError(), StoreFailed),
    ],
)
def test_what_slatedb_says_has_a_name_of_ours(reason, kind):
    assert type(named(reason)) is kind
    assert re.search(r"\w", str(named(reason)))


def test_every_error_of_the_binding_is_caught():
    kinds = [kind for kind in vars(generated.Error).values() if isinstance(kind, type)]
    assert all(issubclass(kind, slate.Failures) for kind in kinds)
    assert len(kinds) == 6


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), struct.error("too short")])
def test_an_error_that_nobody_expects_fails_the_write_and_the_database(error):
    class Broken(Syncing):
        async def wal(self):
            raise error

    async def fail():
        spec = StoreSpec.in_memory()
        database = await open_database(spec, "shard")
        database._syncing = Broken()
        told = f"{type(error).__name__}: {error}"
        for write in [asyncio.create_task(database.write(a_batch(database, a="1"))) for _ in range(3)]:
            with pytest.raises(StoreFailed, match=told):
                await write
        with pytest.raises(StoreFailed, match=told):
            database.check()
        await database.abandon()
        database = await open_database(spec, "shard")
        await database.write(a_batch(database, b="2"))
        await database.close()

    run(fail())
