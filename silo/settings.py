"""What can be configured, and what happens if nothing is?

Each class is a section of the TOML file, each field a key.  The words beside a field are its documentation:
`tools/gen_config_docs.py` writes docs/configuration.md from them.  Times end in their unit; a setting that
exists is valid, whether it came from a file or from a test.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from silo.config_file import (
    Check,
    OtherKeys,
    at_least,
    between,
    fields_of,
    one_of,
    section,
    section_type,
    sections_of,
    setting,
    shown,
    structure,
    substitute,
    unread_keys,
)
from silo.errors import ConfigError
from silo.storage.template import Backend, PathTemplate

MIB = 1 << 20

NO_EFFECT = "No effect in this release."
"""Begins the meaning of a setting that is read and not used yet: whoever changes it is warned."""


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of a socket address, as in `127.0.0.1:7450` or `[::1]:7450`; ValueError for anything else."""
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    # An IPv6 address stands in brackets, as otherwise it would be open where it ends and the port begins.
    written = f"[{bare}]" if ipaddress.ip_address(bare).version == 6 else bare
    if host != written or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError(f"not a socket address: {address}")
    return bare, int(port)


def _is_socket_address(address: str) -> bool:
    try:
        host_and_port(address)
    except ValueError:
        return False
    return True


SOCKET_ADDRESS = Check("an IP address with a port, such as 127.0.0.1:7450", _is_socket_address)


@attrs.frozen
class Server:
    """The gRPC server and the bounds within which it works."""

    grpc_addr: str = setting(
        "127.0.0.1:7450",
        "Where the gRPC API listens. Host names are not resolved here.",
        check=SOCKET_ADDRESS,
    )
    auth_token: str | None = setting(
        None,
        "Secret that callers send as `authorization: Bearer <secret>`. Empty is the same as unset.",
        secret=True,
    )
    dev_mode: bool = setting(False, "Allows `ResetShards`, which wipes data. For development only.")
    statement_timeout_ms: int = setting(
        5_000,
        "Time that one SQL statement may take; 0 is no limit.",
        unit="ms",
        check=at_least(0),
    )
    max_result_bytes: int = setting(
        64 * MIB,
        "Size of the answer to one `Query`; 0 is no limit.",
        unit="bytes",
        check=at_least(0),
    )
    max_concurrent_statements: int = setting(
        8,
        "SQL statements that run at the same time in one shard; 0 is no limit.",
        check=at_least(0),
    )
    slow_query_log_ms: int = setting(
        1_000,
        "SQL statements that take longer are logged; 0 logs none.",
        unit="ms",
        check=at_least(0),
    )
    max_message_bytes: int = setting(
        128 * MIB,
        "Largest gRPC message that is sent or received.",
        unit="bytes",
        check=between(1, (1 << 31) - 1),
    )
    max_pending_commands: int = setting(
        50_000,
        "Commands that may wait for durability. Beyond it callers get `UNAVAILABLE` at once, "
        "rather than a queue that grows until the process dies.",
        check=at_least(1),
    )
    max_pending_bytes: int = setting(
        256 * MIB, "The same bound for the bytes of these commands.", unit="bytes", check=at_least(1)
    )


@attrs.frozen
class Coordination:
    """How several servers share the shards of one cluster."""

    backend: str = setting(
        "none",
        "`none`: this server is the whole cluster. `etcd` and `k8s` are not available in this release yet.",
        check=one_of("none", "etcd", "k8s"),
    )
    initial_shard_count: int = setting(
        8,
        "Shards that a new cluster starts with. A cluster that has shards keeps them, whatever is set here.",
        check=between(1, 10_000),
    )
    advertised_grpc_addr: str | None = setting(
        None, "Address `host:port` under which clients reach this server, if it is not `server.grpc_addr`."
    )
    node_id: str | None = setting(
        None, "Name of this server in the cluster. Unset: a new random one at each start."
    )
    placement_rings: tuple[str, ...] = setting(
        (), "Rings from which this server takes shards. Empty: the default ring, also written `default`."
    )
    cluster_prefix: str = setting("silo", "Prefix of the cluster's keys. For `etcd` and `k8s`.")
    lease_ttl_secs: int = setting(
        10,
        "Time after which a silent server loses its shards. For `etcd` and `k8s`.",
        unit="s",
        check=at_least(1),
    )
    etcd_endpoints: tuple[str, ...] = setting(("http://127.0.0.1:2379",), "Servers of etcd. For `etcd`.")
    k8s_namespace: str = setting("default", "Namespace of the lease objects. For `k8s`.")

    def __attrs_post_init__(self) -> None:
        if self.backend != "none":
            raise ConfigError(
                f"backend = {shown(self.backend)}: not available in this release yet; "
                'expected "none", which is one server'
            )


