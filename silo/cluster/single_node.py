"""Where does a node that is its own cluster keep its shard map?

Beside its data, as `cluster/shard-map.json` under the part of the database path that all shards share.  The
first start makes the map, every later one finds it, so that a restart finds the shards that hold the jobs.

The map is only ever created, never overwritten, and that is all the coordination that there is.  Nodes that
start at once on the same data each make a map with shards of their own; one creates the object, the others
are told that it exists, throw theirs away and read the winner's.  (That they then fence each other from the
shards is storage's affair.)  A crash leaves the whole map or none: an object store's put is atomic, and on a
disk the file gets its name only when its content is safe.
"""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import MemoryStore, ObjectStore

from silo.cluster.shard_map import ShardMap
from silo.errors import StoreFailed
from silo.settings import Database
from silo.storage.objects import first_line, object_store

KEY = "cluster/shard-map.json"


class MapStore(Protocol):
    """One object that is created once and then only read.  Both methods raise StoreFailed."""

    async def read(self) -> bytes | None:
        """The object's content, None if there is none yet."""

    async def create(self, content: bytes) -> bool:
        """Makes the object, durably; False if there is one already, which is then left as it is."""


@attrs.frozen
class FoundMap:
    """The map that the node serves, and sentences for the operator about what it was asked to be instead."""

    shards: ShardMap
    warnings: tuple[str, ...] = ()


async def find_or_create(
    store: MapStore, *, initial_shard_count: int, created_at_ms: int, new_id: Callable[[], str]
) -> FoundMap:
    """The stored map; on the first start a new one with `initial_shard_count` shards, stored before it is
    returned.

    Raises StoreFailed if the store does not answer, and Corrupt if what it holds is no map.
    """
    stored = await store.read()
    if stored is None:
        made = ShardMap.initial(initial_shard_count, created_at_ms=created_at_ms, new_id=new_id)
        if await store.create(made.to_json()):
            return FoundMap(made)
        stored = await store.read()
        if stored is None:
            raise StoreFailed("shard map: the store says that it exists and that it does not")

    shards = ShardMap.from_json(stored)
    return FoundMap(shards, tuple(_second_thoughts(len(shards.shards), initial_shard_count)))


def beside(database: Database) -> MapStore:
    """The place of the map that belongs to this database.

    With backend `memory` it lasts as long as the process, as the shards do, and is told apart by its path.
    Raises ConfigError if the store's URL or options cannot be used.
    """
    template = database.template
    if template.kind == "fs":
        return OnDisk(Path(template.root) / KEY, fsync=database.fsync)
    if template.kind == "memory":
        return InObjectStore(_memory(template.root))
    return InObjectStore(object_store(template.root, database.options, "[database]"))


def _second_thoughts(stored_count: int, initial_shard_count: int) -> list[str]:
    if stored_count == initial_shard_count:
        return []
    asked = f"coordination.initial_shard_count = {initial_shard_count}"
    return [f"the cluster has {stored_count} shards and keeps them: {asked} counts only for a new cluster"]


# --- on a local disk ----------------------------------------------------------------------------------------


class OnDisk:
    """The map as a file.  Not through obstore, whose local store never forces anything to the disk."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path.absolute()
        self._fsync = fsync

    async def read(self) -> bytes | None:
        return await asyncio.to_thread(self._read)

    async def create(self, content: bytes) -> bool:
        return await asyncio.to_thread(self._create, content)

    def _read(self) -> bytes | None:
        try:
            content = self._path.read_bytes()
            # Whoever created the file may have died before its name was safe; shards must not outlive their
            # map.
            self._sync_directory(self._path.parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreFailed(f"shard map {self._path}: {error.strerror}") from error
        return content

    def _create(self, content: bytes) -> bool:
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            self._make_directory()
            self._write(draft, content)
            # A link, as it refuses a name that is taken; a rename would overwrite another node's map.
            os.link(draft, self._path)
            self._sync_directory(self._path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreFailed(f"shard map {self._path}: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _make_directory(self) -> None:
        new = [directory for directory in self._path.parents if not directory.exists()]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for directory in new:
            self._sync_directory(directory.parent)

    def _write(self, draft: Path, content: bytes) -> None:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            if self._fsync:
                os.fsync(file.fileno())

    def _sync_directory(self, directory: Path) -> None:
        """Makes the names in the directory safe."""
        if not self._fsync:
            return
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


# --- in an object store -------------------------------------------------------------------------------------


class InObjectStore:
    """The map as an object."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self) -> bytes | None:
        try:
            found = await obstore.get_async(self._store, KEY)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreFailed(f"shard map {KEY}: {first_line(error)}") from error

    async def create(self, content: bytes) -> bool:
        try:
            await obstore.put_async(self._store, KEY, content, mode="create")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise StoreFailed(f"shard map {KEY}: {first_line(error)}") from error
        return True


@functools.cache
def _memory(path: str) -> MemoryStore:
    """One store a path for the life of the process, so that a node which starts again finds its shards."""
    return MemoryStore()
