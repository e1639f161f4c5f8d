"""Durability against power cuts, on a local disk.

SlateDB's local store never calls fsync, so what it calls durable survives a killed process, but perhaps not a
power cut. `LocalSyncing` adds what is missing, in two parts.

The log: before a write is acknowledged, its new WAL objects are fsynced, oldest first, and then their
directory.  WAL objects are numbered without gaps, so the new ones are found by counting on.

The rest (SSTs, manifests) need not be durable soon, as the log has everything; but nothing may be *deleted*
before what replaces it is durable.  Age is no help: a manifest makes the log of a whole quiet night
superfluous at once.  So `rest` does three things in this order:

    1. pin     create a checkpoint in the database.  SlateDB keeps all files of a checkpoint's manifest.
    2. sync    fsync all files and directories of the database; the pinned manifest and its files are among
    them. 3. unpin   delete the checkpoints of earlier rounds, and the WAL objects that the pinned manifest has
    no need of.

Between two rounds the files of the last pinned manifest stay, however many manifests are written and
compactions are run meanwhile, and so does every WAL object after it: SlateDB's own collector of WAL objects
is turned off (it does not heed checkpoints, and deletes what the newest manifest does not need, durable or
not).  Hence at every moment the disk has, durably, one manifest, its files, and the whole log after it.  How
often a round runs decides only how much old stuff lies about.

A process that was fenced learns of it late, so its round may come when its successor has pinned and deleted
already.  It must then delete nothing that the successor counts on.  A manifest names the epoch of its writer:
a round goes on only if nobody had opened the database anew when its manifest was pinned.  Every manifest of
the successor is newer than that one, so what that one has no need of the successor has no need of either.

If only the log is on a local disk, a round does no more than note how far the log is durable.

What a power cut leaves beside that may be torn; powercut.py removes it when the database is opened next.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from silo.errors import Fenced, StoreFailed
from silo.storage import powercut
from silo.storage.ffi import generated

_log = logging.getLogger(__name__)

_ROUND_S = 5
# A process that is just opening the database may want WAL objects that the manifest it read still needed.
_WAL_MIN_AGE_S = 10
_PIN = "silo-durable"

# fsync blocks for milliseconds: in threads, and not in those of asyncio, which may all be busy.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="silo-fsync")


class Syncing:
    """Does nothing: for stores that are durable by themselves, and for `fsync = false`."""

    async def start(self) -> None:
        """Right after opening: what the shard replays it will build on, so make that durable first."""

    async def wal(self) -> None:
        """Make all WAL objects durable that exist at the call."""

    async def rest(self) -> None:
        """Make everything durable, and let go of what that makes superfluous.  Raises Fenced."""

    async def stop(self) -> None:
        """Nothing runs in the background after this."""


class LocalSyncing(Syncing):
    """Makes one open database durable.

    Args:
        home: its directory, or None if only the log is on a local disk.
        wal: the directory of the log.
        epoch: of this opening of the database, one more than that of the one before.
    """

    def __init__(self, admin: Any, *, home: Path | None, wal: Path, epoch: int) -> None:
        self._admin = admin
        self._home = home
        self._epoch = epoch
        self._log_files = LogFiles(wal)
        self._synced: set[str] = set()
        self._round: asyncio.Task[None] | None = None
        self._one_round = asyncio.Lock()

    async def start(self) -> None:
        manifest = await self._admin.read_manifest(None)
        if manifest.writer_epoch != self._epoch:
            # Which of the openings is ours, nobody tells.
            raise StoreFailed("the store failed: several processes have opened this shard at the same moment")
        await _in_thread(lambda: self._log_files.sync_all(after=manifest.replay_after_wal_id))
        await _in_thread(lambda: _sync_directories(self._log_files.directory.parents))
        await self.rest()

    async def wal(self) -> None:
        await _in_thread(self._log_files.sync_new)
        if self._round is None:
            self._round = asyncio.create_task(self._rest_later(), name="storage fsync")

    async def _rest_later(self) -> None:
        try:
            await asyncio.sleep(_ROUND_S)
            await self.rest()
        except Fenced:
            # The database finds that out by itself and tells its owner.
            _log.info("this process was fenced, so it forces nothing more to the disk")
        except (generated.Error, generated.InternalError, OSError) as reason:
            # Nothing is at risk, as nothing was deleted; the next write starts another round.
            _log.warning("a round of fsync failed, it will be tried again: %s", reason)
        finally:
            self._round = None

    async def rest(self) -> None:
        home = self._home
        async with self._one_round:
            if home is None:
                # A bucket is durable by itself, so SlateDB's own collector of WAL objects is right there.
                await self._record(None, None)
                return
            pinned = await self._admin.create_detached_checkpoint(
                generated.CheckpointOptions(lifetime_ms=None, source=None, name=_PIN)
            )
            manifest = await self._admin.read_manifest(pinned.manifest_id)
            if manifest.writer_epoch != self._epoch:
                await self._admin.delete_checkpoint(pinned.id)
                raise Fenced
            compactions = await self._admin.read_compactions(None)
            await _in_thread(lambda: self._sync_tree(home))
            await self._record(manifest.id, compactions.id if compactions else None)
            for checkpoint in await self._admin.list_checkpoints(_PIN):
                # Not what a successor has pinned meanwhile.
                if checkpoint.manifest_id <= pinned.manifest_id and checkpoint.id != pinned.id:
                    await self._admin.delete_checkpoint(checkpoint.id)
            await _in_thread(lambda: self._log_files.delete_until(manifest.replay_after_wal_id))

    async def stop(self) -> None:
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait([self._round])

    def _sync_tree(self, home: Path) -> None:
        found: set[str] = set()
        directories = [home, *(() if self._synced else home.parents)]
        for folder, folders, files in os.walk(home):
            if Path(folder) == self._log_files.directory:
                continue
            directories += [Path(folder, name) for name in folders]
            # Objects never change once they have their name; "x#1" is one that is still being written.
            found.update(
                os.path.join(folder, name)
                for name in files
                if "#" not in name and not name.startswith(powercut.RECORD)
            )
        _sync_files(found - self._synced)
        _sync_directories(directories)
        self._synced = found

    async def _record(self, manifest_id: int | None, compactions_id: int | None) -> None:
        home = self._home or self._log_files.directory.parent
        record = powercut.Record(
            manifest_id=manifest_id, compactions_id=compactions_id, wal_id=self._log_files.newest
        )
        await _in_thread(lambda: powercut.write(home, self._epoch, record))


class LogFiles:
    """The WAL objects in a directory.  Runs in worker threads; only one of them syncs at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.newest = 0
        """All objects up to this number are durable."""

    def sync_new(self) -> None:
        if not self._count_on():
            # There must be a new one; if the numbers have a gap after all, look at everything.
            self.sync_all(after=self.newest)
        _sync_directories([self.directory])

    def _count_on(self) -> bool:
        start = self.newest
        while True:
            try:
                _sync(self.directory / f"{self.newest + 1:020}.sst")
            except FileNotFoundError:
                return self.newest > start
            self.newest += 1

    def sync_all(self, *, after: int) -> None:
        self.newest = max(self.newest, after)
        for number in sorted(number for number in wal_numbers(self.directory) if number > after):
            _sync(self.directory / f"{number:020}.sst")
            self.newest = number
        _sync_directories([self.directory])

    def delete_until(self, last: int) -> None:
        """Delete what is not needed, except the empty objects.  Those are fences: as long as its next number
        is taken, a writer that was asleep while another one took over cannot write."""
        too_young = time.time() - _WAL_MIN_AGE_S
        for number in wal_numbers(self.directory):
            path = self.directory / f"{number:020}.sst"
            if number <= last and (about := path.stat()).st_size and about.st_mtime < too_young:
                path.unlink()


def wal_numbers(directory: Path) -> list[int]:
    """The numbers of the WAL objects in the directory, in no order."""
    names = (name.removesuffix(".sst") for name in os.listdir(directory) if name.endswith(".sst"))
    return [int(name) for name in names if name.isdigit()]


async def _in_thread(work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(_threads, work)


def _sync_files(paths: Iterable[str]) -> None:
    for path in sorted(paths):
        try:
            _sync(path)
        except FileNotFoundError:
            # Deleted by the collector since: then no pinned manifest needs it.
            continue


def _sync_directories(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            _sync(path)
        except (FileNotFoundError, PermissionError):
            # A directory above the data that we may not read was not made by us.
            continue


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
