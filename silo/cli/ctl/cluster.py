"""`siloctl cluster` and `siloctl tenant`: what is where."""

from __future__ import annotations

import click

from silo.cli.ctl.connection import (
    HISTORY,
    Target,
    global_flags,
    pass_target,
    range_text,
    shard_of_tenant,
)
from silo.cli.ctl.texts import table
from silo.domain.tenants import DEFAULT_TENANT, tenant_hash
from silo.pb import silo_ext_pb2 as ext


@click.group()
def cluster() -> None:
    """Look at the cluster."""


@cluster.command("info")
@global_flags
@pass_target
def cluster_info(target: Target) -> None:
    """List all shards, their ranges, and the nodes that have them."""
    info = target.connect().cluster()
    rows = [
        [owner.shard_id, range_text(owner), owner.node_id or "-", owner.grpc_addr or "-"]
        for owner in info.shard_owners
    ]
    target.show(
        {
            "num_shards": info.num_shards,
            "this_node_id": info.this_node_id,
            "this_grpc_addr": info.this_grpc_addr,
            "shard_owners": [
                {
                    "shard_id": owner.shard_id,
                    "node_id": owner.node_id,
                    "grpc_addr": owner.grpc_addr,
                    "range_start": owner.range_start,
                    "range_end": owner.range_end,
                }
                for owner in info.shard_owners
            ],
        },
        f"Cluster Information\n"
        f"  Total shards: {info.num_shards}\n"
        f"  Connected to: {info.this_node_id} ({info.this_grpc_addr})\n\n"
        + table(["Shard", "Range", "Node ID", "gRPC Address"], rows),
    )


@click.group()
def tenant() -> None:
    """Find out where a tenant's jobs are."""


@tenant.command("hash")
@click.argument("tenant_id")
@global_flags
@pass_target
def hash_of(target: Target, tenant_id: str) -> None:
    """Compute a tenant's place on the hash line (no server needed)."""
    place = tenant_hash(tenant_id)
    target.show({"tenant_id": tenant_id, "hash": place}, place)


@tenant.command()
@click.argument("tenant_id")
@global_flags
@pass_target
def locate(target: Target, tenant_id: str) -> None:
    """Find the shard that owns a tenant, and the node that has it."""
    place = tenant_hash(tenant_id)
    owner = shard_of_tenant(target.connect().cluster(), tenant_id)
    target.show(
        {
            "tenant_id": tenant_id,
            "tenant_hash": place,
            "shard_id": owner.shard_id,
            "node_id": owner.node_id,
            "grpc_addr": owner.grpc_addr,
            "range_start": owner.range_start,
            "range_end": owner.range_end,
        },
        f"Tenant Location\n"
        f"  Tenant ID:   {tenant_id}\n"
        f"  Tenant Hash: {place}\n"
        f"  Shard ID:    {owner.shard_id}\n"
        f"  Node ID:     {owner.node_id or '-'}\n"
        f"  gRPC Addr:   {owner.grpc_addr or '-'}\n"
        f"  Shard Range: {range_text(owner)}",
    )


@tenant.command()
@click.argument("tenant_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@global_flags
@pass_target
def erase(target: Target, tenant_id: str, yes: bool) -> None:
    """Erase what all jobs of a tenant have carried so far: payloads, results and error data, in the rows and in the log.

    None of its jobs may be pending or running.  The jobs and their history stay, without that data.
    """
    if not yes:
        click.confirm(f"Erase the payloads, results and error data of all jobs of {tenant_id}?", abort=True)
    node = target.connect()
    owner = shard_of_tenant(node.cluster(), tenant_id)
    # A server without tenants has one, which nobody may name.
    named = tenant_id if tenant_id != DEFAULT_TENANT else None
    request = ext.EraseRequest(shard=owner.shard_id, tenant=named, all_jobs=True)
    reply = node.owner_of(owner.shard_id).call("Erase", request, service=HISTORY)
    target.show(
        {"status": "erasing", "tenant_id": tenant_id, "seq": reply.seq},
        f"Tenant {tenant_id} is being erased; the log says ErasureFinished (requested_seq {reply.seq}) when it is done",
    )
