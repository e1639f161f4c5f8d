from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from silo.domain.tenants import DEFAULT_TENANT
from silo.errors import ConfigError, Corrupt, Fenced, StoreFailed
from silo.pb import silo_pb2 as pb
from silo.server import broker as broker_module
from silo.server import node as node_module
from silo.server import worker_calls
from silo.server.job_calls import ImportBatch
from silo.server.node import Node
from silo.settings import Coordination, Server
from silo.shard.draft import SYSTEM
from silo.shard.jobs import JobName
from silo.shard.reading import get_history
from silo.shard.shard import Stage
from silo.storage.stores import delete_database
from tests.server.running import memory_settings, running_node
from tests.serving import run


def test_a_job_goes_through_its_whole_life():
    async def live():
        async with running_node(shards=3) as node:
            job = pb.EnqueueRequest(
                shard=node.shard, id="j1", task_group="g", payload=pb.SerializedBytes(msgpack=b"\xa1x")
            )
            assert (await node.call("Enqueue", job)).id == "j1"
            leased = await node.call(
                "LeaseTasks", pb.LeaseTasksRequest(worker_id="w", task_group="g", max_tasks=4)
            )
            [task] = leased.tasks
            assert (task.job_id, task.payload.msgpack, task.shard) == ("j1", b"\xa1x", node.shard)
            beat = pb.HeartbeatRequest(shard=task.shard, worker_id="w", task_id=task.id)
            assert not (await node.call("Heartbeat", beat)).cancelled
            report = pb.ReportOutcomeRequest(
                shard=task.shard, task_id=task.id, success=pb.SerializedBytes(msgpack=b"\x01")
            )
            await node.call("ReportOutcome", report)
            found = await node.call(
                "GetJob", pb.GetJobRequest(shard=node.shard, id="j1", include_attempts=True)
            )
            assert found.status == pb.JOB_STATUS_SUCCEEDED
            assert found.result.msgpack == b"\x01"
            assert [attempt.status for attempt in found.attempts] == [pb.ATTEMPT_STATUS_SUCCEEDED]

    run(live())


def test_a_port_that_is_taken_is_a_clear_error_and_leaves_the_other_server_alone():
    async def start_twice():
        async with running_node() as node:
            second = Node(memory_settings(server=Server(grpc_addr=node.address)))
            with pytest.raises(ConfigError, match=f"cannot listen on {node.address}"):
                await second.start()
            assert (await node.call("GetClusterInfo", pb.GetClusterInfoRequest())).num_shards == 1

    run(start_twice())


def test_a_node_that_finds_its_shards_open_elsewhere_says_so_and_wants_to_stop():
    async def open_twice():
        async with running_node() as node:
            settings = memory_settings(database=node.node.settings.database)
            second = Node(settings)
            await second.start()
            try:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, task_group="g"))
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                await node.node.failed.wait()
                assert isinstance(node.node.failure, Fenced)
            finally:
                await second.stop()

    run(open_twice())


def test_a_node_tells_the_address_that_clients_can_reach():
    async def ask(**sections):
        async with running_node(**sections) as node:
            info = await node.call("GetClusterInfo", pb.GetClusterInfoRequest())
            return node.address, info

    address, info = run(ask(shards=3))
    assert info.this_grpc_addr == address
    assert {owner.grpc_addr for owner in info.shard_owners} == {address}
    assert [member.grpc_addr for member in info.members] == [address]

    _, info = run(ask(coordination=Coordination(advertised_grpc_addr="silo.example:7450", node_id="n1")))
    assert info.this_grpc_addr == "silo.example:7450"
    assert info.this_node_id == "n1"