@attrs.frozen
class Tenancy:
    """Whether jobs belong to tenants."""

    enabled: bool = setting(
        False,
        "On: each call must name a tenant. Off: no call may; all jobs belong to one tenant, in one shard.",
    )


@attrs.frozen
class WebUi:
    """The operator's pages.  This release has none."""

    enabled: bool = setting(True, "Serves the pages. This release has none, so it serves nothing either way.")
    addr: str = setting("127.0.0.1:8080", f"{NO_EFFECT} Where they listen.", check=SOCKET_ADDRESS)


@attrs.frozen
class Metrics:
    """Figures for Prometheus.  This release has none."""

    enabled: bool = setting(
        True, "Serves `/metrics`. This release has none, so it serves nothing either way."
    )
    addr: str = setting("127.0.0.1:9090", f"{NO_EFFECT} Where it listens.", check=SOCKET_ADDRESS)


@attrs.frozen
class Logging:
    """The server's own log, on standard error."""

    format: str = setting(
        "text", "`text` for people, `json` for machines, one object a line.", check=one_of("text", "json")
    )


@attrs.frozen
class Gubernator:
    """An outside service that decides rate limits instead of the shards: see [rate-limits.md](rate-limits.md)."""

    address: str | None = setting(
        None,
        "Address `host:port` of the service. The server connects to it at its start, and does not start without it. "
        "Unset or empty: the shards decide.",
    )
    coalesce_interval_ms: int = setting(
        5, "Time in which questions are gathered.", unit="ms", check=at_least(0)
    )
    max_batch_size: int = setting(
        100, "Questions in one request at most. The service takes no more than 1000.", check=between(1, 1_000)
    )
    connect_timeout_ms: int = setting(5_000, "Time to connect at the start.", unit="ms", check=at_least(1))
    request_timeout_ms: int = setting(
        10_000,
        "Time to answer. Until there is an answer nothing passes: the question is asked again later.",
        unit="ms",
        check=at_least(1),
    )


@attrs.frozen
class Dispatch:
    """The order in which waiting tasks are handed to workers."""

    priority_weight_ms: int = setting(
        10_000,
        "How much later a task counts as started for each step of priority, 0 being the most urgent. "
        "With the default, a job of priority 0 overtakes one of priority 50 that is up to 500 s older, "
        "and nothing waits for ever. "
        "0: priority decides only between jobs that start in the same millisecond.",
        unit="ms",
        check=at_least(0),
    )


BACKEND = one_of(*typing.get_args(Backend))


class Store:
    """What `[database]` and `[database.wal]` have in common: a store in which each shard has a place."""

    __slots__ = ()
    backend: Backend
    path: str

    @property
    def template(self) -> PathTemplate:
        """The path, read."""
        return PathTemplate.parse(self.backend, self.path)

    def __attrs_post_init__(self) -> None:
        try:
            PathTemplate.parse(self.backend, self.path)
        except ConfigError as error:
            raise ConfigError(f"path: {error}") from error


@attrs.frozen
class Wal(Store):
    """A store of its own for the write-ahead log, such as a local disk beside an object store."""

    backend: Backend = setting(meaning="As `database.backend`.", check=BACKEND, required=True)
    path: str = setting(meaning="As `database.path`.", required=True)


