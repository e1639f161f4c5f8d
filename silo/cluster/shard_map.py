"""Which shards are there, and which of them owns a tenant?

The map is a value: whoever changes the cluster makes another one.  A map that exists tiles the hash line, so
that each tenant has exactly one owner.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import attrs

from silo.cluster.ranges import HashRange, initial, why_not_tiling
from silo.domain.ids import parse_shard_id
from silo.errors import Corrupt, Invalid

_FORMAT = 1


@attrs.frozen
class MappedShard:
    """One shard as the map knows it.  `id` is canonical UUID text."""

    id: str
    range: HashRange
    created_at_ms: int


@attrs.frozen
class ShardMap:
    """All shards, in the order of their ranges.

    Making one raises Corrupt if the ranges do not tile the hash line or an id occurs twice.
    """

    shards: tuple[MappedShard, ...]
    _starts: list[str] = attrs.field(init=False, eq=False, repr=False)
    _by_id: dict[str, MappedShard] = attrs.field(init=False, eq=False, repr=False)

    @_starts.default
    def _starts_of_the_shards(self) -> list[str]:
        return [shard.range.start for shard in self.shards]

    @_by_id.default
    def _shards_by_id(self) -> dict[str, MappedShard]:
        return {shard.id: shard for shard in self.shards}

    def __attrs_post_init__(self) -> None:
        # SILO-SPLIT-1: a map that does not tile the hash line cannot be made.
        flaw = why_not_tiling([shard.range for shard in self.shards])
        if flaw:
            raise Corrupt(f"shard map: {flaw}")
        if len(self._by_id) < len(self.shards):
            raise Corrupt("shard map: a shard id occurs twice")

    @classmethod
    def initial(cls, count: int, *, created_at_ms: int, new_id: Callable[[], str]) -> ShardMap:
        """A first map: `count` new shards with equal parts of the hash line."""
        return cls(tuple(MappedShard(new_id(), part, created_at_ms) for part in initial(count)))

    def owner_of(self, tenant_hash: str) -> MappedShard:
        """The one shard whose range holds the hash (16 lower-case hex digits)."""
        return self.shards[bisect_right(self._starts, tenant_hash) - 1]

    def find(self, shard_id: str) -> MappedShard | None:
        """The shard with this canonical id, if there is one."""
        return self._by_id.get(shard_id)

    def to_json(self) -> bytes:
        """The map as it is stored: JSON, one shard a line, since operators read it."""
        lines = ",\n".join(f"    {json.dumps(_stored(shard))}" for shard in self.shards)
        return f'{{\n  "format": {_FORMAT},\n  "shards": [\n{lines}\n  ]\n}}\n'.encode()

    @classmethod
    def from_json(cls, stored: bytes) -> ShardMap:
        """The map that `to_json` wrote.  Raises Corrupt for anything else."""
        try:
            document = json.loads(stored)
            if document["format"] != _FORMAT:
                raise Corrupt(
                    f"shard map: format {document['format']} was written by another version of Silo"
                )
            return cls(tuple(_read(shard) for shard in document["shards"]))
        except (ValueError, KeyError, TypeError, Invalid) as error:
            raise Corrupt(f"shard map: {type(error).__name__}: {error}") from error


def _stored(shard: MappedShard) -> dict[str, Any]:
    return {
        "id": shard.id,
        "start": shard.range.start,
        "end": shard.range.end,
        "created_at_ms": shard.created_at_ms,
    }


def _read(stored: dict[str, Any]) -> MappedShard:
    bounds = HashRange(stored["start"], stored["end"])
    return MappedShard(parse_shard_id(stored["id"]), bounds, int(stored["created_at_ms"]))