def test_health_is_told_without_a_token():
    async def ask():
        async with running_node(auth_token="secret") as node:
            stub = health_pb2_grpc.HealthStub(node.channel)
            for service in ("", "silo.v1.Silo"):
                reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                assert reply.status == health_pb2.HealthCheckResponse.SERVING

    run(ask())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_service_under_its_new_and_its_old_name(version):
    async def ask():
        async with running_node(auth_token="secret") as node:
            ask = node.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            call = ask(
                iter(
                    [
                        reflection_pb2.ServerReflectionRequest(list_services=""),
                        reflection_pb2.ServerReflectionRequest(file_containing_symbol="silo.v1.Silo"),
                    ]
                )
            )
            services, file = [reply async for reply in call]
            names = {service.name for service in services.list_services_response.service}
            assert {"silo.v1.Silo", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= names
            [descriptor] = file.file_descriptor_response.file_descriptor_proto
            assert FileDescriptorProto.FromString(descriptor).package == "silo.v1"

    run(ask())


@pytest.mark.slow
def test_a_client_that_pings_all_the_time_stays_connected():
    """With gRPC's own settings the third ping or so gets `too_many_pings` and the connection is gone."""

    async def ping():
        pings = {"grpc.keepalive_time_ms": 1_000, "grpc.keepalive_permit_without_calls": 1}
        pings["grpc.http2.max_pings_without_data"] = 0
        async with running_node(channel_options=pings) as node:
            await node.call("GetClusterInfo", pb.GetClusterInfoRequest())
            assert node.channel.get_state() is grpc.ChannelConnectivity.READY
            changed = asyncio.create_task(
                node.channel.wait_for_state_change(grpc.ChannelConnectivity.READY), name="connection"
            )
            done, _ = await asyncio.wait([changed], timeout=7)
            changed.cancel()
            assert not done

    run(ping())


def test_a_reset_shard_is_empty_and_can_be_used_at_once():
    async def reset():
        async with running_node(shards=3, dev_mode=True) as node:
            job = pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g")
            await node.call("Enqueue", job)
            before = await node.call("GetClusterInfo", pb.GetClusterInfoRequest())
            assert (await node.call("ResetShards", pb.ResetShardsRequest())).shards_reset == 3
            assert await node.call("GetClusterInfo", pb.GetClusterInfoRequest()) == before
            await node.call("Enqueue", job)
            info = await node.call("GetNodeInfo", pb.GetNodeInfoRequest())
            assert sum(shard.total_jobs for shard in info.owned_shards) == 1

    run(reset())


async def until_all_are(stage, node):
    for opened in node.node.broker.shards:
        while opened.shard.stage is not stage:  # noqa: ASYNC110 - a stage tells nobody that it has changed
            await asyncio.sleep(0.01)


def test_a_reset_whose_caller_goes_away_leaves_no_shard_closed(monkeypatch):
    deleting, may_delete = asyncio.Event(), asyncio.Event()

    async def slow_delete(stores, shard_id):
        deleting.set()
        await may_delete.wait()
        await delete_database(stores, shard_id)

    async def give_up():
        async with running_node(dev_mode=True) as node:
            monkeypatch.setattr(node_module, "delete_with_archive", slow_delete)
            job = pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g")
            await node.call("Enqueue", job)
            call = node.call("ResetShards", pb.ResetShardsRequest())
            await deleting.wait()
            call.cancel()
            await asyncio.sleep(0.1)
            may_delete.set()
            await until_all_are(Stage.SERVING, node)
            await node.call("Enqueue", job)

    run(give_up())


def test_two_resets_at_once_come_one_after_the_other():
    async def reset_twice():
        async with running_node(shards=3, dev_mode=True) as node:
            calls = [node.call("ResetShards", pb.ResetShardsRequest()) for _ in range(3)]
            assert [reply.shards_reset for reply in await asyncio.gather(*calls)] == [3, 3, 3]
            await until_all_are(Stage.SERVING, node)
            await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g"))

    run(reset_twice())


def test_a_reset_that_fails_says_so_and_opens_the_shard_again(monkeypatch):
    async def failing_delete(stores, shard_id):
        raise StoreFailed("no")

    async def fail():
        async with running_node(dev_mode=True) as node:
            await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g"))
            [opened] = node.node.broker.shards
            open_database, tries = opened.shard._open_database, []

            async def open_at_the_third_try():
                tries.append(1)
                if len(tries) < 3:
                    raise StoreFailed("not yet")
                return await open_database()

            monkeypatch.setattr(node_module, "delete_with_archive", failing_delete)
            monkeypatch.setattr(opened.shard, "_open_database", open_at_the_third_try)
            with pytest.raises(grpc.aio.AioRpcError, match=f"Failed to reset shard {node.shard}: no"):
                await node.call("ResetShards", pb.ResetShardsRequest())
            assert len(tries) == 3
            assert (await node.call("GetJob", pb.GetJobRequest(shard=node.shard, id="j1"))).id == "j1"

    run(fail())


def test_a_node_stops_although_a_reset_waits_for_the_store(monkeypatch):
    monkeypatch.setattr(node_module, "DRAIN_S", 0.1)
    monkeypatch.setattr(broker_module, "RESETS_DRAIN_S", 0.1)

    async def never(*_):
        raise StoreFailed("away")

    async def stop():
        async with running_node(dev_mode=True) as node:
            [opened] = node.node.broker.shards
            monkeypatch.setattr(opened.shard, "_open_database", never)
            call = node.call("ResetShards", pb.ResetShardsRequest())
            await until_all_are(Stage.OPENING, node)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await call

    run(stop())


def test_a_shard_that_was_stopped_and_reset_is_still_watched(monkeypatch):
    monkeypatch.setattr(broker_module, "WATCH_AGAIN_S", 0.01)

    async def live():
        async with running_node(dev_mode=True) as node:
            [opened] = node.node.broker.shards
            opened.shard._failed.set(Corrupt("bytes"))
            await opened.shard.stopped.wait()
            await asyncio.sleep(0.05)
            await node.call("ResetShards", pb.ResetShardsRequest())
            await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g"))
            assert not node.node.failed.is_set()
            opened.shard._failed.set(Fenced("somebody else"))
            await node.node.failed.wait()
            assert isinstance(node.node.failure, Fenced)

    run(live())


def test_a_lease_reply_is_bounded_with_metadata_and_all(monkeypatch):
    bound = 32 << 10
    monkeypatch.setattr(worker_calls, "LEASED_BYTES_MAX", bound)
    monkeypatch.setattr(worker_calls, "TASKS_PER_COMMAND_MAX", 16)

    async def lease_all(count, **fields):
        async with running_node() as node:
            for number in range(count):
                job = pb.EnqueueRequest(shard=node.shard, id=f"j{number}", task_group="g", **fields)
                await node.call("Enqueue", job)
            request = pb.LeaseTasksRequest(worker_id="w", task_group="g", max_tasks=100_000)
            sizes, leased = [], []
            while len(leased) < count:
                reply = await node.call("LeaseTasks", request)
                sizes.append(reply.ByteSize())
                leased += [task.job_id for task in reply.tasks]
            return sizes, leased

    for count, fields in ((20, {"metadata": {"k": "x" * 10_000}}), (500, {})):
        sizes, leased = run(lease_all(count, **fields))
        assert sorted(leased) == sorted(f"j{number}" for number in range(count))
        assert len(sizes) > 1
        # One command of 16 tasks more at most, and of each only what is neither payload nor metadata.
        assert max(sizes) < bound + (8 << 10)


def test_a_job_that_is_leased_while_an_import_is_under_way_fails_by_itself():
    async def take_in():
        async with running_node() as node:
            await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, id="known", task_group="g"))
            done = [pb.ImportAttempt(status=pb.ATTEMPT_STATUS_SUCCEEDED, started_at_ms=1, finished_at_ms=2)]
            ids = [*(f"i{number}" for number in range(250)), "known", "last"]
            batch = ImportBatch(
                node.node.broker.shards,
                [
                    pb.ImportJobRequest(shard=node.shard, id=job_id, task_group="h", attempts=done)
                    for job_id in ids
                ],
            )
            await batch.refuse_running()
            lease = pb.LeaseTasksRequest(worker_id="w", task_group="g", max_tasks=1)
            assert len((await node.call("LeaseTasks", lease)).tasks) == 1
            await batch.take_in(SYSTEM)
            assert [result.id for result in batch.results if not result.success] == ["known"]
            assert "job is currently running" in batch.results[250].error

    run(take_in())


