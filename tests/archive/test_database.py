"""A database and its archive as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.archive.archive import Archive
from silo.archive.database import ArchivedDatabase, delete_with_archive, open_with_archive, with_archive
from silo.archive.files import Stretch
from silo.archive.folder import OnDisk
from silo.errors import Corrupt
from silo.events import codec
from silo.events.catalogue import ChainStarted, Event
from silo.events.log import LOG_PREFIX, history, read, record_key
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.builders import fact, stamped
from tests.serving import run


def some_events(first: int, last: int) -> list[Event]:
    """The life of one job."""
    events = [stamped(fact(ChainStarted), seq=seq, time_ms=seq) for seq in range(first, last + 1)]
    for event in events:
        event.prev = event.seq - 1
    return events


async def a_log(directory: Path, *lasts: int, archived: int) -> ArchivedDatabase:
    """Records that end with these events; of which so many are in the archive, too."""
    memory, archive, first = MemoryDatabase(), Archive(OnDisk(directory, fsync=False)), 1
    for last in lasts:
        batch = memory.batch()
        batch.put(record_key(first), codec.encode(some_events(first, last)))
        await memory.write(batch)
        first = last + 1
    archive.add_events(Stretch(1, archived), [some_events(1, archived)])
    return await with_archive(memory, archive)


async def seqs(reader, start: int, end: int | None = None) -> list[int]:
    return [event.seq async for events in read(reader, start, end=end) for event in events]


@pytest.mark.parametrize("upto", [1, 3, 4, 5, 9, 10])
def test_a_log_reads_the_same_wherever_it_was_cut(tmp_path, upto):
    async def story():
        database = await a_log(tmp_path, 4, 5, 10, 12, archived=10)
        everything = list(range(1, 13))
        before = await database.snapshot()
        await database.cut(upto)
        # The record that has the first event which stays is there as a whole.
        assert database.live_seq == {1: 1, 3: 1, 4: 5, 5: 6, 9: 6, 10: 11}[upto]
        assert (await database.inner.scan(LOG_PREFIX, b"\x02", limit=1))[0][0] == record_key(
            database.live_seq
        )
        for reader in (database, before, await database.snapshot()):
            for start, end in ((1, None), (4, 6), (5, 11), (10, None), (11, 12), (3, 4)):
                assert await seqs(reader, start, end) == everything[start - 1 : (end or 13) - 1]
            assert [event.seq for event in await history(reader, 7)] == list(range(1, 8))
        again = await with_archive(database.inner, database.archive)
        assert again.live_seq == database.live_seq
        assert await seqs(again, 1) == everything
        assert await database.cut(upto) == 0

    run(story())


def test_what_is_not_in_the_archive_is_never_cut(tmp_path):
    async def story():
        database = await a_log(tmp_path, 4, 8, archived=4)
        with pytest.raises(
            Corrupt, match="cut behind event 5, but the archive ends with 4: files of it are missing"
        ):
            await database.cut(5)
        assert await database.cut(4) == 1
        assert await seqs(database, 1) == list(range(1, 9))

    run(story())


def test_an_archive_of_another_database_is_refused(tmp_path):
    async def story():
        with pytest.raises(
            Corrupt, match="has files up to event 9, the log ends with 4: they do not belong together"
        ):
            await a_log(tmp_path, 4, archived=9)

    run(story())


def test_a_database_is_deleted_with_its_archive(tmp_path):
    async def story():
        spec = StoreSpec(backend="fs", path=f"{tmp_path}/%shard%", fsync=False)
        database = await open_with_archive(spec, "one")
        assert isinstance(database, ArchivedDatabase)
        batch = database.batch()
        batch.put(record_key(1), codec.encode(some_events(1, 3)))
        await database.write(batch)
        database.archive.add_events(Stretch(1, 3), [some_events(1, 3)])
        await database.close()
        await delete_with_archive(spec, "one")
        anew = await open_with_archive(spec, "one")
        assert (await seqs(anew, 1), anew.archive.stretches) == ([], ())
        await anew.close()

    run(story())


def test_what_is_in_memory_has_no_archive():
    async def story():
        database = await open_with_archive(StoreSpec.in_memory(), "one")
        assert not isinstance(database, ArchivedDatabase)
        await database.close()

    run(story())