@attrs.frozen
class MemoryCache:
    """Blocks of the database that are kept in memory: one cache for all shards of the server, as large as both together."""

    block_cache_bytes: int = setting(24 * MIB, "For blocks of rows.", unit="bytes", check=at_least(0))
    meta_cache_bytes: int = setting(8 * MIB, "For indexes and filters.", unit="bytes", check=at_least(0))


@attrs.frozen
class Database(Store):
    """Where the shards lie and how they are written."""

    backend: Backend = setting(
        "fs",
        "`fs`: a local directory. `s3`, `gcs`: a bucket. `url`: any store that a URL can name. "
        "`memory`: nothing outlives the process.",
        check=BACKEND,
        required=True,
    )
    path: str = setting(
        "./silo-data/%shard%",
        "Directory or URL of one shard; `%shard%` or `{shard}` stands for its id and must follow a `/`.",
        required=True,
    )
    options: dict[str, str] = setting(
        attrs.Factory(dict),
        "Options of the object store, such as `endpoint`, `region`, `access_key_id`, `secret_access_key`, "
        "`allow_http`. What is not given is taken from the environment (`AWS_...`).",
        secret=True,
    )
    fsync: bool = setting(
        True,
        "With `fs`: forces files to the disk before a write is acknowledged, as a power cut would lose it. "
        "Off only for tests and benchmarks.",
    )
    commit_interval_ms: int = setting(
        0,
        "Time in which writes are gathered before a commit. "
        "0: a commit starts as soon as the one before it is durable. "
        "On a store that charges for requests, a few milliseconds save many of them.",
        unit="ms",
        check=at_least(0),
    )
    durability_timeout_ms: int = setting(
        10_000,
        "Time after which a write that is not durable counts as failed: callers get `UNAVAILABLE`, "
        "and the shard opens anew.",
        unit="ms",
        check=at_least(1),
    )
    checkpoint_interval_ms: int = setting(
        2_000, "Changed rows are written at the latest after this time.", unit="ms", check=at_least(1)
    )
    checkpoint_rows: int = setting(30_000, "The same by their number.", check=at_least(1))
    checkpoint_bytes: int = setting(12 * MIB, "The same by their size.", unit="bytes", check=at_least(1))
    checkpoint_events: int = setting(
        50_000,
        "The same by the events that led to them. "
        "The four bound memory, and the time that a shard takes to open after a crash.",
        check=at_least(1),
    )
    completed_job_expire_s: int | None = setting(
        None, "Time after which a job that succeeded is forgotten. Unset: never.", unit="s", check=at_least(0)
    )
    terminal_job_expire_s: int | None = setting(
        None, "The same for a job that failed or was cancelled.", unit="s", check=at_least(0)
    )
    wal: Wal | None = attrs.field(default=None, kw_only=True)
    memory_cache: MemoryCache = section(MemoryCache)
    slatedb: dict[str, Any] = setting(
        attrs.Factory(dict),
        'Any setting of SlateDB, laid over those that Silo chooses; durations are written `"100ms"`.',
    )


@attrs.frozen
class History:
    """How long the log keeps what has happened before only the archive has it, see docs/history.md."""

    retention_days: int = setting(
        30,
        "How long events stay in the log at least. Older ones are in the archive alone, beside the database. "
        "0: the log keeps everything; the archive is made all the same.",
        unit="days",
        check=at_least(0),
    )

    @property
    def retention_ms(self) -> int | None:
        """None: for ever."""
        return self.retention_days * 86_400_000 or None


@attrs.frozen
class Settings:
    """All that a server can be told.  `Settings()` is the local default: one process, data in ./silo-data."""

    server: Server = section(Server)
    database: Database = section(Database)
    coordination: Coordination = section(Coordination)
    tenancy: Tenancy = section(Tenancy)
    dispatch: Dispatch = section(Dispatch)
    history: History = section(History)
    gubernator: Gubernator = section(Gubernator)
    webui: WebUi = section(WebUi)
    metrics: Metrics = section(Metrics)
    logging: Logging = section(Logging)


