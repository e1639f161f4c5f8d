from __future__ import annotations

import asyncio
import contextlib
import logging
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.storage.ffi import FastCalls, PlainCalls, calls, choose, generated

BOTH = pytest.mark.parametrize("calls", [FastCalls(generated), PlainCalls()], ids=["fast", "plain"])
SCAN = generated.ScanOptions(
    durability_filter=generated.DurabilityLevel.MEMORY,
    dirty=False,
    read_ahead_bytes=1,
    cache_blocks=True,
    max_fetch_tasks=1,
)


async def opened():
    return await generated.DbBuilder("db", generated.ObjectStore.resolve("memory:///")).build()


def test_the_installed_binding_is_the_one_that_the_fast_calls_know():
    assert isinstance(calls, FastCalls)


@given(st.binary(max_size=300))
def test_bytes_cross_as_they_do_through_the_binding(value):
    fast = FastCalls(generated)
    assert generated._UniffiFfiConverterBytes.lift(fast._lower_bytes(value)) == value
    assert fast._take(fast._lower_bytes(value)) == fast._take(generated._UniffiFfiConverterBytes.lower(value))


rows_of_any_bytes = st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=300), max_size=20)


@settings(max_examples=25)
@given(rows_of_any_bytes, rows_of_any_bytes)
def test_both_ways_read_what_either_has_written(by_fast, by_plain):
    async def write_and_read():
        db = await opened()
        for way, rows in ((FastCalls(generated), by_fast), (PlainCalls(), by_plain)):
            batch = generated.WriteBatch()
            for key, value in rows.items():
                way.put(batch, key, value)
            way.put(batch, b"gone", b"")
            way.delete(batch, b"gone")
            handle = await way.write(db, batch)
            await way.flush_wal(db)
            await way.await_durable(handle)

        expected = {key: value for key, value in (by_fast | by_plain).items() if key != b"gone"}
        snapshot = await db.snapshot()
        for way in (FastCalls(generated), PlainCalls()):
            for reader in (db, snapshot):
                iterator = await way.scan(reader, b"\x00", b"\xff" * 50, SCAN)
                read = []
                while page := await way.next_rows(iterator, 7):
                    read += page
                assert read == sorted(expected.items())
                for key in {**expected, b"gone": b"", b"absent": b""}:
                    assert await way.get(reader, key) == expected.get(key)
        await db.shutdown()

    asyncio.run(write_and_read())


@BOTH
def test_errors_of_the_database_arrive(calls):
    async def read_closed():
        db = await opened()
        await db.shutdown()
        with pytest.raises(generated.Error.Closed):
            await calls.get(db, b"k")
        with pytest.raises(generated.Error.Closed):
            await calls.flush_wal(db)

    asyncio.run(read_closed())


@BOTH
def test_a_batch_that_was_written_is_refused(calls):
    async def write_twice():
        db = await opened()
        batch = generated.WriteBatch()
        calls.put(batch, b"k", b"v")
        await calls.write(db, batch)
        with pytest.raises(generated.Error.Invalid, match="already been consumed"):
            calls.put(batch, b"k", b"v")
        with pytest.raises(generated.Error.Invalid, match="already been consumed"):
            calls.delete(batch, b"k")
        # The error was the call's own; the next one is not affected.
        calls.put(generated.WriteBatch(), b"k", b"v")
        await db.shutdown()

    asyncio.run(write_twice())


@BOTH
@pytest.mark.parametrize("wrong", ["text", 7, None])
def test_only_bytes_are_accepted(calls, wrong):
    batch = generated.WriteBatch()
    with pytest.raises(TypeError):
        calls.put(batch, wrong, b"v")
    with pytest.raises(TypeError):
        calls.put(batch, b"k", wrong)
    with pytest.raises(TypeError):
        calls.delete(batch, wrong)


def test_cancelled_calls_leave_nothing_behind():
    fast = FastCalls(generated)

    async def cancel_many():
        db = await opened()
        for _ in range(50):
            batch = generated.WriteBatch()
            fast.put(batch, b"k", b"v")
            handle = await fast.write(db, batch)
            waiting = asyncio.ensure_future(fast.await_durable(handle))
            await asyncio.sleep(0)
            waiting.cancel()
            # SlateDB's own flush may have come first.
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        await fast.flush_wal(db)
        # What was cancelled can be awaited again.
        await fast.await_durable(handle)
        await db.shutdown()

    asyncio.run(cancel_many())
    assert fast._waiting == {}


def changed(**names):
    """The binding as it would be if these names stood for something else."""
    return types.SimpleNamespace(**{**vars(generated), **names})


@pytest.mark.parametrize(
    "binding",
    [
        pytest.param(types.SimpleNamespace(), id="all names changed"),
        pytest.param(
            changed(_UniffiFfiConverterTypeKeyRange=generated._UniffiFfiConverterTypeKeyValue),
            id="records changed",
        ),
        pytest.param(
            changed(_UniffiFfiConverterBytes=generated._UniffiFfiConverterString), id="bytes changed"
        ),
    ],
)
def test_a_binding_of_another_shape_is_used_as_it_is(binding, caplog):
    with caplog.at_level(logging.WARNING):
        assert type(choose(binding)) is PlainCalls
    assert [record.name for record in caplog.records] == ["silo.storage.ffi"]
