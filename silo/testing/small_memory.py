"""A shard that keeps little in memory, so that a few hundred jobs are to it what a million are to another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType

from silo.shard import disk, rows, window

BOUNDS: tuple[tuple[ModuleType, str], ...] = (
    (rows, "LOADED_BYTES_MAX"),
    (rows, "WINDOWS_MAX"),
    (rows, "CATALOGUES_MAX"),
    (rows, "CATALOGUE_KEYS_MAX"),
    (disk, "CATALOGUE_KEYS_MAX"),
    (window, "ROWS_MAX"),
    (disk, "ROWS_MAX"),
)
"""What bounds the memory of a shard; some are imported by name, so they are here twice."""

LEAST = 4


@contextlib.contextmanager
def remembering(factor: float) -> Iterator[None]:
    """Within this, shards keep so many times what they usually keep."""
    usual = [(module, name, getattr(module, name)) for module, name in BOUNDS]
    for module, name, bound in usual:
        setattr(module, name, max(LEAST, round(bound * factor)))
    try:
        yield
    finally:
        for module, name, bound in usual:
            setattr(module, name, bound)
