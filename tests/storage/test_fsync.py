"""What is fsynced when, and that a power cut at any moment loses nothing that was acknowledged.

A power cut is played: the recorder knows which files and which directory entries were fsynced; everything else is torn,
emptied, lost or kept by chance, and the machine has another boot id afterwards.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest

from silo.errors import Fenced, StoreFailed
from silo.storage import fsync, powercut, slate
from silo.storage.stores import StoreSpec, delete_database, open_database

# Small files and eager background work: many manifests, compactions and collections in a short test.
BUSY = {
    "l0_sst_size_bytes": 20_000,
    "compactor_options": {"poll_interval": "20ms", "worker": {"compactions_poll_interval": "20ms"}},
    "garbage_collector_options": {
        kind: {"interval": "50ms", "min_age": "1ms"}
        for kind in ("compacted_options", "manifest_options", "compactions_options")
    },
}


def run(main):
    return asyncio.run(asyncio.wait_for(main, 60))


# In a bucket SlateDB collects its log by itself.
COLLECTING = BUSY | {
    "garbage_collector_options": {
        **BUSY["garbage_collector_options"],
        "wal_options": {"interval": "20ms", "min_age": "300ms"},
    }
}


class Disk:
    """Records every fsync, as the state of the world that it makes durable."""

    def __init__(self, root: Path, monkeypatch) -> None:
        self.root = root
        self.files: set[int] = set()
        self.entries: dict[Path, set[str]] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_dir():
            self.entries.setdefault(path, set()).update(os.listdir(path))
        else:
            self.files.add(os.fstat(handle).st_ino)
        self._fsync(handle)

    def has(self, path: Path) -> bool:
        """Whether the file would be there, whole, after a power cut."""
        inside = [path, *(parent for parent in path.parents if parent.is_relative_to(self.root))]
        named = all(part.name in self.entries.get(part.parent, ()) for part in inside)
        return named and path.stat().st_ino in self.files

    def after_a_power_cut(self, elsewhere: Path, chance: random.Random) -> None:
        for path in sorted(path for path in self.root.rglob("*") if path.is_file()):
            copy = elsewhere / path.relative_to(self.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                whole, durable = path.read_bytes(), self.has(path)
            except FileNotFoundError:
                # SlateDB's threads go on meanwhile and have deleted it.  No round of fsync ends during this loop, so
                # nothing that was pinned when it began can be missing.
                continue
            fate = "kept" if durable else chance.choice(["kept", "lost", "empty", "torn", "zeros"])
            match fate:
                case "kept":
                    copy.write_bytes(whole)
                case "empty":
                    copy.write_bytes(b"")
                case "torn":
                    copy.write_bytes(whole[: len(whole) // 2])
                case "zeros":
                    copy.write_bytes(b"\x00" * len(whole))


def spec(root: Path, *, separate_wal: bool = False, **more) -> StoreSpec:
    wal = StoreSpec(backend="fs", path=f"{root}/wal/%shard%") if separate_wal else None
    return StoreSpec(backend="fs", path=f"{root}/main/%shard%", wal=wal, **more)


def in_a_bucket(root: Path, **more) -> StoreSpec:
    """The log on a local disk, the rest in a store that needs no fsync."""
    return StoreSpec.in_memory(wal=StoreSpec(backend="fs", path=f"{root}/wal/%shard%"), **more)


async def put(database, key: bytes, value: bytes = b"v") -> None:
    batch = database.batch()
    batch.put(key, value)
    await database.write(batch)


def wal_files(root: Path) -> list[Path]:
    return sorted(root.rglob("wal/*.sst"))


@pytest.mark.parametrize("separate_wal", [False, True])
def test_a_write_returns_after_its_log_is_on_the_disk(tmp_path, monkeypatch, separate_wal):
    disk = Disk(tmp_path, monkeypatch)

    async def write():
        database = await open_database(spec(tmp_path, separate_wal=separate_wal), "s1")
        assert all(disk.has(path) for path in wal_files(tmp_path))
        for number in range(20):
            await put(database, b"k%d" % number)
            assert all(disk.has(path) for path in wal_files(tmp_path))
        await asyncio.gather(*(put(database, b"k%d" % number) for number in range(20, 40)))
        assert all(disk.has(path) for path in wal_files(tmp_path))
        await database.close()

    run(write())
    assert len(wal_files(tmp_path)) > 20


def test_without_fsync_nothing_is_synced(tmp_path, monkeypatch):
    disk = Disk(tmp_path, monkeypatch)

    async def write():
        database = await open_database(spec(tmp_path, fsync=False), "s1")
        await put(database, b"k")
        await database.flush()
        await database.close()

    run(write())
    assert not disk.files
    assert not disk.entries


def test_a_flush_puts_everything_on_the_disk(tmp_path, monkeypatch):
    disk = Disk(tmp_path, monkeypatch)

    async def write():
        database = await open_database(spec(tmp_path), "s1")
        await put(database, b"k")
        await database.flush()
        assert all(disk.has(path) for path in tmp_path.rglob("*.sst"))
        record = powercut.read(tmp_path / "main/s1")
        assert record is not None
        assert record.manifest_id is not None
        manifests = [path for path in tmp_path.rglob("*.manifest") if int(path.stem) <= record.manifest_id]
        assert manifests
        assert all(disk.has(path) for path in manifests)
        await database.close()

    run(write())


def test_the_log_is_deleted_when_it_is_superfluous_and_fences_never(tmp_path, monkeypatch):
    monkeypatch.setattr(fsync, "_WAL_MIN_AGE_S", -1)

    async def write():
        database = await open_database(spec(tmp_path), "s1")
        for number in range(20):
            await put(database, b"k%d" % number)
        before = wal_files(tmp_path)
        fences = {path for path in before if path.stat().st_size == 0}
        # What only the log has stays.
        await database._syncing.rest()
        assert wal_files(tmp_path)[-20:] == before[-20:]
        await database.flush()
        left = wal_files(tmp_path)
        assert fences
        assert fences <= set(left)
        assert len(left) <= len(fences) + 1
        await database.abandon()
        database = await open_database(spec(tmp_path), "s1")
        assert len(await database.scan(b"k", b"l", limit=100)) == 20
        await database.close()

    run(write())


def test_rounds_come_by_themselves_after_writes_and_not_when_idle(tmp_path, monkeypatch):
    monkeypatch.setattr(fsync, "_ROUND_S", 0)

    async def write():
        database = await open_database(spec(tmp_path), "s1")
        assert database._syncing._round is None
        record = powercut.read(tmp_path / "main/s1")
        await put(database, b"k")
        await asyncio.wait([database._syncing._round])
        assert powercut.read(tmp_path / "main/s1").wal_id > record.wal_id
        assert database._syncing._round is None
        await database.close()

    run(write())


def test_a_failing_fsync_is_a_failure_of_the_store(tmp_path, monkeypatch):
    async def write():
        database = await open_database(spec(tmp_path), "s1")

        def broken(handle):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(StoreFailed, match="Input/output error"):
                await put(database, b"k")
        await database.abandon()

    run(write())


@pytest.mark.parametrize("place", ["one disk", "two disks", "bucket"])
@pytest.mark.parametrize("seed", range(6))
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path, monkeypatch, seed, place):
    chance = random.Random(seed)
    monkeypatch.setattr(fsync, "_WAL_MIN_AGE_S", -1)
    acknowledged: dict[bytes, bytes] = {}
    world = tmp_path / "0"
    if place == "bucket":
        where = in_a_bucket(world, slatedb=COLLECTING)
    else:
        where = spec(world, separate_wal=place == "two disks", slatedb=BUSY)

    async def write(database) -> None:
        for _ in range(chance.randrange(30, 120)):
            key, value = b"k%03d" % chance.randrange(300), chance.randbytes(chance.randrange(2_000))
            await put(database, key, value)
            acknowledged[key] = value
            if chance.random() < 0.03:
                await database._syncing.rest()
            if chance.random() < 0.02:
                await database.flush()

    async def live(generation: int) -> None:
        nonlocal world
        monkeypatch.setattr(powercut, "boot_id", lambda: f"boot {generation}")
        with monkeypatch.context() as patch:
            disk = Disk(world, patch)
            database = await open_database(where, "s1")
            found = dict(await database.scan(b"k", b"l", limit=1_000))
            assert {key: found.get(key) for key in acknowledged} == acknowledged
            acknowledged.update(found)
            await write(database)
            # The power goes off in the middle of a write.
            last = asyncio.create_task(put(database, b"k999", chance.randbytes(50)))
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            after = tmp_path / str(generation + 1)
            disk.after_a_power_cut(after, chance)
            await asyncio.wait([last])
            await database.abandon()
        acknowledged.pop(b"k999", None)
        shutil.rmtree(world)
        # The WAL store's place is recorded in the database, so the new world must be where the old one was.
        after.rename(world)

    world.mkdir()
    for generation in range(4):
        run(live(generation))


def test_after_a_mere_crash_nothing_is_set_aside(tmp_path):
    async def crash():
        for _ in range(2):
            database = await open_database(spec(tmp_path), "s1")
            await put(database, b"k")
            await database.abandon()

    run(crash())
    assert not list(tmp_path.rglob("torn"))


def test_a_record_is_not_trusted_after_a_time_without_fsync(tmp_path, monkeypatch):
    async def switch():
        for turned_on in (True, False, True):
            database = await open_database(spec(tmp_path, fsync=turned_on), "s1")
            await put(database, b"k%d" % turned_on)
            await database.flush()
            await database.close()
            if not turned_on:
                monkeypatch.setattr(powercut, "boot_id", lambda: "another boot")
                assert powercut.read(tmp_path / "main/s1") is None

    run(switch())
    assert not list(tmp_path.rglob("torn"))


@pytest.mark.parametrize("damage", ["empty", "missing"])
def test_after_a_gap_in_the_log_nothing_counts(tmp_path, monkeypatch, damage):
    """One flush may have made several WAL objects, none acknowledged, and the power cut spared only the later ones."""

    async def leave_a_gap():
        database = await open_database(spec(tmp_path), "s1")
        for number in range(3):
            await put(database, b"k%d" % number)
        await database.abandon()
        second = wal_files(tmp_path)[-2]
        if damage == "empty":
            second.write_bytes(b"")
        else:
            second.unlink()
        monkeypatch.setattr(powercut, "boot_id", lambda: "another boot")
        database = await open_database(spec(tmp_path), "s1")
        assert await database.scan(b"k", b"l", limit=9) == [(b"k0", b"v")]
        await put(database, b"k1", b"anew")
        await database.abandon()
        database = await open_database(spec(tmp_path), "s1")
        assert await database.scan(b"k", b"l", limit=9) == [(b"k0", b"v"), (b"k1", b"anew")]
        await database.close()

    run(leave_a_gap())


def test_what_the_collector_deleted_is_no_tear(tmp_path, monkeypatch):
    """With the main store in a bucket, SlateDB deletes old WAL objects, and a power cut may bring some of them back."""

    async def collect():
        where = in_a_bucket(tmp_path, slatedb=COLLECTING)
        database = await open_database(where, "s1")
        for number in range(5):
            await put(database, b"k%d" % number)
        old = {path: path.read_bytes() for path in wal_files(tmp_path)}
        # As SlateDB does by itself when its memory is full: we do not hear of it, so nothing is recorded.
        await database._db.flush_with_options(slate._FLUSH_MEMTABLE)
        for _ in range(500):
            if len(wal_files(tmp_path)) <= 2:
                break
            await asyncio.sleep(0.02)
        for number in range(5, 8):
            await put(database, b"k%d" % number)
        await database.abandon()
        back = sorted(old)[-3]
        assert not back.exists()
        back.write_bytes(old[back])
        monkeypatch.setattr(powercut, "boot_id", lambda: "another boot")
        database = await open_database(where, "s1")
        assert [key for key, _ in await database.scan(b"k", b"l", limit=9)] == [b"k%d" % n for n in range(8)]
        await database.close()

    run(collect())
    assert not list(tmp_path.rglob("torn"))


def test_a_gap_right_after_the_record_is_a_tear_if_the_manifest_needs_what_is_missing(tmp_path, monkeypatch):
    async def leave_a_gap():
        where = in_a_bucket(tmp_path)
        database = await open_database(where, "s1")
        first = len(wal_files(tmp_path))
        await put(database, b"k0")
        await put(database, b"k1")
        await database.abandon()
        wal_files(tmp_path)[first].unlink()
        monkeypatch.setattr(powercut, "boot_id", lambda: "another boot")
        database = await open_database(where, "s1")
        assert await database.scan(b"k", b"l", limit=9) == []
        await put(database, b"k0", b"anew")
        await database.abandon()
        database = await open_database(where, "s1")
        assert await database.scan(b"k", b"l", limit=9) == [(b"k0", b"anew")]
        await database.close()

    run(leave_a_gap())
    assert len(list(tmp_path.rglob("torn/*.sst"))) == 1


def test_the_record_keeps_up_with_a_log_beside_a_bucket(tmp_path, monkeypatch):
    monkeypatch.setattr(fsync, "_ROUND_S", 0)

    async def write():
        database = await open_database(in_a_bucket(tmp_path), "s1")
        [record] = tmp_path.rglob(f"{powercut.RECORD}.*")
        before = powercut.read(record.parent).wal_id
        await put(database, b"k")
        await asyncio.wait([database._syncing._round])
        assert powercut.read(record.parent).wal_id > before
        await database.close()

    run(write())


# ---- a process that was fenced and does not know it yet


class Held:
    """Holds one coroutine function up: it waits at its beginning until it is let go."""

    def __init__(self, wrapped) -> None:
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()
        self._wrapped = wrapped

    async def __call__(self, *arguments):
        self.arrived.set()
        await self.go_on.wait()
        return await self._wrapped(*arguments)


class HeldAdmin:
    """The administration of a database, held up at one of its calls."""

    def __init__(self, admin, step: str) -> None:
        self._admin = admin
        self.held = Held(getattr(admin, step))
        setattr(self, step, self.held)

    def __getattr__(self, name):
        return getattr(self._admin, name)


# What its last round is about to do when the successor opens the database.
STEPS = ["create_detached_checkpoint", "read_manifest", "_record", "list_checkpoints"]


@pytest.mark.parametrize("step", STEPS)
def test_the_last_round_of_a_fenced_process_undoes_nothing(tmp_path, monkeypatch, step):
    monkeypatch.setattr(fsync, "_WAL_MIN_AGE_S", -1)
    where = spec(tmp_path)

    async def take_over():
        stale = await open_database(where, "s1")
        await put(stale, b"old")
        syncing = stale._syncing
        if step == "_record":
            held = syncing._record = Held(syncing._record)
        else:
            syncing._admin = HeldAdmin(syncing._admin, step)
            held = syncing._admin.held
        last_round = asyncio.create_task(syncing.rest())
        await held.arrived.wait()

        fresh = await open_database(where, "s1")
        await put(fresh, b"new")
        # Now the tree has both rows, durably, and the log has neither.
        await fresh.flush()
        held.go_on.set()
        await asyncio.wait([last_round])
        assert isinstance(last_round.exception(), Fenced | None)
        pins = await fresh._admin.list_checkpoints(fsync._PIN)
        record = powercut.read(tmp_path / "main/s1")
        assert record.manifest_id in [pin.manifest_id for pin in pins]
        await stale.abandon()
        await fresh.abandon()

        monkeypatch.setattr(powercut, "boot_id", lambda: "another boot")
        database = await open_database(where, "s1")
        assert [key for key, _ in await database.scan(b"a", b"z", limit=9)] == [b"new", b"old"]
        await database.close()

    run(take_over())


def test_a_process_that_was_fenced_is_told_so_when_it_flushes(tmp_path):
    async def flush():
        stale = await open_database(spec(tmp_path), "s1")
        fresh = await open_database(spec(tmp_path), "s1")
        with pytest.raises(Fenced):
            await stale.flush()
        with pytest.raises(Fenced):
            stale.check()
        await stale.abandon()
        await fresh.close()

    run(flush())


def test_of_several_records_that_of_the_last_opening_counts(tmp_path):
    def record(wal_id):
        return powercut.Record(manifest_id=None, compactions_id=None, wal_id=wal_id)

    powercut.write(tmp_path, 9, record(90))
    powercut.write(tmp_path, 10, record(100))
    assert [path.name for path in tmp_path.iterdir()] == ["silo.durable.10"]
    powercut.write(tmp_path, 9, record(95))
    assert powercut.read(tmp_path) == record(100)
    powercut.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_without_an_epoch_counts_until_there_is_another(tmp_path):
    old = powercut.Record(manifest_id=1, compactions_id=None, wal_id=1)
    powercut.write(tmp_path, 0, old)
    (tmp_path / "silo.durable.0").rename(tmp_path / "silo.durable")
    assert powercut.read(tmp_path) == old
    powercut.write(tmp_path, 1, powercut.Record(manifest_id=2, compactions_id=None, wal_id=2))
    assert [path.name for path in tmp_path.iterdir()] == ["silo.durable.1"]


@pytest.mark.parametrize("beside_a_bucket", [False, True])
def test_a_new_database_does_not_trust_the_record_of_one_that_was_deleted(tmp_path, beside_a_bucket):
    async def make_anew():
        where = (in_a_bucket if beside_a_bucket else spec)(tmp_path)
        for _ in range(3):
            await (await open_database(where, "s1")).close()
        await delete_database(where, "s1")
        database = await open_database(where, "s1")
        [record] = tmp_path.rglob(f"{powercut.RECORD}*")
        assert record.name == "silo.durable.1"
        await database.close()

    run(make_anew())


def test_an_opening_that_cannot_tell_its_epoch_gives_up(tmp_path, monkeypatch):
    async def open_at_once():
        built = fsync.LocalSyncing.start

        async def after_another_one(self):
            monkeypatch.setattr(fsync.LocalSyncing, "start", built)
            await open_database(spec(tmp_path), "s1")
            await self.start()

        monkeypatch.setattr(fsync.LocalSyncing, "start", after_another_one)
        with pytest.raises(StoreFailed, match="several processes have opened this shard at the same moment"):
            await open_database(spec(tmp_path), "s1")

    run(open_at_once())
