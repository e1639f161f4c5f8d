"""Which node has which shard?

A tenant's shard is where its hash lies on the line that the shards share.  The list of them is asked for once, and again
when an answer says that it is old.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import attrs

from silo.domain.tenants import DEFAULT_TENANT, tenant_hash
from silo.pb import silo_pb2 as pb


@attrs.frozen
class Shard:
    """A shard, and where it is.

    Attributes:
        start: of its range on the hash line; 16 hex digits, or empty for the beginning.
        address: of its node; empty if nobody has it just now.
    """

    id: str
    start: str
    address: str


class Topology:
    """The shards of a cluster, as they were when somebody asked."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(sorted(shards, key=lambda shard: shard.start))
        self._starts = [shard.start for shard in self.shards]
        self._by_id = {shard.id: shard for shard in self.shards}

    @classmethod
    def of(cls, info: pb.GetClusterInfoResponse) -> Topology:
        return cls([Shard(owner.shard_id, owner.range_start, owner.grpc_addr) for owner in info.shard_owners])

    def shard_of(self, tenant: str | None) -> Shard:
        """The shard that owns a tenant; None: the one that all jobs have while the broker knows no tenants."""
        place = tenant_hash(tenant or DEFAULT_TENANT)
        return self.shards[max(bisect.bisect_right(self._starts, place) - 1, 0)]

    def shard(self, shard_id: str) -> Shard | None:
        return self._by_id.get(shard_id)

    def moved(self, shard_id: str, address: str) -> Topology:
        """The same with one shard elsewhere."""
        return Topology(
            [attrs.evolve(shard, address=address) if shard.id == shard_id else shard for shard in self.shards]
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all nodes that have a shard."""
        return tuple(sorted({shard.address for shard in self.shards if shard.address}))
