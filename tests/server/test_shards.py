from __future__ import annotations

import random
from types import SimpleNamespace

import attrs
import grpc
import pytest

from silo.cluster.ranges import HashRange
from silo.cluster.shard_map import ShardMap
from silo.domain.tenants import tenant_hash
from silo.errors import Invalid, NotFound, ShardNotFound, ShardNotReady, StoreFailed, WrongState
from silo.pb import silo_pb2 as pb
from silo.server.cluster_info import Node
from silo.server.shards import OpenShard, Shards
from silo.shard.shard import Stage
from tests.server.running import running_node
from tests.serving import run

A, B, C, D = (f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "abcd")
LOW, HIGH = HashRange("", "8000000000000000"), HashRange("8000000000000000", "")
"""`-` and `tenant-a` lie in the lower half, `tenant-b` in the upper one."""


@attrs.frozen
class TwoNodes:
    """A cluster in which this node owns A and B, and another one C."""

    this = Node("here", "here:1")
    shards: ShardMap | None = None

    def owner_of(self, shard_id):
        return {A: self.this, B: self.this, C: Node("there", "there:1")}.get(shard_id)


def shards(*, tenancy=True, stage=Stage.SERVING, part=LOW):
    """A node that has A open."""
    opened = OpenShard(SimpleNamespace(shard_id=A, stage=stage), part)
    return Shards([opened], cluster=TwoNodes(), tenancy=tenancy, chance=random.Random(1))


@pytest.mark.parametrize("text", [A, A.upper(), A.replace("-", ""), f"{{{A}}}", f"urn:uuid:{A}"])
def test_a_shard_is_found_by_any_spelling_of_its_id(text):
    assert shards().resolve(text).id == A


def test_a_malformed_id_is_told_as_it_was_sent():
    with pytest.raises(Invalid, match=r"^invalid shard ID: Nonsense$"):
        shards().resolve("Nonsense")


def test_a_shard_of_another_node_is_answered_with_its_owner():
    with pytest.raises(ShardNotFound, match=r"^shard not found$") as refused:
        shards().resolve(C.upper())
    assert (refused.value.owner_addr, refused.value.owner_node) == ("there:1", "there")


def test_a_shard_that_nobody_knows_is_answered_without_an_owner():
    with pytest.raises(ShardNotFound) as refused:
        shards().resolve(D)
    assert (refused.value.owner_addr, refused.value.owner_node) == ("", "")


def test_an_own_shard_that_is_not_open_is_not_ready_and_never_a_redirect_to_this_node():
    with pytest.raises(ShardNotReady, match=r"^shard not ready: acquisition in progress$"):
        shards().resolve(B)


@pytest.mark.parametrize("stage", [Stage.CLOSED, Stage.OPENING, Stage.REPLAYING])
def test_a_shard_that_is_not_serving_yet_is_not_ready(stage):
    with pytest.raises(ShardNotReady):
        shards(stage=stage).resolve(A)
    assert shards(stage=stage).in_random_order() == []


def test_an_operator_is_not_sent_on():
    with pytest.raises(NotFound, match=f"^shard {C} not found on this node$"):
        shards().open_here(C)


LONG = "t" * 65


@pytest.mark.parametrize(
    ("tenancy", "tenant", "refusal"),
    [
        pytest.param(True, "tenant-a", None, id="on, given"),
        pytest.param(True, "", "tenant id required", id="on, missing"),
        pytest.param(True, LONG, "invalid tenant id", id="on, too long"),
        pytest.param(
            True,
            "tenant-b",
            f"tenant 'tenant-b' is not within shard {A} range [-∞, 8000000000000000); refresh topology and retry",
            id="on, of another shard",
        ),
        pytest.param(False, "", None, id="off, missing"),
        pytest.param(
            False,
            "tenant-a",
            "tenant must not be provided when tenancy is disabled on the server",
            id="off, given",
        ),
    ],
)
def test_a_call_about_jobs_names_a_tenant_if_and_only_if_there_are_tenants(tenancy, tenant, refusal):
    known = shards(tenancy=tenancy)
    if refusal is None:
        assert known.for_tenant(A, tenant)[1] == (tenant or "-")
        return
    with pytest.raises((Invalid, WrongState)) as refused:
        known.for_tenant(A, tenant)
    assert str(refused.value) == refusal


