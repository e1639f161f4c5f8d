"""SlateDB's settings for a shard: a log in front, few rows behind, many shards in one process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from silo.errors import ConfigError
from silo.storage.ffi import generated

# Without a bound SlateDB retries for ever: an outage would look like a very slow store, to us and to a
# database that was abandoned.  With this bound the database dies some seconds into an outage and its owner
# opens it anew.
_RETRIES = 5

DEFAULTS: dict[str, Any] = {
    # Every write is flushed explicitly; this only catches one whose flush was lost on the way.
    "flush_interval": "1s",
    # How soon an idle owner notices that it was fenced.
    "manifest_poll_interval": "1s",
    # Memory of one shard: what is being written, up to the bound, plus the files being made from it.
    "l0_sst_size_bytes": 8 << 20,
    "max_unflushed_bytes": 32 << 20,
    # Writing stops for as long as this many files wait for the compactor.  With 8, a million rows written at
    # full speed met pauses of 800 ms.
    "l0_max_ssts": 16,
    "l0_max_ssts_per_key": 16,
    "object_store_max_retries": _RETRIES,
    "compactor_options": {
        # Small L0 files need a compactor that looks often; with its usual 5 s, writing stops while 8 of them
        # wait.
        "poll_interval": "500ms",
        "max_concurrent_compactions": 2,
        "object_store_max_retries": _RETRIES,
        "worker": {
            "compactions_poll_interval": "500ms",
            "max_concurrent_compactions": 2,
            "max_subcompactions": 1,
            "max_sst_size": 32 << 20,
        },
    },
    "garbage_collector_options": {
        # One WAL file a commit: they must go quickly.  The age is the time that a process which is just
        # opening the database has for reading the files that were still needed when it looked.
        "wal_options": {"interval": "5s", "min_age": "10s"},
        "manifest_options": {"interval": "60s", "min_age": "120s"},
        "compacted_options": {"interval": "60s", "min_age": "120s"},
        "compactions_options": {"interval": "60s", "min_age": "120s"},
        "object_store_max_retries": _RETRIES,
    },
}


def settings(overrides: Mapping[str, Any]) -> Any:
    """`DEFAULTS` with `overrides` merged over them, key by key at every depth.

    Raises ConfigError for a key that SlateDB does not know (it would be ignored without a word) or a value
    that it refuses.
    """
    made = generated.Settings.default()
    wanted = list(_leaves(merged(DEFAULTS, overrides)))
    for path, value in wanted:
        try:
            made.set(path, json.dumps(value))
        except (generated.Error, TypeError) as reason:
            raise ConfigError(f"database.slatedb.{path} = {value!r} is refused: {_text(reason)}") from reason
    taken = json.loads(made.to_json_string())
    for path, value in wanted:
        if not _same(_at(taken, path), value):
            raise ConfigError(f"database.slatedb.{path}: SlateDB has no such setting, or rounds {value!r}")
    return made


def merged(ours: Any, theirs: Any) -> Any:
    """`theirs` over `ours`, key by key at every depth."""
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        return theirs
    return {**ours, **{key: merged(ours.get(key), value) for key, value in theirs.items()}}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


_ABSENT = object()


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key, _ABSENT) if isinstance(tree, dict) else _ABSENT
    return tree


def _same(taken: Any, wanted: Any) -> bool:
    return bool(taken == wanted) or (
        taken is not _ABSENT and _duration_ms(taken) == _duration_ms(wanted) is not None
    )


_UNITS_MS = {
    "ns": 1e-6,
    "us": 1e-3,
    "µs": 1e-3,
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
_DURATION = re.compile(r"([0-9.]+)\s*([a-zµ]+)[\s+]*")


def _duration_ms(value: Any) -> float | None:
    """What "1m 30s" comes to.  SlateDB writes durations back in its own way (1500ms as 1s+500ms, 2h as
    7200s)."""
    if not isinstance(value, str) or not value or _DURATION.sub("", value):
        return None
    try:
        return sum(float(number) * _UNITS_MS[unit] for number, unit in _DURATION.findall(value))
    except (KeyError, ValueError):
        return None


def _text(reason: BaseException) -> str:
    return str(getattr(reason, "message", reason))
