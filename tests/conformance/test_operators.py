"""The calls of those who keep a server going: what it has, how it is stored, and what it will not do."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest
from grpc import StatusCode

from silo.pb import pprof_pb2 as pprof
from silo.pb import silo_pb2 as pb
from silo.settings import Coordination
from tests.conformance.client import NIL, data

INVALID = StatusCode.INVALID_ARGUMENT
INTERNAL = StatusCode.INTERNAL
WRONG_STATE = StatusCode.FAILED_PRECONDITION


# --- GetClusterInfo and GetNodeInfo ----------------------------------------------------------------------------------


def test_the_cluster_is_this_server_which_owns_every_shard(silo):
    info = silo.call("GetClusterInfo")

    assert info.num_shards == len(info.shard_owners) == 8
    assert info.this_grpc_addr == silo.node.address
    assert {(owner.grpc_addr, owner.node_id) for owner in info.shard_owners} == {
        (info.this_grpc_addr, info.this_node_id)
    }
    assert [owner.range_start for owner in info.shard_owners] == sorted(
        owner.range_start for owner in info.shard_owners
    )
    assert not any(owner.HasField("placement_ring") for owner in info.shard_owners)
    assert list(info.members) == [pb.ClusterMember(node_id=info.this_node_id, grpc_addr=info.this_grpc_addr)]


def test_shard_ids_are_told_in_their_canonical_spelling(silo):
    ids = [owner.shard_id for owner in silo.call("GetClusterInfo").shard_owners]

    assert [str(uuid.UUID(shard_id)) for shard_id in ids] == ids
    assert len(set(ids)) == 8


def test_a_server_tells_its_name_and_the_address_that_clients_are_to_dial(nodes):
    coordination = Coordination(
        initial_shard_count=1,
        advertised_grpc_addr="silo.example:7450",
        node_id="node-1",
        placement_rings=("big", "fast"),
    )
    server = nodes.start(coordination=coordination)
    info = server.call("GetClusterInfo")

    assert (info.this_grpc_addr, info.this_node_id) == ("silo.example:7450", "node-1")
    assert [(owner.grpc_addr, owner.node_id) for owner in info.shard_owners] == [
        ("silo.example:7450", "node-1")
    ]
    assert [list(member.placement_rings) for member in info.members] == [["big", "fast"]]
    assert list(server.call("GetNodeInfo").placement_rings) == ["big", "fast"]


def test_a_server_tells_its_shards_by_their_ids_and_how_many_jobs_each_has(nodes):
    before_ms = time.time_ns() // 1_000_000
    server = nodes.start(shards=3)
    for _ in range(3):
        server.enqueue()
    server.report(server.lease(max_tasks=1)[0], success=b"")
    cancelled, deleted = server.enqueue(), server.enqueue()
    for job_id in (cancelled, deleted):
        server.call("CancelJob", id=job_id)
    server.call("DeleteJob", id=deleted)
    info = server.call("GetNodeInfo")
    shards = list(info.owned_shards)

    assert info.node_id == server.call("GetClusterInfo").this_node_id
    assert [shard.shard_id for shard in shards] == sorted(shard.shard_id for shard in shards)
    counts = {shard.shard_id: (shard.total_jobs, shard.completed_jobs) for shard in shards}
    assert counts.pop(server.node.shard) == (4, 2)
    assert set(counts.values()) == {(0, 0)}
    assert {(shard.cleanup_status, shard.cleanup_completed_at_ms) for shard in shards} == {
        ("CompactionDone", 0)
    }
    assert all(before_ms <= shard.created_at_ms <= time.time_ns() // 1_000_000 for shard in shards)


def test_a_job_that_is_restarted_is_not_a_completed_one(nodes):
    server = nodes.start()

    def completed() -> int:
        return int(server.call("GetNodeInfo").owned_shards[0].completed_jobs)

    job_id = server.enqueue()
    server.report(server.lease_one(), failure=("E", b""))
    assert completed() == 1
    server.call("RestartJob", id=job_id)
    assert completed() == 0


# --- ResetShards -----------------------------------------------------------------------------------------------------


def test_only_a_server_in_dev_mode_wipes_its_shards(silo):
    job_id = silo.enqueue()

    refusal = (StatusCode.PERMISSION_DENIED, "ResetShards is only available in dev mode")
    assert silo.refusal("ResetShards") == refusal
    assert silo.has(job_id)


def test_a_reset_wipes_all_shards_which_are_of_use_at_once(nodes):
    server = nodes.start(shards=2, tenancy=True, dev_mode=True)
    homes = ("tenant-a", "tenant-b")
    jobs = {tenant: server.enqueue(tenant=tenant) for tenant in homes}
    task = server.lease(max_tasks=1)[0]
    before = server.call("GetClusterInfo")

    assert server.call("ResetShards").shards_reset == 2
    assert server.call("GetClusterInfo") == before
    for tenant, job_id in jobs.items():
        assert not server.has(job_id, tenant=tenant)
    beat = {"shard": task.shard, "task_id": task.id, "tenant_id": task.tenant_id, "worker_id": "w"}
    assert server.refusal("Heartbeat", **beat) == (StatusCode.NOT_FOUND, "lease not found")
    assert server.lease() == []
    for tenant, job_id in jobs.items():
        server.enqueue(tenant=tenant, id=job_id)
    assert len(server.lease()) == 2
    assert [shard.total_jobs for shard in server.call("GetNodeInfo").owned_shards] == [1, 1]

    assert server.call("ResetShards").shards_reset == 2
    assert server.lease() == []


# --- splits, rings and owners ----------------------------------------------------------------------------------------


def test_no_split_is_under_way_of_a_shard_that_is_known_or_not(silo):
    for shard_id in (silo.node.shard, NIL):
        assert silo.call("GetSplitStatus", shard_id=shard_id) == pb.GetSplitStatusResponse()


def test_a_split_that_cannot_be_done_says_why(silo):
    first = silo.call("GetClusterInfo").shard_owners[0]
    outside = (
        "invalid split: invalid split point: split point '8000000000000000' is not within "
        "shard range [-∞, 2000000000000000)"
    )

    def refusal(**fields: str) -> tuple[StatusCode, str]:
        return silo.refusal("RequestSplit", **{"shard_id": first.shard_id, **fields})

    assert refusal() == (INVALID, "split_point is required")
    assert refusal(shard_id=NIL) == (INVALID, "split_point is required")
    assert refusal(shard_id=NIL, split_point="8" * 16) == (WRONG_STATE, "this node does not own the shard")
    assert refusal(split_point="8000000000000000") == (INVALID, outside)
    assert refusal(split_point="1000000000000000") == (
        INTERNAL,
        "split request failed: not supported by this backend",
    )


def test_a_split_point_at_the_start_of_the_range_leaves_nothing_on_its_left(silo):
    second = silo.call("GetClusterInfo").shard_owners[1]
    code, text = silo.refusal("RequestSplit", shard_id=second.shard_id, split_point=second.range_start)

    assert (code, text.partition(": ")[0]) == (INVALID, "invalid split")


@pytest.mark.parametrize("ring", [{}, {"placement_ring": ""}], ids=["absent", "empty"])
def test_a_shard_can_always_be_put_into_the_default_ring(silo, ring):
    reply = silo.call("ConfigureShard", shard=silo.node.shard.upper(), **ring)

    assert reply == pb.ConfigureShardResponse(previous_ring="", current_ring="")


def test_a_ring_that_no_server_has_is_refused(silo):
    text = (
        "placement ring 'gpu' has no members: no current cluster member advertises it (members advertise: default), "
        "so the shard would have no eligible owner; set allow_unpopulated_ring to pin it anyway"
    )

    for shard in (silo.node.shard, NIL):
        assert silo.refusal("ConfigureShard", shard=shard, placement_ring="gpu") == (WRONG_STATE, text)


def test_a_shard_that_does_not_exist_cannot_be_configured(silo):
    assert silo.refusal("ConfigureShard", shard=NIL) == (INTERNAL, f"shard not found: {NIL}")


def test_there_is_no_lease_of_a_shard_to_release(silo):
    assert silo.call("ForceReleaseShard").released


# --- storage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [str, str.upper], ids=["as it is", "in upper case"])
def test_a_shard_is_flushed_and_compacted_and_repeated_as_it_was_named(silo, spelling):
    job_id = silo.enqueue(payload=data(b"x" * 100_000))
    shard = spelling(silo.node.shard)

    assert silo.call("FlushShard", shard=shard).status == f"flushed shard {shard}"
    info = silo.call("GetShardStorageInfo", shard=shard)
    assert info.l0_sst_count + info.sorted_run_count >= 1
    assert info.total_l0_size + info.total_sorted_run_size > 0
    assert info.sorted_run_count == len(info.sorted_runs)
    assert info.total_sorted_run_size == sum(run.estimated_size for run in info.sorted_runs)

    submitted = f"full compaction submitted for shard {shard}"
    assert silo.call("CompactShard", shard=shard).status == submitted
    assert silo.has(job_id)


# --- what goes on inside ---------------------------------------------------------------------------------------------


def test_the_server_tells_what_its_tasks_wait_for(silo):
    reply = silo.call("DumpTasks")

    assert reply.task_count >= 8
    assert f"log {silo.node.shard}" in reply.dump
    assert "DumpTasks" in reply.dump


def test_a_cpu_profile_is_one_that_pprof_reads(silo):
    reply = silo.call("CpuProfile", duration_seconds=1)
    profile = pprof.Profile.FromString(reply.profile_data)

    assert reply.duration_seconds == 1
    assert reply.samples == sum(sample.value[0] for sample in profile.sample)
    assert profile.period == 10_000_000
    assert "silo.server.cpu_profile.Sampler.run" in profile.string_table


def test_profiles_are_made_one_after_the_other(silo):
    async def ask_twice():
        request = silo.request("CpuProfile", duration_seconds=1)
        return await asyncio.gather(*(silo.node.call("CpuProfile", request) for _ in range(2)))

    made = [pprof.Profile.FromString(reply.profile_data) for reply in silo.nodes.run(ask_twice())]
    first, second = sorted(made, key=lambda profile: profile.time_nanos)

    assert first.time_nanos + first.duration_nanos <= second.time_nanos


def test_there_are_no_heap_profiles(silo):
    text = "heap profiling is not enabled in the allocator"
    assert silo.refusal("HeapProfile", duration_seconds=1) == (WRONG_STATE, text)
