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
from typing import Any

import attrs

from silo.errors import ConfigError, StoreFailed
from silo.storage import powercut
from silo.storage.ffi import generated
from silo.storage.fsync import LocalSyncing, Syncing
from silo.storage.settings import merged, settings
from silo.storage.slate import Failures, SlateDatabase, named
from silo.storage.template import Backend, PathTemplate, filled_in


@attrs.frozen(kw_only=True)
class StoreSpec:
    """Where the databases of all shards are, as configured."""

    backend: Backend
    path: str
    """The template of a directory or a URL (s3://bucket/silo/%shard%), see template.py."""
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


async def _opened(spec: StoreSpec, shard: str, places: ShardPlaces) -> SlateDatabase:
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


async def _built_database(spec: StoreSpec, shard: str, places: ShardPlaces) -> SlateDatabase:
    builder = generated.DbBuilder(places.main.name, places.main.store)
    overrides = _expanded(spec.slatedb, shard)
    syncing = Syncing()
    if places.synced_log and places.record_home:
        admin = _admin(places)
        before = await admin.read_manifest(None)
        if before is None:
            # What an earlier database left here would count for more than what this one records.
            powercut.forget(places.record_home)
        epoch = before.writer_epoch + 1 if before else 1
        syncing = LocalSyncing(admin, home=places.main.directory, wal=places.synced_log, epoch=epoch)
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
class ShardPlace:
    """One shard's part of an object store."""

    root: str
    """The directory or the URL of the bucket."""
    name: str
    """The path of the database in it."""
    store: Any
    directory: Path | None
    """The database's own directory, on a local disk."""
    remote: bool

    def __str__(self) -> str:
        return f"{self.root.removesuffix('/')}/{self.name}"


@attrs.frozen
class ShardPlaces:
    """Where one shard's tree and log are."""

    main: ShardPlace
    wal: ShardPlace | None
    """The log's, if it has a store of its own."""
    synced_log: Path | None
    """The directory of the WAL objects, if we make them durable."""

    @property
    def record_home(self) -> Path | None:
        """Where powercut.py keeps its record, on a local disk."""
        return self.main.directory or (self.wal or self.main).directory


def locate(spec: StoreSpec, shard: str) -> ShardPlaces:
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
    return ShardPlaces(main, wal, log.directory / "wal" if spec.fsync and log.directory else None)


_SHARD = re.compile(r"[A-Za-z0-9_-]+")
_TYPES = {
    "s3": generated.ObjectStoreType.S3,
    "gcs": generated.ObjectStoreType.GCS,
    "azure": generated.ObjectStoreType.AZURE,
}


def _place(spec: StoreSpec, shard: str, section: str) -> ShardPlace:
    template = PathTemplate.parse(spec.backend, spec.path)
    name = filled_in(template.own, shard).strip("/")
    if template.is_remote:
        store = _remote(template, spec.options, section)
        return ShardPlace(template.bucket, (template.common + name).strip("/"), store, None, True)
    if template.kind == "memory":
        return ShardPlace(f"memory://{template.common}", name, _memory(template.common), None, False)
    root = os.path.abspath(template.common)
    return ShardPlace(root, name, _local(root, section), Path(root, name), False)


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


def _remote(template: PathTemplate, options: Mapping[str, str], section: str) -> Any:
    builder = generated.ObjectStoreBuilder.from_env(_TYPES[template.kind])
    builder.with_url(template.bucket)
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


def _admin(places: ShardPlaces) -> Any:
    builder = generated.AdminBuilder(places.main.name, places.main.store)
    if places.wal:
        builder.with_wal_object_store(places.wal.store)
    return builder.build()


def _log_reader(places: ShardPlaces) -> Any:
    reader, main = generated.SlateDbWalReader, places.main
    if places.wal:
        return reader.with_wal_object_store(main.name, main.store, places.wal.store)
    return reader(main.name, main.store)


def _expanded(value: Any, shard: str) -> Any:
    """SlateDB settings may name the shard too, as the folder of a disk cache must."""
    if isinstance(value, Mapping):
        return {key: _expanded(inner, shard) for key, inner in value.items()}
    return filled_in(value, shard) if isinstance(value, str) else value


_cache_scopes = itertools.count(1)


@functools.cache
def _block_cache(size: int) -> Any:
    return generated.DbCache.new_foyer_cache(generated.FoyerCacheOptions(max_capacity=size, shards=4))


# ---- the recorded WAL store

# Before every key that keys.py makes.
_WAL_KEY = b"\x00silo wal store"


async def _recorded_wal(place: ShardPlace) -> str | None:
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
