"""Which shard serves a tenant, and what does a call hear that came to another?"""

from __future__ import annotations

import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import NIL, Silo

NOT_FOUND = StatusCode.NOT_FOUND
WRONG_STATE = StatusCode.FAILED_PRECONDITION

BOUNDS = {
    1: [],
    2: ["8000000000000000"],
    3: ["5555555555555555", "aaaaaaaaaaaaaaaa"],
    8: [f"{digit}000000000000000" for digit in "2468ace"],
}

PLACES = {
    "-": "7a162ebe4ce6fc55",
    "tenant-a": "24cbcbec76c2694a",
    "tenant-b": "d2320a2aacf4fb75",
    "customer-123": "0bb632d435317a69",
    "env-1": "c9e27457ebe2c8a1",
    "env-10000468093": "a30d853ca15b32d6",
    "日本": "80c2e40b8486afab",
    "x" * 64: "a97161d5402f516e",
}
"""The published hashes of tenants."""


@pytest.fixture(scope="module", params=BOUNDS, ids=lambda count: f"{count} shards")
def split(nodes, request) -> Silo:
    """A node with tenants and one, two, three or eight shards."""
    return nodes.start(shards=request.param, tenancy=True)


def owners(silo: Silo) -> list[pb.ShardOwner]:
    return list(silo.call("GetClusterInfo").shard_owners)


def test_shards_tile_the_hash_line_in_order(split):
    found = owners(split)
    inner = BOUNDS[len(found)]

    assert [owner.range_start for owner in found] == ["", *inner]
    assert [owner.range_end for owner in found] == [*inner, ""]


def within(place: str, owner: pb.ShardOwner) -> bool:
    return owner.range_start <= place and (not owner.range_end or place < owner.range_end)


@pytest.mark.parametrize("tenant", PLACES)
def test_a_tenant_s_jobs_are_taken_by_the_shard_of_its_hash_and_by_no_other(split, tenant):
    for owner in owners(split):
        fields = {"shard": owner.shard_id, "tenant": tenant}
        if within(PLACES[tenant], owner):
            assert split.has(split.enqueue(**fields), **fields)
            continue
        span = f"[{owner.range_start or '-∞'}, {owner.range_end or '+∞'})"
        text = (
            f"tenant '{tenant}' is not within shard {owner.shard_id} range {span}; refresh topology and retry"
        )
        assert split.refusal("Enqueue", **split.job_fields(**fields)) == (WRONG_STATE, text)


ABOUT_JOBS = (
    "Enqueue GetJob GetJobResult DeleteJob CancelJob DropTenantHolders RestartJob ExpediteJob LeaseTask"
)
ABOUT_TASKS = {
    "ReportOutcome": {"success": pb.SerializedBytes()},
    "ReportRefreshOutcome": {"success": pb.RefreshSuccess()},
    "Heartbeat": {},
}


def wrong_shard(tenants: Silo) -> tuple[str, str]:
    """A shard that is not tenant-a's, and what a call about tenant-a hears there."""
    shard = tenants.node.shard_of("tenant-b")
    text = f"tenant 'tenant-a' is not within shard {shard} range [8000000000000000, +∞); refresh topology and retry"
    return shard, text


@pytest.mark.parametrize("rpc", ABOUT_JOBS.split())
def test_every_call_about_jobs_is_refused_by_a_shard_of_other_tenants(tenants, rpc):
    shard, text = wrong_shard(tenants)

    assert tenants.refusal(rpc, shard=shard, tenant="tenant-a") == (WRONG_STATE, text)


@pytest.mark.parametrize("rpc", ABOUT_TASKS)
def test_every_call_about_tasks_is_refused_by_a_shard_of_other_tenants(tenants, rpc):
    shard, text = wrong_shard(tenants)
    fields = {"shard": shard, "tenant_id": "tenant-a", **ABOUT_TASKS[rpc]}

    assert tenants.refusal(rpc, **fields) == (WRONG_STATE, text)


def test_an_entry_of_an_import_for_another_shard_fails_in_its_place(tenants):
    shard, text = wrong_shard(tenants)
    job_id = tenants.new_id()
    [result] = tenants.import_jobs({"id": job_id, "shard": shard, "tenant": "tenant-a"})

    assert (result.id, result.success) == (job_id, False)
    assert result.error == f'status: FailedPrecondition, message: "{text}"'


def test_without_tenancy_all_jobs_are_in_the_shard_of_one_hyphen(silo):
    [owner] = [owner for owner in owners(silo) if within(PLACES["-"], owner)]
    other = next(found.shard_id for found in owners(silo) if found.shard_id != owner.shard_id)
    code, text = silo.refusal("Enqueue", **silo.job_fields(shard=other))

    assert silo.has(silo.enqueue(shard=owner.shard_id))
    assert code is WRONG_STATE
    assert text.startswith(f"tenant '-' is not within shard {other} range [")


# --- shards that are not here ----------------------------------------------------------------------------------------

WITH_REDIRECT = [*ABOUT_JOBS.split(), *ABOUT_TASKS, "LeaseTasks", "Query", "QueryArrow"]


@pytest.mark.parametrize("rpc", WITH_REDIRECT)
def test_a_shard_that_does_not_exist_is_not_found_and_has_no_owner(tenants, rpc):
    # Neither the tenant nor anything else is looked at before the shard is found.
    fields = {"task_group": "g"} if rpc == "LeaseTasks" else {}
    error = tenants.error(rpc, shard=NIL, **fields)

    assert (error.code(), error.details()) == (NOT_FOUND, "shard not found")
    assert not [key for key, _ in error.trailing_metadata() or () if key.startswith("x-silo-")]


def test_an_entry_of_an_import_for_no_shard_at_all_fails_in_its_place(silo):
    [lost, kept] = silo.import_jobs({"id": silo.new_id(), "shard": NIL}, {"id": silo.new_id()})

    assert (lost.success, kept.success) == (False, True)
    assert lost.error == 'status: NotFound, message: "shard not found"'


@pytest.mark.parametrize("rpc", ["CompactShard", "FlushShard", "GetShardStorageInfo"])
@pytest.mark.parametrize("spelling", [NIL, NIL.replace("-", "")])
def test_an_operator_s_call_is_not_sent_on_and_repeats_the_shard_as_it_was_sent(silo, rpc, spelling):
    error = silo.error(rpc, shard=spelling)

    assert (error.code(), error.details()) == (NOT_FOUND, f"shard {spelling} not found on this node")
    assert not [key for key, _ in error.trailing_metadata() or () if key.startswith("x-silo-")]


def test_a_task_leased_by_its_shard_s_filter_comes_from_there_alone(tenants):
    for tenant in ("tenant-a", "tenant-b"):
        tenants.enqueue(tenant=tenant)
    shard = tenants.node.shard_of("tenant-b")

    assert [(task.tenant_id, task.shard) for task in tenants.lease(shard=shard)] == [("tenant-b", shard)]
    assert [task.tenant_id for task in tenants.lease()] == ["tenant-a"]