_NO_RECONCILING = "slots and counters follow from the log and cannot drift from it"
_NO_SCANNER = "a slot is granted by the very commit that frees it, so there is no scanner to tune"

OTHER_KEYS = OtherKeys(
    without_effect={
        ("database", "apply_wal_on_close"): "a shard always closes in the same way",
        ("database", "concurrency_reconcile_interval_ms"): _NO_RECONCILING,
        ("database", "concurrency_reconcile_scan_slice"): _NO_RECONCILING,
        ("database", "holder_drift_scan_slice"): _NO_RECONCILING,
        ("database", "counter_reconciliation_seconds"): _NO_RECONCILING,
        ("database", "count_from_status_counters"): _NO_RECONCILING,
        ("database", "hydrate_all_at_startup"): "a shard reads what it needs when it needs it",
        ("database", "periodic_full_compaction_s"): "each shard compacts itself as it grows",
        ("database", "grant_scanner_batch_size"): _NO_SCANNER,
        ("database", "grant_scanner_buffer_size"): _NO_SCANNER,
        ("database", "grant_scanner_concurrency"): _NO_SCANNER,
        ("database", "grant_scanner_cold_batch_size"): _NO_SCANNER,
        ("database", "grant_scanner_next_hop_skip_min_backlog"): _NO_SCANNER,
        ("database", "grant_scanner_live_headroom_fraction"): _NO_SCANNER,
        ("database", "grant_scanner_commit_chunk_size"): _NO_SCANNER,
    },
    renamed={("coordination", "num_shards"): "initial_shard_count"},
)
"""Keys of files that were written for the older server of this protocol."""


@attrs.frozen
class Loaded:
    """Settings, and a sentence for each thing in the file that will not do what its writer may expect."""

    settings: Settings
    warnings: tuple[str, ...] = ()


def load(path: str | Path | None, environ: Mapping[str, str]) -> Loaded:
    """The settings in the file, `${VAR}` filled in from `environ`; the local default if there is no path.

    Raises ConfigError, a line for each mistake, each beginning with the path.
    """
    if path is None:
        return Loaded(Settings())

    try:
        table = tomllib.loads(substitute(Path(path).read_text(encoding="utf-8"), environ))
        settings = structure(table, Settings)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {mistake}" for mistake in str(error).splitlines())) from error
    warnings = [
        *unread_keys(table, Settings, OTHER_KEYS),
        *_second_thoughts(table),
        *_without_effect(settings),
    ]
    return Loaded(settings, tuple(f"{path}: {warning}" for warning in warnings))


def _second_thoughts(table: Mapping[str, Any]) -> Iterator[str]:
    # Somebody meant to protect the server: most likely the variable is missing that should have held the
    # secret.
    if table.get("server", {}).get("auth_token") == "":
        yield "[server] auth_token is empty, so callers need no token"


def _without_effect(settings: Settings) -> Iterator[str]:
    usual = Settings()
    for name, kind in sections_of(Settings):
        # `database.wal` may be absent, and all settings of the inner sections are used.
        if "." in name:
            continue
        given, default = getattr(settings, name), getattr(usual, name)
        for key, field in fields_of(kind).items():
            is_without = field.metadata.get("meaning", "").startswith(NO_EFFECT)
            if is_without and getattr(given, key) != getattr(default, key):
                yield f"[{name}] {key} has no effect in this release"


def describe(settings: Settings) -> list[str]:
    """The settings that differ from their defaults, as `section.key = value`, for the log at the start.

    Secrets are not shown.
    """
    return list(_differences(settings, Settings(), ""))


def _differences(given: Any, default: Any, name: str) -> Iterator[str]:
    for key, field in fields_of(type(given)).items():
        value, usual = getattr(given, key), getattr(default, key, None)
        if section_type(field):
            yield from _differences(value, usual, f"{name}{key}.") if value is not None else ()
        elif value != usual:
            yield f"{name}{key} = {'(set)' if field.metadata['secret'] else shown(value)}"
