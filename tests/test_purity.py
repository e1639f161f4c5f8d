"""What must be deterministic imports nothing that is not; and arrows between rooms run downward only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SILO = Path(__file__).parent.parent / "silo"

IMPURE = {
    "asyncio",
    "time",
    "random",
    "uuid",
    "os",
    "grpc",
    "secrets",
    "threading",
    "datetime",
    "silo.storage",
}

ENGINE = {
    "shard.py",
    "conservation.py",
    "holders.py",
    "disk.py",
    "checkpoint.py",
    "replay.py",
    "beside.py",
    "base.py",
    "elsewhere.py",
    "seal.py",
    "rows.py",
    "window.py",
}
"""The files of silo/shard that run commands; all others decide them."""

PURE = [
    *sorted((SILO / "domain").glob("*.py")),
    *sorted((SILO / "projections").glob("*.py")),
    SILO / "ratelimit" / "buckets.py",
    SILO / "ratelimit" / "intervals.py",
    *sorted(path for path in (SILO / "shard").glob("*.py") if path.name not in ENGINE),
    *sorted((SILO / "what_if").glob("*.py")),
    SILO / "shard" / "rows.py",
    SILO / "shard" / "window.py",
]

BELOW_SERVER = (
    "domain",
    "storage",
    "events",
    "projections",
    "shard",
    "archive",
    "broker",
    "cluster",
    "ratelimit",
    "query",
    "what_if",
)

LOWER = {
    "domain": set(),
    "storage": set(),
    "ratelimit": {"domain"},
    "events": {"domain", "ratelimit", "storage"},
    "projections": {"domain", "events", "ratelimit"},
    "shard": {"domain", "events", "projections", "ratelimit", "storage", "archive"},
    "archive": {"domain", "events", "projections", "storage"},
    "broker": {"domain", "archive", "events", "projections", "shard"},
    "what_if": {"domain", "events", "projections", "shard"},
}
"""Which rooms a room may know; everybody may know `silo.errors`."""


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or within."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relative to itself"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def reaches(module: str, forbidden: str) -> bool:
    return module == forbidden or module.startswith(forbidden + ".")


def named(path: Path) -> str:
    return str(path.relative_to(SILO))


@pytest.mark.parametrize("path", PURE, ids=named)
def test_what_must_be_deterministic_imports_nothing_that_is_not(path):
    found = {module for module in imports(path) for forbidden in IMPURE if reaches(module, forbidden)}
    assert not found


@pytest.mark.parametrize("path", [path for path in PURE if "shard" in path.parts], ids=named)
def test_what_decides_does_not_know_what_runs_it(path):
    engine = {f"silo.shard.{name.removesuffix('.py')}" for name in ENGINE - {"rows.py", "window.py"}}
    assert not engine & set(imports(path))


@pytest.mark.parametrize("room", LOWER)
def test_arrows_run_downward_only(room):
    allowed = {f"silo.{name}" for name in (*LOWER[room], room)} | {"silo.errors"}
    for path in (SILO / room).rglob("*.py"):
        for module in imports(path):
            if reaches(module, "silo") and module != "silo":
                assert any(reaches(module, one) for one in allowed), f"{named(path)} knows {module}"


@pytest.mark.parametrize("room", BELOW_SERVER)
def test_nothing_below_the_server_speaks_grpc(room):
    for path in (SILO / room).rglob("*.py"):
        for module in imports(path):
            for forbidden in ("grpc", "google.protobuf", "silo.pb", "silo.server"):
                assert not reaches(module, forbidden), f"{named(path)} knows {module}"


def test_the_errors_know_nobody():
    assert set(imports(SILO / "errors.py")) <= {"__future__", "__future__.annotations"}


def test_the_rule_itself_notices():
    assert reaches("silo.storage.keys", "silo.storage")
    assert not reaches("silo.storages", "silo.storage")
    assert "asyncio" in set(imports(SILO / "shard" / "shard.py"))
    assert "silo.storage.database" in set(imports(SILO / "shard" / "disk.py"))
    assert {path.name for path in (SILO / "shard").glob("*.py")} >= ENGINE
