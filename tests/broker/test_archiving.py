"""The archive is made, the log is cut, and nobody who reads the log notices."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.archive.archive import Archive
from silo.archive.database import with_archive
from silo.archive.files import Stretch
from silo.archive.folder import OnDisk
from silo.broker import archiving
from silo.broker.archive_process import InChild
from silo.broker.archiving import DAY_MS, Sealed
from silo.broker.archiving import keep_archive as keep_archive_by_a_child
from silo.broker.erasures import carry_out, run_erasures
from silo.errors import Corrupt, SiloError, StoreFailed
from silo.events import codec
from silo.events.catalogue import ERASED, JobEnqueued, LogCut
from silo.events.log import LOG_END, LOG_PREFIX, first_seq_of, record_key
from silo.projections.jobs import JOBS
from silo.shard import shard as shard_module
from silo.shard.base import base_of
from silo.shard.beside import Progress, Stopped, rebuild_beside, verify_beside
from silo.shard.cancel import cancel
from silo.shard.disk import row_key
from silo.shard.enqueue import enqueue
from silo.shard.erase import erase, next_erasures
from silo.shard.jobs import JobName
from silo.shard.replay import remake, verify
from silo.shard.seal import seal_events
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec, open_database
from tests.archive.makers import Here
from tests.builders import a_job
from tests.serving import IN_S, Clock, Watched, run, serving, turns
from tests.shard.test_replay_equivalence import STEPS, World, quiet

DAYS_KEPT = 2 * DAY_MS

keep_archive = functools.partial(keep_archive_by_a_child, maker=Here(), image=True)
"""In this process, as there are many."""


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch):
    monkeypatch.setattr(shard_module, "REOPEN_AFTER_S", (0.0,))


def archived(database, directory: Path):
    """Opens a database with an archive; both outlive that."""

    async def open_it():
        return await with_archive(database, Archive(OnDisk(directory, fsync=False)))

    return open_it


async def some_jobs(shard, first: int, count: int = 10) -> None:
    for number in range(first, first + count):
        await shard.execute(enqueue, a_job(job_id=f"j{number}", payload=b"\xa6secret"))


async def all_events(shard) -> list:
    return [event async for events in shard.log.read(1) for event in events]


async def records(database) -> int:
    return sum([len(page) async for page in database.pages(LOG_PREFIX, LOG_END)])


def test_what_is_old_leaves_the_log_and_can_be_read_all_the_same(tmp_path):
    async def story():
        memory, clock = MemoryDatabase(), Clock()
        async with serving(archived(memory, tmp_path), clock=clock) as shard:
            await some_jobs(shard, 0)
            assert await keep_archive(shard, DAYS_KEPT) == Sealed(21, 21, 1)
            clock.now_ms += DAYS_KEPT
            await some_jobs(shard, 10)
            before = await all_events(shard)
            sealed = await keep_archive(shard, DAYS_KEPT)
            assert (sealed.last_seq, sealed.image_seq) == (41, 41)
            assert 21 <= sealed.live_seq <= 22
            # A record a command; what is cut is the first 21 events, and the cut is an event.
            assert await records(memory) <= 12

            events = await all_events(shard)
            assert events[:-1] == before
            assert events[-1] == LogCut(upto_seq=21)
            assert await verify_beside(shard, Progress()) is None
            assert (await rebuild_beside(shard, [JOBS], Progress())).rows == 0
            history = await shard.log.history(2)
            assert [type(event) for event in history] == [JobEnqueued]

        async with serving(archived(memory, tmp_path), clock=clock) as shard:
            assert (await all_events(shard))[:-1] == before
            await some_jobs(shard, 20)

    run(story())


def test_without_a_retention_nothing_leaves_the_log(tmp_path):
    async def story():
        clock = Clock()
        async with serving(archived(MemoryDatabase(), tmp_path), clock=clock) as shard:
            await some_jobs(shard, 0)
            await keep_archive(shard, None)
            clock.now_ms += 1_000 * DAY_MS
            assert await keep_archive(shard, None) == Sealed(21, 21, 1)

    run(story())


def test_rows_that_the_log_does_not_give_are_no_image_and_cut_nothing(tmp_path):
    async def story():
        clock = Clock()
        async with serving(archived(MemoryDatabase(), tmp_path), clock=clock) as shard:
            await some_jobs(shard, 0)
            await shard.checkpoint()
            batch = shard.database.batch()
            batch.delete(row_key(JOBS, ("acme", "j3")))
            await shard.database.write(batch)
            clock.now_ms += DAYS_KEPT
            with pytest.raises(
                Corrupt, match=r"no image is made, and the log not cut, .* jobs \('acme', 'j3'\)"
            ):
                await keep_archive(shard, 0)
            assert shard.database.archive.images == ()
            await rebuild_beside(shard, [JOBS], Progress())
            assert (await keep_archive(shard, DAYS_KEPT)).image_seq == 21

    run(story())


def test_without_a_retention_images_are_thinned_too(tmp_path):
    async def story():
        clock = Clock()
        async with serving(archived(MemoryDatabase(), tmp_path), clock=clock) as shard:
            for day in range(60):
                await some_jobs(shard, day, 1)
                await keep_archive(shard, None)
                clock.now_ms += DAY_MS
            archive = shard.database.archive
            assert archive.images[0].seq == 3
            assert archive.images[-1].seq == shard.log.durable_seq
            assert 5 <= len(archive.images) <= 8

    run(story())


def test_images_are_thinned_and_the_one_at_the_cut_stays(tmp_path):
    async def story():
        clock = Clock()
        async with serving(archived(MemoryDatabase(), tmp_path), clock=clock) as shard:
            for day in range(40):
                await some_jobs(shard, day, 1)
                await keep_archive(shard, 12 * DAY_MS)
                clock.now_ms += DAY_MS
            archive = shard.database.archive
            images = [(clock.now_ms - image.time_ms) // DAY_MS for image in archive.images]
            assert images[-1] == 1
            assert 11 <= images[0] <= 16
            assert len(images) <= 9
            assert archive.images[0].seq >= shard.database.live_seq - 1
            assert await verify_beside(shard, Progress()) is None

    run(story())


def test_rows_are_made_anew_in_place_from_an_image_when_the_log_was_cut(tmp_path):
    async def story():
        memory, clock = MemoryDatabase(), Clock()
        open_it = archived(memory, tmp_path)
        async with serving(open_it, clock=clock) as shard:
            await some_jobs(shard, 0)
            await keep_archive(shard, DAYS_KEPT)
            clock.now_ms += DAYS_KEPT
            await some_jobs(shard, 10)
            await keep_archive(shard, DAYS_KEPT)
        database = await open_it()
        assert (await base_of(database, 1_000)).image.seq == 21
        note = await remake(database)
        assert note.seq == 42
        assert await verify(database, MemoryDatabase(), base=await base_of(database, note.seq)) is None
        # The archive has everything, so images are only a short cut.
        for image in database.archive.images:
            database.archive.drop(image)
        assert await base_of(database, 1_000) is None
        assert await verify(database, MemoryDatabase()) is None

    run(story())


def test_erasure_reaches_the_archive(tmp_path):
    async def story():
        memory, clock = MemoryDatabase(), Clock()
        async with serving(archived(memory, tmp_path), clock=clock) as shard:
            await some_jobs(shard, 0)
            await keep_archive(shard, DAYS_KEPT)
            clock.now_ms += DAYS_KEPT
            await some_jobs(shard, 10, 2)
            await keep_archive(shard, DAYS_KEPT)
            for number in (3, 11):
                await shard.execute(cancel, JobName("acme", f"j{number}"))
                await shard.execute(erase, JobName("acme", f"j{number}"))
            while erasures := await shard.execute(next_erasures, 10):
                await carry_out(shard, erasures, maker=Here())

            erased = [
                event.payload == ERASED for event in await all_events(shard) if isinstance(event, JobEnqueued)
            ]
            assert [number for number, is_erased in enumerate(erased) if is_erased] == [3, 11]
            archive = shard.database.archive
            columns = [
                row for batch in archive.batches(1, 1_000, ["type", "data"]) for row in batch.to_pylist()
            ]
            kept = [row["data"] for row in columns if row["type"] == "JobEnqueued"]
            assert [number for number, data in enumerate(kept) if "secret" not in data] == [3, 11]
            assert archive.images == ()
            assert await verify_beside(shard, Progress()) is None
            assert (await keep_archive(shard, DAYS_KEPT, image=True)).image_seq > 0

    run(story())


def test_a_process_of_its_own_erases_from_the_archive_and_what_it_replaced_is_no_longer_remembered(tmp_path):
    async def story():
        async with serving(archived(MemoryDatabase(), tmp_path), clock=Clock()) as shard:
            await some_jobs(shard, 0, 3)
            await keep_archive(shard, None)
            archive = shard.database.archive
            assert archive.record(2) is not None
            await shard.execute(cancel, JobName("acme", "j1"))
            await shard.execute(erase, JobName("acme", "j1"))
            await carry_out(shard, await shard.execute(next_erasures, 10))
            kept = [
                event.payload == ERASED
                for page in archive.records(1, archive.last_seq + 1)
                for key, record in page
                for event in codec.decode(first_seq_of(key), record)
                if isinstance(event, JobEnqueued)
            ]
            assert kept == [False, True, False]
            assert list(tmp_path.glob("*.draft")) == []

    run(story())


def test_an_archive_that_cannot_be_read_keeps_nobody_from_being_served_and_erasure_waits(tmp_path, caplog):
    async def story():
        async with serving(archived(MemoryDatabase(), tmp_path), clock=Clock()) as shard:
            await some_jobs(shard, 0, 2)
            await keep_archive(shard, None)
            (tmp_path / shard.database.archive.stretches[0].name).write_bytes(b"no parquet")
            await shard.execute(cancel, JobName("acme", "j1"))
            await shard.execute(erase, JobName("acme", "j1"))
            erasing = asyncio.create_task(run_erasures(shard))
            while "could not be made: archive file events-" not in caplog.text:  # noqa: ASYNC110 - a line sets no event
                await asyncio.sleep(0.01)
            assert not erasing.done()
            await some_jobs(shard, 2, 1)
            erasing.cancel()
            assert await shard.execute(next_erasures, 1)

    run(story())


@pytest.mark.parametrize("writes", range(1, 7))
def test_a_crash_in_the_middle_loses_nothing_and_doubles_nothing(tmp_path, monkeypatch, writes):
    monkeypatch.setattr("silo.archive.database.RECORDS_DELETED_AT_ONCE", 4)

    async def story():
        memory, clock = MemoryDatabase(), Clock()
        async with serving(archived(memory, tmp_path), clock=clock) as shard:
            await some_jobs(shard, 0)
            await keep_archive(shard, DAYS_KEPT)
            await some_jobs(shard, 10)
            clock.now_ms += DAYS_KEPT
            await shard.checkpoint()
            before = await all_events(shard)
        watched = Watched(memory)
        watched.failures = [None] * (writes - 1) + [StoreFailed("no disk")]
        async with serving(archived(watched, tmp_path), clock=clock) as shard:
            try:
                await keep_archive(shard, DAYS_KEPT)
            except Exception:  # noqa: BLE001 - whatever a broken store makes of it
                assert not watched.failures
        watched.failures = []
        async with serving(archived(memory, tmp_path), clock=clock) as shard:
            sealed = await keep_archive(shard, DAYS_KEPT)
            events = await all_events(shard)
            assert events[: len(before)] == before
            # All that there was is as old.
            assert [event.upto_seq for event in events if isinstance(event, LogCut)] == [41]
            assert sealed.live_seq == 42
            assert await records(memory) == len(events) - 41
            assert await verify_beside(shard, Progress()) is None

    run(story())


def test_a_maker_that_fails_says_why_and_makes_nothing(tmp_path):
    async def story():
        async with serving(archived(MemoryDatabase(), tmp_path), clock=Clock()) as shard:
            await some_jobs(shard, 0)
            await keep_archive(shard, None, image=False)
            archive = shard.database.archive
            (tmp_path / archive.stretches[0].name).write_bytes(b"no parquet")
            with pytest.raises(
                Corrupt,
                match=r"the image of event 21 could not be made: archive file events-.*cannot be read",
            ):
                await keep_archive_by_a_child(shard, None, image=True)
            assert archive.images == ()

    run(story())


def test_what_was_cut_off_is_read_before_any_row_is_removed(tmp_path):
    async def story():
        memory, clock = MemoryDatabase(), Clock()
        open_it = archived(memory, tmp_path)
        async with serving(open_it, clock=clock) as shard:
            await some_jobs(shard, 0)
            await keep_archive(shard, DAYS_KEPT)
            clock.now_ms += DAYS_KEPT
            await some_jobs(shard, 10)
            await keep_archive(shard, DAYS_KEPT)
        database = await open_it()
        file = tmp_path / database.archive.stretches[0].name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(bytes(content))
        with pytest.raises(Corrupt):
            await remake(database)
        assert await memory.get(row_key(JOBS, ("acme", "j3"))) is not None
        file.unlink()
        with pytest.raises(
            Corrupt, match=r"the log begins with event 2[12], .* files of it are missing, bring them back"
        ):
            await open_it()

    run(story())


def test_who_verifies_is_not_misled_by_an_erasure_that_ends_meanwhile(tmp_path):
    async def story():
        clock = Clock()
        async with serving(archived(MemoryDatabase(), tmp_path), clock=clock) as shard:
            await some_jobs(shard, 0)
            clock.now_ms += DAYS_KEPT
            await keep_archive(shard, DAYS_KEPT)
            await shard.execute(cancel, JobName("acme", "j3"))
            verifying = asyncio.create_task(verify_beside(shard, Progress()))
            await turns()
            await shard.execute(erase, JobName("acme", "j3"))
            erasing = asyncio.create_task(
                carry_out(shard, await shard.execute(next_erasures, 1), maker=Here())
            )
            assert await verifying is None
            await erasing
            assert await verify_beside(shard, Progress()) is None

    run(story())


def test_erasures_do_not_keep_the_log_from_being_cut(tmp_path):
    async def story():
        clock = Clock()
        async with serving(archived(MemoryDatabase(), tmp_path), clock=clock) as shard:
            for day in range(8):
                await some_jobs(shard, day, 1)
                await shard.execute(cancel, JobName("acme", f"j{day}"))
                await shard.execute(erase, JobName("acme", f"j{day}"))
                while erasures := await shard.execute(next_erasures, 10):
                    await carry_out(shard, erasures, maker=Here())
                await keep_archive(shard, 3 * DAY_MS)
                clock.now_ms += DAY_MS
            assert shard.database.live_seq > 10
            assert await verify_beside(shard, Progress()) is None

    run(story())


def test_a_shard_that_was_opened_anew_meanwhile_gets_nothing_of_what_was_read_before(tmp_path):
    class Slow(Here):
        async def events(self, *args):
            await super().events(*args)
            shard = self.shard
            await shard.close()
            await shard.open()

    async def story():
        async with serving(archived(MemoryDatabase(), tmp_path), clock=Clock()) as shard:
            await some_jobs(shard, 0, 2)
            maker = Slow()
            maker.shard = shard
            with pytest.raises(SiloError):
                await keep_archive(shard, None, maker=maker)
            assert shard.database.archive.stretches == ()

    run(story())


def test_a_maker_that_ends_too_soon_says_why(tmp_path):
    async def records():
        for seq in range(1, 100):
            yield [(record_key(seq), b"\x91" + bytes(100_000))]

    async def story():
        text = "the file of the events 1 to 99 could not be made: .*event 1 cannot be decoded"
        with pytest.raises(Corrupt, match=text):
            await InChild().events(
                Archive(OnDisk(tmp_path, fsync=False)), Stretch(1, 99), records(), tmp_path / "file"
            )

    run(story())


def test_a_maker_that_nobody_waits_for_is_ended(tmp_path):
    async def records():
        yield []
        await asyncio.sleep(IN_S)

    async def story():
        maker = InChild().events(
            Archive(OnDisk(tmp_path, fsync=False)), Stretch(1, 9), records(), tmp_path / "file"
        )
        making = asyncio.create_task(maker)
        await asyncio.sleep(0.05)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making

    run(story())


def test_the_same_on_slatedb(tmp_path):
    async def story():
        clock, spec = Clock(), StoreSpec(backend="fs", path=f"{tmp_path}/%shard%")

        async def open_it():
            return await with_archive(
                await open_database(spec, "shard"), Archive(OnDisk(tmp_path / "a", fsync=True))
            )

        async with serving(open_it, clock=clock) as shard:
            await some_jobs(shard, 0)
            await keep_archive(shard, DAYS_KEPT)
            clock.now_ms += DAYS_KEPT
            await some_jobs(shard, 10)
            before = await all_events(shard)
            progress = Progress()
            await keep_archive_by_a_child(shard, DAYS_KEPT, progress=progress, image=True)
            assert shard.database.live_seq > 1
        async with serving(open_it, clock=clock) as shard:
            assert shard.database.live_seq > 1
            assert (await all_events(shard))[:-1] == before
            assert await verify_beside(shard, Progress()) is None

    run(story())


ARCHIVING = st.tuples(st.just("archive"), st.booleans(), st.sampled_from([0, 0, 20_000, None]))


class ArchivingWorld(World):
    """The same, and now and then everything is archived."""

    async def step(self, kind: str, *about) -> None:
        if kind == "archive":
            image, retention_ms = about
            await keep_archive(self.shard, retention_ms, image=image)
        else:
            await super().step(kind, *about)


async def live_through(steps, directory: Path) -> None:
    world = ArchivingWorld(archived(MemoryDatabase(), directory))
    await world.open()
    try:
        for step in steps:
            await world.step(*step)
            await world.check_step()
        await world.check()
        await world.step("reopen")
        await world.check()
        events = await all_events(world.shard)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        await world.shard.checkpoint()
        live = await world.shard.database.snapshot()
        last = events[-1].seq
        # From the image at the cut, if there is one, and from the first event.
        assert await verify(live, MemoryDatabase(), base=await base_of(live, last)) is None
        assert await verify(live, MemoryDatabase()) is None
        live.release()
    finally:
        await world.shard.close()


@settings(max_examples=60, deadline=None, suppress_health_check=quiet)
@given(st.lists(st.one_of(STEPS, STEPS, ARCHIVING), min_size=20, max_size=60))
def test_whatever_is_archived_and_cut_rows_follow_from_what_is_left_and_from_all_of_it(steps):
    with tempfile.TemporaryDirectory() as directory:
        run(live_through(steps, Path(directory)))


def test_it_is_done_when_it_is_due(tmp_path, monkeypatch):
    monkeypatch.setattr(archiving, "EVENTS_WORTH_AN_IMAGE", 10)

    async def story():
        clock = Clock()
        async with serving(archived(MemoryDatabase(), tmp_path), clock=clock) as shard:
            archive = shard.database.archive
            await some_jobs(shard, 0, 3)
            clock.now_ms += DAY_MS - 1
            await some_jobs(shard, 3)
            assert not await archiving.is_due(shard, archive)
            clock.now_ms += 1
            assert await archiving.is_due(shard, archive)
            assert (await keep_archive(shard, None, image=None)).image_seq > 0
            await some_jobs(shard, 13)
            assert not await archiving.is_due(shard, archive)
            clock.now_ms += DAY_MS
            assert await archiving.is_due(shard, archive)
            await keep_archive(shard, None, image=None)
            clock.now_ms += DAY_MS
            assert not await archiving.is_due(shard, archive)
            monkeypatch.setattr(archiving, "EVENTS_PER_FILE", 5)
            await some_jobs(shard, 23, 3)
            assert await archiving.is_due(shard, archive)
            images = archive.images
            assert (await keep_archive(shard, None, image=None)).last_seq == shard.log.durable_seq
            assert archive.images == images

    run(story())


def test_who_stops_it_while_events_are_sealed_is_heard_and_what_is_there_stays(tmp_path):
    class StopsAtTheSecondFile(Here):
        files = 0

        async def events(self, *args):
            self.files += 1
            if self.files == 2:
                progress.stop()
            await super().events(*args)

    progress = Progress()

    async def story():
        async with serving(archived(MemoryDatabase(), tmp_path), clock=Clock()) as shard:
            await some_jobs(shard, 0)
            database, archive = shard.database, shard.database.archive
            await shard.checkpoint()
            with pytest.raises(Stopped):
                await seal_events(
                    archive, database, 11, progress, StopsAtTheSecondFile(), database.check, per_file=5
                )
            assert archive.last_seq == 5
            assert progress.total == 11
            assert (await keep_archive(shard, None)).last_seq == shard.log.durable_seq

    run(story())