def test_without_tenants_only_the_shard_of_the_default_tenant_takes_jobs():
    with pytest.raises(WrongState, match=r"^tenant '-' is not within shard"):
        shards(tenancy=False, part=HIGH).for_tenant(A, "")


def test_a_wrong_shard_hides_a_bad_tenant():
    with pytest.raises(ShardNotFound):
        shards().for_tenant(C, LONG)


def test_a_worker_must_name_the_tenant_only_if_there_are_tenants():
    assert shards(tenancy=False).for_worker(A, LONG).shard_id == A
    with pytest.raises(
        Invalid, match=r"^tenant_id is required for worker operations when tenancy is enabled$"
    ):
        shards().for_worker(A, "")
    # Unlike a client's, its length is not looked at, only its place.
    long_one = next(name for name in (f"{LONG}{n}" for n in range(99)) if tenant_hash(name) < "8")
    shards().for_worker(A, long_one)


# --- LeaseTasks -------------------------------------------------------------------------------------------------------


def a_lease(**but):
    return pb.LeaseTasksRequest(**{"worker_id": "w", "task_group": "g", "max_tasks": 100, **but})


async def enqueue_for_each(node, tenants):
    for tenant in tenants:
        request = pb.EnqueueRequest(shard=node.shard_of(tenant), task_group="g", tenant=tenant)
        await node.call("Enqueue", request)


TENANTS = ("tenant-a", "tenant-b", "customer-123", "env-1")


def test_a_worker_without_a_shard_gets_work_from_all_of_them():
    async def lease():
        async with running_node(shards=4, tenancy=True) as node:
            await enqueue_for_each(node, TENANTS)
            nothing = await node.call("LeaseTasks", a_lease(max_tasks=0))
            some = await node.call("LeaseTasks", a_lease(max_tasks=3))
            rest = await node.call("LeaseTasks", a_lease())
            assert [len(reply.tasks) for reply in (nothing, some, rest)] == [0, 3, 1]
            tasks = [*some.tasks, *rest.tasks]
            assert {task.tenant_id for task in tasks} == set(TENANTS)
            assert all(task.shard == node.shard_of(task.tenant_id) for task in tasks)

    run(lease())


def test_a_worker_may_ask_for_more_than_one_command_leases():
    async def lease():
        async with running_node() as node:
            history = [pb.ImportJobRequest(shard=node.shard, id=f"j{n}", task_group="g") for n in range(600)]
            reply = await node.call("ImportJobs", pb.ImportJobsRequest(jobs=history))
            assert all(result.success for result in reply.results)
            reply = await node.call("LeaseTasks", a_lease(max_tasks=550))
            assert len({task.id for task in reply.tasks}) == 550

    run(lease())


async def broken(*_, **__):
    raise StoreFailed("the store failed")


def test_a_shard_that_fails_costs_a_worker_only_its_own_work(monkeypatch):
    async def lease():
        async with running_node(shards=4, tenancy=True) as node:
            await enqueue_for_each(node, TENANTS)
            bad = node.shard_of("tenant-b")
            [opened] = [opened for opened in node.node.broker.shards if opened.id == bad]
            monkeypatch.setattr(opened.shard, "execute", broken)
            reply = await node.call("LeaseTasks", a_lease())
            assert len(reply.tasks) == sum(node.shard_of(tenant) != bad for tenant in TENANTS)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await node.call("LeaseTasks", a_lease(shard=bad))
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE

    run(lease())