def test_a_shard_keeps_its_jobs_when_its_node_starts_again():
    async def start_again():
        async with running_node() as node:
            await node.call("Enqueue", pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g"))
            database = node.node.settings.database
        async with running_node(database=database) as node:
            assert (await node.call("GetJob", pb.GetJobRequest(shard=node.shard, id="j1"))).id == "j1"

    run(start_again())


def test_tasks_are_dumped_with_their_names_and_places():
    async def dump():
        async with running_node() as node:
            reply = await node.call("DumpTasks", pb.DumpTasksRequest())
            assert f"timers {node.shard}" in reply.dump
            assert "timers.py:" in reply.dump
            assert reply.task_count == reply.dump.count("\n") + 1 - reply.dump.count("\n  ")

    run(dump())


async def history(node, job_id):
    """The callers in a job's history, oldest first."""
    [opened] = node.node.broker.shards
    name = JobName(DEFAULT_TENANT, job_id)
    last_seq = await opened.shard.execute(get_history, name)
    return [(event.actor, event.method) for event in await opened.shard.log.history(last_seq)]


def test_a_job_remembers_who_called_for_what():
    async def live():
        async with running_node() as node:
            job = pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g")
            await node.call("Enqueue", job, [("x-silo-actor", "billing")])
            lease = pb.LeaseTasksRequest(worker_id="w1", task_group="g", max_tasks=1)
            await node.call("LeaseTasks", lease)
            await node.call("CancelJob", pb.CancelJobRequest(shard=node.shard, id="j1"))
            assert await history(node, "j1") == [
                ("billing", "Enqueue"),
                ("billing", "Enqueue"),
                ("w1", "LeaseTasks"),
                ("client", "CancelJob"),
            ]

    run(live())


def test_a_large_payload_comes_back_as_it_was():
    async def live():
        async with running_node() as node:
            payload = pb.SerializedBytes(msgpack=b"\xc6" + bytes(5 << 20))
            await node.call(
                "Enqueue", pb.EnqueueRequest(shard=node.shard, id="j1", task_group="g", payload=payload)
            )
            assert (await node.call("GetJob", pb.GetJobRequest(shard=node.shard, id="j1"))).payload == payload

    run(live())
