"""Who must name a tenant, and who must not?  Every row of the contract, for every call that it is about."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb

INVALID = StatusCode.INVALID_ARGUMENT
WRONG_STATE = StatusCode.FAILED_PRECONDITION
NOT_FOUND = StatusCode.NOT_FOUND

REQUIRED = "tenant id required"
TOO_LONG = "invalid tenant id"
NOT_WANTED = "tenant must not be provided when tenancy is disabled on the server"
WORKER_REQUIRED = "tenant_id is required for worker operations when tenancy is enabled"

JOB_CALLS = {
    # What a call without a job is answered with, once its tenant is accepted; None: it succeeds.
    "Enqueue": (INVALID, "task_group is required"),
    "GetJob": (NOT_FOUND, "job not found"),
    "GetJobResult": (NOT_FOUND, "job not found"),
    "DeleteJob": None,
    "CancelJob": (NOT_FOUND, "job not found"),
    "DropTenantHolders": None,
    "RestartJob": (NOT_FOUND, "job not found"),
    "ExpediteJob": (NOT_FOUND, "job not found"),
    "LeaseTask": (INVALID, "worker_id is required"),
}

WORKER_CALLS = {
    "ReportOutcome": {"success": pb.SerializedBytes()},
    "ReportRefreshOutcome": {"success": pb.RefreshSuccess()},
    "Heartbeat": {},
}
NO_LEASE = (NOT_FOUND, "lease not found")

# (tenancy is on, the tenant that is sent, the refusal; None: it is accepted)
TRUTH = [
    pytest.param(True, "tenant-a", None, id="on and given"),
    pytest.param(True, "x" * 64, None, id="on and of 64 characters"),
    pytest.param(True, "日" * 64, None, id="on and of 64 characters with three bytes each"),
    pytest.param(True, "x" * 65, (INVALID, TOO_LONG), id="on and of 65 characters"),
    pytest.param(True, "", (INVALID, REQUIRED), id="on and empty"),
    pytest.param(True, None, (INVALID, REQUIRED), id="on and absent"),
    pytest.param(False, "tenant-a", (WRONG_STATE, NOT_WANTED), id="off and given"),
    pytest.param(False, "-", (WRONG_STATE, NOT_WANTED), id="off and given by its inner name"),
    pytest.param(False, "x" * 65, (WRONG_STATE, NOT_WANTED), id="off and of 65 characters"),
    pytest.param(False, "", None, id="off and empty"),
    pytest.param(False, None, None, id="off and absent"),
]


def fields_for(rpc: str, tenant: str | None) -> dict:
    fields: dict = {} if tenant is None else {"tenant": tenant}
    return fields if rpc == "DropTenantHolders" else {**fields, "id": "no such job"}


@pytest.mark.parametrize("rpc", JOB_CALLS)
@pytest.mark.parametrize(("tenancy", "tenant", "refused"), TRUTH)
def test_the_tenant_of_a_job_call(silo, tenants, rpc, tenancy, tenant, refused):
    server, fields = tenants if tenancy else silo, fields_for(rpc, tenant)
    answer = refused or JOB_CALLS[rpc]

    if answer is None:
        server.call(rpc, **fields)
    else:
        assert server.refusal(rpc, **fields) == answer


@pytest.mark.parametrize(("tenancy", "tenant", "refused"), TRUTH)
def test_the_tenant_of_an_entry_of_an_import(silo, tenants, tenancy, tenant, refused):
    server = tenants if tenancy else silo
    [result] = server.import_jobs({"tenant": tenant})

    assert result.success == (refused is None)
    if refused is not None:
        word = {INVALID: "InvalidArgument", WRONG_STATE: "FailedPrecondition"}[refused[0]]
        assert result.error == f'status: {word}, message: "{refused[1]}"'
        assert result.status == pb.JOB_STATUS_FAILED


@pytest.mark.parametrize("rpc", WORKER_CALLS)
@pytest.mark.parametrize(
    ("tenancy", "tenant", "answer"),
    [
        pytest.param(True, "tenant-a", NO_LEASE, id="on and given"),
        pytest.param(True, "x" * 65, NO_LEASE, id="on and of 65 characters"),
        pytest.param(True, "", (INVALID, WORKER_REQUIRED), id="on and empty"),
        pytest.param(True, None, (INVALID, WORKER_REQUIRED), id="on and absent"),
        pytest.param(False, "tenant-a", NO_LEASE, id="off and given"),
        pytest.param(False, "", NO_LEASE, id="off and empty"),
        pytest.param(False, None, NO_LEASE, id="off and absent"),
    ],
)
def test_the_tenant_of_a_worker_call(silo, tenants, rpc, tenancy, tenant, answer):
    server = tenants if tenancy else silo
    fields = WORKER_CALLS[rpc] | ({} if tenant is None else {"tenant_id": tenant})

    assert server.refusal(rpc, task_id="no such task", **fields) == answer


@pytest.mark.parametrize("rpc", ["ReportOutcome", "ReportRefreshOutcome"])
def test_a_worker_names_its_tenant_before_anybody_looks_for_the_outcome(tenants, rpc):
    assert tenants.refusal(rpc, task_id="no such task") == (INVALID, WORKER_REQUIRED)


@pytest.mark.parametrize("rpc", ["ReportOutcome", "ReportRefreshOutcome"])
def test_the_outcome_is_missed_before_the_lease(silo, rpc):
    assert silo.refusal(rpc, task_id="no such task") == (INVALID, "missing outcome")


def test_without_tenancy_a_worker_may_send_any_tenant(silo):
    job_id = silo.enqueue()
    task = silo.lease_one()
    fields = {"shard": task.shard, "task_id": task.id, "tenant_id": "whatever " * 20}

    assert not silo.call("Heartbeat", worker_id="w", **fields).cancelled
    silo.call("ReportOutcome", success=pb.SerializedBytes(), **fields)
    assert silo.job(job_id).status == pb.JOB_STATUS_SUCCEEDED


def test_the_tenant_of_a_report_need_not_be_that_of_the_lease(tenants):
    job_id = tenants.enqueue(tenant="tenant-a")
    task = tenants.lease_one()
    neighbour = "env-10"
    assert tenants.node.shard_of(neighbour) == task.shard
    fields = {"shard": task.shard, "task_id": task.id, "tenant_id": neighbour}

    tenants.call("Heartbeat", worker_id="w", **fields)
    tenants.call("ReportOutcome", success=pb.SerializedBytes(), **fields)
    assert tenants.job(job_id, tenant="tenant-a").status == pb.JOB_STATUS_SUCCEEDED


def test_a_task_tells_its_tenant_but_not_the_one_that_stands_for_none(silo, tenants):
    silo.enqueue()
    tenants.enqueue(tenant="tenant-a")

    assert not silo.lease_one().HasField("tenant_id")
    assert tenants.lease_one().tenant_id == "tenant-a"


def test_tasks_of_every_tenant_are_leased(tenants):
    for tenant in ("tenant-a", "tenant-b", "env-1"):
        tenants.enqueue(tenant=tenant)

    assert {task.tenant_id for task in tenants.lease()} == {"tenant-a", "tenant-b", "env-1"}


def test_two_tenants_may_have_jobs_of_the_same_id(tenants):
    one, other = "tenant-a", "env-10"
    assert tenants.node.shard_of(one) == tenants.node.shard_of(other)
    job_id = tenants.enqueue(tenant=one)
    tenants.enqueue(tenant=other, id=job_id, priority=7)
    tenants.call("CancelJob", tenant=one, id=job_id)

    assert tenants.job(job_id, tenant=one).status == pb.JOB_STATUS_CANCELLED
    assert tenants.job(job_id, tenant=other).status == pb.JOB_STATUS_SCHEDULED
    assert tenants.job(job_id, tenant=other).priority == 7
    assert [task.tenant_id for task in tenants.lease()] == [other]


@pytest.mark.parametrize("rpc", ["Query", "QueryArrow"])
@pytest.mark.parametrize("tenant", [None, "tenant-a", "x" * 65])
def test_nobody_looks_at_the_tenant_of_a_query(silo, tenants, rpc, tenant):
    fields = {"sql": "SELECT 1", **({} if tenant is None else {"tenant": tenant})}

    for server in (silo, tenants):
        assert server.call(rpc, **fields)


def test_nobody_looks_at_the_tenant_of_a_shard_s_configuration(silo):
    assert silo.call("ConfigureShard", shard=silo.node.shard, tenant="t").current_ring == ""
