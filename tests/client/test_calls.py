"""The client against brokers that restart, redirect, refuse and stall."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from silo.client import (
    AlreadyCancelled,
    AsyncClient,
    BrokerFailed,
    BrokerUnavailable,
    Forbidden,
    InvalidRequest,
    JobExists,
    JobInProgress,
    JobNotFound,
    LeaseLost,
    NewJob,
    NotAuthenticated,
    NotFinished,
    NotSupported,
    TimedOut,
    TooLarge,
    WrongState,
)
from silo.client.errors import error_for
from silo.pb import silo_pb2 as pb
from silo.server.node import Node
from silo.settings import Server
from silo.testing.in_process import memory_settings
from tests.client.running import SHARD, connected, refuse, scripted
from tests.serving import IN_S, run, turns

Code = grpc.StatusCode
SECOND = "00000000-0000-4000-8000-000000000002"


def enqueued(job_id: str = "a") -> pb.EnqueueResponse:
    return pb.EnqueueResponse(id=job_id)


# --- stalls and outages --------------------------------------------------------------------------------------------------


def test_a_call_is_sent_again_while_the_broker_says_unavailable():
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:
            server.answers["Enqueue"] = refuse(Code.UNAVAILABLE, "opening", times=3, then=enqueued())
            job = await client.enqueue("g", id="a")
            assert job.id == "a"
            assert server.count("Enqueue") == 4

    run(main())


def test_a_call_that_is_not_answered_in_time_is_sent_again():
    async def main():
        async with scripted() as server, AsyncClient(server.address, try_s=0.1) as client:
            stalls = 2

            async def answer(_, context):
                nonlocal stalls
                if stalls:
                    stalls -= 1
                    await asyncio.sleep(IN_S)
                return enqueued()

            server.answers["Enqueue"] = answer
            await client.enqueue("g", id="a")
            assert server.count("Enqueue") == 3

    run(main())


def test_when_the_time_is_over_the_error_says_where_how_often_and_why():
    async def main():
        async with scripted() as server, AsyncClient(server.address, timeout_s=0.5) as client:
            server.answers["Enqueue"] = refuse(Code.UNAVAILABLE, "opening", times=99)
            with pytest.raises(BrokerUnavailable) as caught:
                await client.enqueue("g")
            assert server.address in str(caught.value)
            assert "within 0.5 s" in str(caught.value)
            assert str(caught.value).endswith("opening")

    run(main())


def test_nobody_at_the_address_is_unavailable_and_not_a_bug():
    async def main():
        async with AsyncClient("127.0.0.1:1", timeout_s=0.3) as client:
            with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
                await client.job("a").get()

    run(main())


def test_the_second_address_is_asked_when_the_first_does_not_answer():
    async def main():
        async with scripted() as server, AsyncClient(["127.0.0.1:1", server.address]) as client:
            server.answers["Enqueue"] = refuse(Code.UNAVAILABLE, "", times=0, then=enqueued())
            await client.enqueue("g", id="a")

    run(main())


def test_a_client_goes_on_with_a_broker_that_was_stopped_and_started_again():
    async def main():
        settings = memory_settings()
        first = Node(settings)
        await first.start()
        address = first.grpc_addr
        async with AsyncClient(address) as client:
            await client.enqueue("g", id="a")
            await first.stop()
            waiting = asyncio.create_task(client.enqueue("g", id="b"))
            await asyncio.sleep(0)
            again = Node(memory_settings(server=Server(grpc_addr=address), database=settings.database))
            await again.start()
            try:
                assert (await waiting).id == "b"
                assert {(await client.job(job_id).get()).task_group for job_id in "ab"} == {"g"}
            finally:
                await again.stop()

    run(main())


# --- replies that were lost ----------------------------------------------------------------------------------------------


def test_an_enqueue_that_was_sent_again_and_exists_by_then_has_succeeded():
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:
            answers = [(Code.UNAVAILABLE, "gone"), (Code.ALREADY_EXISTS, "job already exists with id a")]

            async def answer(_, context):
                await context.abort(*answers.pop(0))

            server.answers["Enqueue"] = answer
            assert (await client.enqueue("g", id="a")).id == "a"

    run(main())


def test_an_enqueue_that_exists_at_once_is_refused():
    async def main():
        async with connected() as client:
            await client.enqueue("g", id="a")
            with pytest.raises(JobExists, match="job already exists with id a"):
                await client.enqueue("g", id="a")

    run(main())


def test_a_cancel_that_was_sent_again_and_is_done_by_then_has_succeeded():
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:
            answers = [
                (Code.UNAVAILABLE, "gone"),
                (Code.FAILED_PRECONDITION, "job is already cancelled"),
                (Code.FAILED_PRECONDITION, "job is already cancelled"),
            ]

            async def answer(_, context):
                await context.abort(*answers.pop(0))

            server.answers["CancelJob"] = answer
            await client.job("a").cancel()
            with pytest.raises(AlreadyCancelled):
                await client.job("a").cancel()

    run(main())


# --- shards that are elsewhere -------------------------------------------------------------------------------------------


def test_a_call_follows_the_trailer_that_says_who_has_the_shard():
    async def main():
        async with scripted() as old, scripted() as new, AsyncClient(old.address) as client:
            old.answers["Enqueue"] = refuse(
                Code.NOT_FOUND, "shard not found", times=9, x_silo_shard_owner_addr=new.address
            )
            new.answers["Enqueue"] = refuse(Code.UNAVAILABLE, "", times=0, then=enqueued())
            await client.enqueue("g", id="a")
            await client.enqueue("g", id="b")
            assert old.count("Enqueue") == 1
            assert new.count("Enqueue") == 2

    run(main())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (Code.NOT_FOUND, "shard not found"),
        (Code.FAILED_PRECONDITION, "tenant '-' is not within shard x range [, ); refresh topology and retry"),
    ],
)
def test_without_a_trailer_the_client_asks_again_where_the_shards_are(code, text):
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:
            server.answers["Enqueue"] = refuse(code, text, times=1, then=enqueued())
            await client.shards()
            server.shards = [pb.ShardOwner(shard_id=SECOND, grpc_addr=server.address)]
            await client.enqueue("g", id="a")
            asked = [request.shard for rpc, request in server.asked if rpc == "Enqueue"]
            assert asked == [SHARD, SECOND]

    run(main())


def test_each_tenant_goes_to_the_shard_that_has_its_hash():
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:
            server.shards = [
                pb.ShardOwner(shard_id=SHARD, grpc_addr=server.address, range_end="7a16000000000000"),
                pb.ShardOwner(shard_id=SECOND, grpc_addr=server.address, range_start="7a16000000000000"),
            ]
            server.answers["Enqueue"] = refuse(Code.UNAVAILABLE, "", times=0, then=enqueued())
            # The hashes of docs/clients.md.
            for tenant in (None, "tenant-a", "customer-123", "日本"):
                await client.enqueue("g", id="a", tenant=tenant)
            asked = [request.shard for rpc, request in server.asked if rpc == "Enqueue"]
            assert asked == [SECOND, SHARD, SHARD, SECOND]

    run(main())


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (Code.INVALID_ARGUMENT, "task_group is required", InvalidRequest),
        (Code.NOT_FOUND, "job not found", JobNotFound),
        (Code.NOT_FOUND, "lease not found", LeaseLost),
        (Code.FAILED_PRECONDITION, "lease owner mismatch", LeaseLost),
        (Code.FAILED_PRECONDITION, "job is not complete: status is Running", NotFinished),
        (Code.FAILED_PRECONDITION, "job is already cancelled", AlreadyCancelled),
        (Code.FAILED_PRECONDITION, "job is already in terminal state", WrongState),
        (Code.INTERNAL, "cannot delete job a: job is currently running", JobInProgress),
        (Code.INTERNAL, "internal error; the server's log says more", BrokerFailed),
        (Code.ALREADY_EXISTS, "job already exists with id a", JobExists),
        (Code.UNAUTHENTICATED, "invalid auth token", NotAuthenticated),
        (Code.PERMISSION_DENIED, "dev mode is off", Forbidden),
        (Code.UNIMPLEMENTED, "Method not found!", NotSupported),
        (Code.RESOURCE_EXHAUSTED, "query result exceeded max_result_bytes", TooLarge),
        (Code.UNAVAILABLE, "try again", BrokerUnavailable),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", TimedOut),
    ],
)
def test_each_case_has_a_class_of_its_own_and_the_text_of_the_broker(code, text, kind):
    error = error_for(code, text)
    assert (type(error), error.text, str(error), error.code) == (kind, text, text, code)


def test_what_a_broker_refuses_is_not_sent_again():
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:
            server.answers["GetJob"] = refuse(Code.NOT_FOUND, "job not found", times=9)
            with pytest.raises(JobNotFound, match="job not found"):
                await client.job("a").get()
            assert server.count("GetJob") == 1

    run(main())


def test_a_token_goes_along_and_a_wrong_one_is_refused():
    async def main():
        async with connected(auth_token="secret", client={"token": "secret"}) as client:
            await client.enqueue("g", id="a")
            async with AsyncClient(client.options.addresses, token="wrong") as other:
                with pytest.raises(NotAuthenticated, match="invalid auth token"):
                    await other.job("a").get()
            assert "secret" not in repr(client.options)

    run(main())


def test_a_statement_that_took_too_long_is_not_run_again():
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:
            server.answers["Query"] = refuse(Code.DEADLINE_EXCEEDED, "query exceeded timeout", times=9)
            with pytest.raises(TimedOut, match="query exceeded timeout"):
                await client.query("select 1")
            assert server.count("Query") == 1

    run(main())


# --- gathering -----------------------------------------------------------------------------------------------------------


def test_enqueues_at_the_same_time_go_together_and_are_answered_each_by_itself():
    async def main():
        async with connected() as client:
            await client.enqueue("g", id="taken")
            ids = [f"job-{number}" for number in range(100)]
            made = await asyncio.gather(
                *(client.enqueue("g", id=job_id) for job_id in [*ids, "taken"]), return_exceptions=True
            )
            assert [job.id for job in made[:-1]] == ids
            assert isinstance(made[-1], JobExists)
            events = await client.job("job-7").history()
            assert {event.method for event in events} == {"EnqueueBatch"}
            assert {event.method for event in await client.job("taken").history()} == {"Enqueue"}

    run(main())


def test_against_a_broker_without_batches_each_job_goes_alone():
    async def main():
        async with scripted() as server, AsyncClient(server.address) as client:

            async def answer(request, context):
                return enqueued(request.id)

            server.answers["Enqueue"] = answer
            made = await asyncio.gather(*(client.enqueue("g", number) for number in range(5)))
            assert len({job.id for job in made}) == 5
            many = await client.enqueue_many([NewJob(task_group="g", id="x"), NewJob(task_group="g", id="y")])
            assert [job.id for job in many] == ["x", "y"]
            assert server.count("Enqueue") == 7

    run(main())


def test_many_jobs_are_refused_one_by_one():
    async def main():
        async with connected(tenancy=True, shards=4) as client:
            jobs = [NewJob(task_group="g", id=f"{n}", tenant=f"t{n}") for n in range(20)]
            jobs.append(NewJob(task_group="", id="bad", tenant="t1"))
            made = await client.enqueue_many(jobs)
            assert [job.id for job in made[:-1]] == [f"{n}" for n in range(20)]
            assert isinstance(made[-1], InvalidRequest)
            again = await client.enqueue_many(jobs[:1])
            assert isinstance(again[0], JobExists)

    run(main())


def test_what_comes_while_a_call_is_under_way_gathers_and_closing_sends_it():
    async def main():
        async with scripted() as server, AsyncClient(server.address, gather_s=2 * IN_S) as client:
            arrived, gate = asyncio.Event(), asyncio.Event()

            async def answer(request, context):
                arrived.set()
                await gate.wait()
                return enqueued(request.id)

            server.answers["Enqueue"] = answer
            first = asyncio.create_task(client.enqueue("g", id="first"))
            # Whoever comes alone does not wait for others.
            await arrived.wait()
            others = [asyncio.create_task(client.enqueue("g", id=job_id)) for job_id in ("a", "b")]
            await turns()
            gate.set()
            assert (await first).id == "first"
            await turns()
            assert server.count("Enqueue") == 1
            await client.close()
            assert [(await other).id for other in others] == ["a", "b"]
            assert server.count("Enqueue") == 3

    run(main())
