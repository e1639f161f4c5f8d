"""From configuration to an open database: which object store, where in it, with which log (WAL) store.

A shard that keeps its log in a store of its own must never be opened without it: SlateDB would succeed,
silently forget every acknowledged write that only the log had, and not find it again later.  SlateDB does not
record the log's store, so we do, in a row of the shard that is flushed to the main store before the first
`open_database` returns.  Each later opening reads that row first, through a reader that ignores the log, and
refuses to go on with another one.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from silo.errors import ConfigError, StoreFailed
from silo.storage import powercut
from silo.storage.ffi import generated
from silo.storage.fsync import LocalSyncing, Syncing
from silo.storage.settings import merged, settings
from silo.storage.slate import Failures, SlateDatabase, named

Backend = Literal["fs", "memory", "s3", "gcs", "azure", "url"]


@attrs.frozen(kw_only=True)
class StoreSpec:
    """Where the databases of all shards are, as configured."""

    backend: Backend
    path: str
    """A directory, a URL (s3://bucket/silo/%shard%), or a path in the bucket that `options` or the
    environment names. Contains %shard% or {shard}, after a slash."""
    options: Mapping[str, str] = attrs.field(factory=dict)
    """Settings of the object store (endpoint, region, ...), over those of the environment (AWS_ACCESS_KEY_ID,
    ...)."""
    wal: StoreSpec | None = None
    """A separate store for the log; of it only backend, path and options count."""
    fsync: bool = True
    """Whether the backend fs survives power cuts and not only killed processes."""
    slatedb: Mapping[str, Any] = attrs.field(factory=dict)
    """SlateDB settings over ours, see settings.py."""
    block_cache_bytes: int = 64 << 20
    """One cache for all databases of the process that ask for the same size."""
    durability_timeout_ms: int = 10_000
    """A write that takes longer has failed."""
    open_timeout_ms: int = 60_000

    @classmethod
    def in_memory(cls, **more: Any) -> StoreSpec:
        """A store that nobody else has, for the life of the process."""
        return cls(backend="memory", path=f"/{uuid.uuid4()}/%shard%", **more)


async def open_database(spec: StoreSpec, shard: str) -> SlateDatabase:
    """Open the shard's database, create it if there is none, and fence whoever has it open.

    Raises ConfigError if the configuration cannot be used or names another WAL store than the one recorded,
    StoreFailed if the store does not answer, Corrupt if what is there cannot be read.
    """
    places = locate(spec, shard)
    try:
        async with asyncio.timeout(spec.open_timeout_ms / 1_000):
            return await _opened(spec, shard, places)
    except TimeoutError:
        raise StoreFailed(f"shard {shard} was not open within {spec.open_timeout_ms} ms") from None
    except Failures as reason:
        raise named(reason) from reason


async def _opened(spec: StoreSpec, shard: str, places: Places) -> SlateDatabase:
    if places.synced_log and places.record_home:
        await powercut.clear_away(places.record_home, places.synced_log, _admin(places), _log_reader(places))
    elif places.record_home:
        powercut.forget(places.record_home)

    recorded = await _recorded_wal(places.main)
    given = str(places.wal or "")
    if recorded not in (None, given):
        raise ConfigError(
            f"shard {shard} keeps its log in {recorded or 'its main store'}, but the configuration says "
            f"{given or 'its main store'}: opening it would lose what only that log has"
        )

    database = await _built_database(spec, shard, places)
    try:
        await database.start()
        if recorded is None:
            await _record_wal(database, given)
    except BaseException:
        await database.abandon()
        raise
    return database


async def _built_database(spec: StoreSpec, shard: str, places: Places) -> SlateDatabase:
    builder = generated.DbBuilder(places.main.name, places.main.store)
    overrides = _expanded(spec.slatedb, shard)
    syncing = Syncing()
    if places.synced_log:
        syncing = LocalSyncing(_admin(places), home=places.main.directory, wal=places.synced_log)
        if places.main.directory:
            # LocalSyncing deletes WAL objects itself, when it is safe to.
            overrides = merged(overrides, {"garbage_collector_options": {"wal_options": None}})
    builder.with_settings(settings(overrides))
    # The number keeps the entries of the databases apart, as their files have the same names.
    builder.with_db_cache(_block_cache(spec.block_cache_bytes), next(_cache_scopes))
    if places.wal:
        builder.with_wal_object_store(places.wal.store)
    return SlateDatabase(
        await builder.build(),
        _admin(places),
        durability_timeout_ms=spec.durability_timeout_ms,
        syncing=syncing,
    )


async def delete_database(spec: StoreSpec, shard: str) -> None:
    """Delete the shard's database, which nobody may have open.  Whoever has it open all the same is fenced
    first, as SlateDB would go on to acknowledge writes to files that are gone."""
    await (await open_database(spec, shard)).close()
    try:
        await _admin(locate(spec, shard)).delete_db(True)
    except Failures as reason:
        raise named(reason) from reason


# ---- places


@attrs.frozen
class Place:
    """One shard's part of an object store."""

    root: str
    """The directory or the URL of the bucket; "" for the bucket that options and environment name."""
    name: str
    """The path of the database in it."""
    store: Any
    directory: Path | None
    """The database's own directory, on a local disk."""
    remote: bool

    def __str__(self) -> str:
        return f"{self.root.removesuffix('/')}/{self.name}"


@attrs.frozen
class Places:
    """Where one shard's tree and log are."""

    main: Place
    wal: Place | None
    """The log's, if it has a store of its own."""
    synced_log: Path | None
    """The directory of the WAL objects, if we make them durable."""

    @property
    def record_home(self) -> Path | None:
        """Where powercut.py keeps its record, on a local disk."""
        return self.main.directory or (self.wal or self.main).directory


def locate(spec: StoreSpec, shard: str) -> Places:
    """The shard's places in the configured stores.  Raises ConfigError if there can be none, StoreFailed if a
    directory cannot be made."""
    if not _SHARD.fullmatch(shard):
        raise ConfigError(f"a shard's name is made of letters, digits, - and _, not {shard!r}")
    main = _place(spec, shard, "database")
    wal = _place(spec.wal, shard, "database.wal") if spec.wal else None
    if wal:
        # SlateDB uses one path in both stores; in a directory or in memory the root makes the difference.
        if wal.remote and wal.name != main.name:
            raise ConfigError(
                f"database.wal.path must lead to the same path in its bucket as database.path does, which is "
                f"{main.name}, not {wal.name}"
            )
        wal = attrs.evolve(wal, name=main.name, directory=wal.directory and Path(wal.root, main.name))
    log = wal or main
    if spec.fsync and main.directory and not log.directory:
        raise ConfigError(
            "database.wal must be on a local disk too if database.backend is fs and database.fsync is on"
        )
    return Places(main, wal, log.directory / "wal" if spec.fsync and log.directory else None)


_PLACEHOLDER = re.compile(r"%shard%|\{shard\}")
_SHARD = re.compile(r"[A-Za-z0-9_-]+")
_SCHEMES = {
    "file": "fs",
    "memory": "memory",
    "s3": "s3",
    "gs": "gcs",
    "az": "azure",
    "azure": "azure",
    "abfs": "azure",
}
_TYPES = {
    "s3": generated.ObjectStoreType.S3,
    "gcs": generated.ObjectStoreType.GCS,
    "azure": generated.ObjectStoreType.AZURE,
}


def _place(spec: StoreSpec, shard: str, section: str) -> Place:
    backend, template = _backend(spec, section)
    url, scheme_end, path = template.rpartition("://")
    if backend in _TYPES and scheme_end:
        bucket, _, path = path.partition("/")
        root, path = f"{url}://{bucket}", "/" + path
    else:
        root = ""

    found = _PLACEHOLDER.search(path)
    what = "object-store database" if backend in _TYPES else "database"
    if section == "database.wal":
        what += " WAL"
    if found is None:
        raise ConfigError(
            f"{what} template path must contain a shard placeholder (%shard% or {{shard}}), got: {spec.path}"
        )
    if path[: found.start()][-1:] != "/" and (found.start() > 0 or backend not in _TYPES):
        raise ConfigError(
            f"shard placeholder in {what} template path must be preceded by '/', got: {spec.path}"
        )

    if backend in _TYPES:
        return Place(
            root,
            _PLACEHOLDER.sub(shard, path).strip("/"),
            _remote(backend, root, spec.options, section),
            None,
            True,
        )
    root, name = path[: found.start()], _PLACEHOLDER.sub(shard, path[found.start() :]).strip("/")
    if backend == "memory":
        return Place(f"memory://{root}", name, _memory(root), None, False)
    root = os.path.abspath(root)
    return Place(root, name, _local(root, section), Path(root, name), False)


def _backend(spec: StoreSpec, section: str) -> tuple[str, str]:
    """The backend and its template; `url` is a way to write one of the others."""
    if spec.backend != "url":
        if spec.backend not in (*_TYPES, "fs", "memory"):
            raise ConfigError(
                f"{section}.backend must be fs, memory, s3, gcs, azure or url, got: {spec.backend}"
            )
        return spec.backend, spec.path
    scheme, separator, path = spec.path.partition("://")
    backend = _SCHEMES.get(scheme)
    if not separator or backend is None:
        raise ConfigError(f"failed to parse object store URL {spec.path}: use one of {', '.join(_SCHEMES)}")
    return backend, spec.path if backend in _TYPES else path


def _local(root: str, section: str) -> Any:
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as reason:
        # Not ConfigError: a shard is also opened again, while a disk is away for a moment.
        raise StoreFailed(f"{section}.path: {reason}") from reason
    builder = generated.ObjectStoreBuilder.from_env(generated.ObjectStoreType.LOCAL)
    builder.with_config("local_path", root)
    return _built(builder, section)


@functools.cache
def _memory(root: str) -> Any:
    """One store for the life of the process, so that a shard which is closed and opened again finds its
    rows."""
    return generated.ObjectStore.resolve("memory:///")


def _remote(backend: str, root: str, options: Mapping[str, str], section: str) -> Any:
    builder = generated.ObjectStoreBuilder.from_env(_TYPES[backend])
    if root:
        builder.with_url(root)
    for key, value in options.items():
        try:
            builder.with_config(key, str(value))
        except generated.Error as reason:
            raise ConfigError(f"{section}.options: {getattr(reason, 'message', reason)}") from reason
    return _built(builder, section)


def _built(builder: Any, section: str) -> Any:
    try:
        return builder.build()
    except generated.Error as reason:
        raise ConfigError(f"{section}: {getattr(reason, 'message', reason)}") from reason


def _admin(places: Places) -> Any:
    builder = generated.AdminBuilder(places.main.name, places.main.store)
    if places.wal:
        builder.with_wal_object_store(places.wal.store)
    return builder.build()


def _log_reader(places: Places) -> Any:
    reader, main = generated.SlateDbWalReader, places.main
    if places.wal:
        return reader.with_wal_object_store(main.name, main.store, places.wal.store)
    return reader(main.name, main.store)


def _expanded(value: Any, shard: str) -> Any:
    """SlateDB settings may name the shard too, as the folder of a disk cache must."""
    if isinstance(value, Mapping):
        return {key: _expanded(inner, shard) for key, inner in value.items()}
    return _PLACEHOLDER.sub(shard, value) if isinstance(value, str) else value


_cache_scopes = itertools.count(1)


@functools.cache
def _block_cache(size: int) -> Any:
    return generated.DbCache.new_foyer_cache(generated.FoyerCacheOptions(max_capacity=size, shards=4))


# ---- the recorded WAL store

# Before every key that keys.py makes.
_WAL_KEY = b"\x00silo wal store"


async def _recorded_wal(place: Place) -> str | None:
    """What is recorded, "" if the log is in the main store; None if the shard does not exist or was never
    quite created, in which case nothing was acknowledged yet."""
    builder = generated.DbReaderBuilder(place.name, place.store)
    builder.with_reader_mode(generated.ReaderMode.FOLLOW_LATEST())
    builder.with_db_cache_disabled()
    builder.with_options(
        generated.ReaderOptions(
            manifest_poll_interval_ms=60_000,
            checkpoint_lifetime_ms=120_000,
            max_memtable_bytes=1 << 20,
            skip_wal_replay=True,
            object_store_max_retries=2,
        )
    )
    try:
        reader = await builder.build()
    except generated.Error.Data as reason:
        if "failed to find latest transactional object" in reason.message:
            return None
        raise
    try:
        recorded: bytes | None = await reader.get(_WAL_KEY)
    finally:
        await reader.shutdown()
    return None if recorded is None else recorded.decode()


async def _record_wal(database: SlateDatabase, given: str) -> None:
    batch = database.batch()
    batch.put(_WAL_KEY, given.encode())
    await database.write(batch)
    await database.flush()
