"""Who are the nodes, and which of them owns which shard?  For a node that is its own cluster: itself, all of them."""

from __future__ import annotations

from typing import Protocol

import attrs

from silo.cluster.shard_map import ShardMap
from silo.pb import silo_pb2 as pb

DEFAULT_RING = "default"
"""What a node serves that names no ring.  On the wire the default ring is empty."""


@attrs.frozen
class Node:
    """A server of the cluster: its id, and the address `host:port` that clients dial."""

    id: str
    grpc_addr: str
    rings: tuple[str, ...] = ()


class Cluster(Protocol):
    """The cluster as this node knows it."""

    @property
    def this(self) -> Node:
        """The node that answers."""

    @property
    def shards(self) -> ShardMap:
        """All shards, whoever owns them."""

    @property
    def members(self) -> tuple[Node, ...]:
        """All nodes that are alive."""

    def owner_of(self, shard_id: str) -> Node | None:
        """Who serves the shard, or is about to; None if nobody does or there is no such shard."""


@attrs.frozen
class SingleNode:
    """A cluster of one node, which owns every shard."""

    this: Node
    shards: ShardMap

    @property
    def members(self) -> tuple[Node, ...]:
        return (self.this,)

    def owner_of(self, shard_id: str) -> Node | None:
        return self.this if self.shards.find(shard_id) else None


def cluster_info(cluster: Cluster) -> pb.GetClusterInfoResponse:
    """The answer to GetClusterInfo.  Shards stand in the order of their ranges, also those that nobody owns."""
    nobody = Node("", "")
    owners = [(shard, cluster.owner_of(shard.id) or nobody) for shard in cluster.shards.shards]
    return pb.GetClusterInfoResponse(
        num_shards=len(owners),
        shard_owners=[
            pb.ShardOwner(
                shard_id=shard.id,
                grpc_addr=owner.grpc_addr,
                node_id=owner.id,
                range_start=shard.range.start,
                range_end=shard.range.end,
            )
            for shard, owner in owners
        ],
        this_node_id=cluster.this.id,
        this_grpc_addr=cluster.this.grpc_addr,
        members=[
            pb.ClusterMember(node_id=node.id, grpc_addr=node.grpc_addr, placement_rings=node.rings)
            for node in cluster.members
        ],
    )
