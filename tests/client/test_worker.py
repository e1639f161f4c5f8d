"""Workers: handlers of every kind, cancellation, lost leases, refreshes, draining, and brokers that go away."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

import grpc
import msgpack
import pytest

from silo.client import (
    AsyncClient,
    Cancelled,
    FloatingConcurrency,
    JobCancelled,
    JobFailed,
    NewJob,
    NotAuthenticated,
    Retry,
    Status,
    Worker,
    current_task,
)
from silo.client.worker import running
from silo.pb import silo_pb2 as pb
from silo.server.node import Node
from silo.settings import Server
from silo.testing.in_process import memory_settings
from tests.client.running import SHARD, connected, scripted
from tests.serving import IN_S, run


def process_id(_) -> int:
    """A handler for a process of its own."""
    return os.getpid()


def dies(_) -> None:
    """A handler that takes its process with it."""
    os._exit(1)


# --- handlers ------------------------------------------------------------------------------------------------------------


def test_async_functions_run_on_the_loop_and_plain_ones_in_threads():
    async def main():
        async with connected() as client:
            worker = Worker(client)

            @worker.task("async")
            async def on_loop(_):
                return threading.current_thread() is threading.main_thread()

            @worker.task("thread")
            def in_thread(_):
                return threading.current_thread() is threading.main_thread()

            async with running(worker):
                assert await (await client.enqueue("async")).wait() is True
                assert await (await client.enqueue("thread")).wait() is False

    run(main())


def test_a_handler_in_a_process_has_a_processor_for_itself_and_may_die():
    async def main():
        async with connected() as client:
            worker = Worker(client)
            worker.task("process", mode="process", concurrency=1)(process_id)
            worker.task("dies", mode="process", concurrency=1)(dies)
            async with running(worker):
                assert await (await client.enqueue("process")).wait() != os.getpid()
                job = await client.enqueue("dies")
                with pytest.raises(JobFailed, match="BrokenProcessPool"):
                    await job.wait()
                again = await client.enqueue("dies")
                with pytest.raises(JobFailed, match="BrokenProcessPool"):
                    await again.wait()

    run(main())


def test_a_handler_that_wants_it_gets_the_task():
    async def main():
        async with connected(tenancy=True) as client:
            worker = Worker(client)

            class Emails:
                """A handler may be an object with what it needs."""

                def __init__(self) -> None:
                    self.sent = 0

                async def __call__(self, payload, task):
                    self.sent += 1
                    assert task is current_task()
                    return [
                        task.job_id,
                        task.tenant,
                        task.attempt,
                        task.is_last_attempt,
                        task.metadata,
                        payload,
                    ]

            emails = worker.task("emails")(Emails())
            async with running(worker):
                job = await client.enqueue("emails", "p", id="a", tenant="acme", metadata={"k": "v"})
                assert await job.wait() == ["a", "acme", 1, True, {"k": "v"}, "p"]
                assert emails.sent == 1

    run(main())


@pytest.mark.parametrize(
    ("function", "mode", "error", "text"),
    [
        (lambda: None, None, TypeError, "takes the payload, or the payload and the task"),
        (lambda a, b, c: None, None, TypeError, "takes the payload, or the payload and the task"),
        (lambda a, b: None, "process", TypeError, "takes the payload"),
        (lambda a: None, "async", ValueError, "a plain function runs in a thread or process"),
        (lambda a: None, "fibre", ValueError, "fibre"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_when_it_is_registered(function, mode, error, text):
    worker = Worker("127.0.0.1:1")
    with pytest.raises(error, match=text):
        worker.task("g", mode=mode)(function)


def test_a_group_has_one_handler_and_a_worker_at_least_one():
    worker = Worker("127.0.0.1:1")
    with pytest.raises(ValueError, match="a worker needs a handler"):
        run(worker.run())
    worker.task("g")(lambda payload: payload)
    with pytest.raises(ValueError, match="'g' has a handler already"):
        worker.task("g")


def test_no_more_tasks_run_at_once_than_the_group_allows():
    async def main():
        async with connected() as client:
            worker = Worker(client)
            now = most = 0

            @worker.task("g", concurrency=3)
            async def count(_):
                nonlocal now, most
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.005)
                now -= 1

            jobs = await client.enqueue_many([NewJob(task_group="g")] * 30)
            async with running(worker):
                for job in jobs:
                    await job.wait()
            assert most == 3
            assert worker.metrics["g"].succeeded == 30

    run(main())


def test_middlewares_are_around_every_handler_the_first_outermost():
    async def main():
        async with connected() as client:
            worker = Worker(client)
            order: list[str] = []

            @worker.middleware
            async def outer(task, call):
                order.append(f"outer {task.job_id}")
                return await call(task) + ["outer"]

            @worker.middleware
            async def inner(task, call):
                order.append("inner")
                return await call(task) + ["inner"]

            worker.task("g")(lambda payload: ["handler"])
            async with running(worker):
                job = await client.enqueue("g", id="a")
                assert await job.wait() == ["handler", "inner", "outer"]
            assert order == ["outer a", "inner"]

    run(main())


@pytest.mark.parametrize(
    ("error", "code"),
    [(SystemExit(3), "Exited"), (asyncio.CancelledError(), "Cancelled"), (Cancelled(), "Cancelled")],
)
def test_whatever_a_handler_raises_is_its_failure_and_the_worker_goes_on(error, code):
    async def main():
        async with connected() as client:
            worker = Worker(client)

            @worker.task("g")
            async def fail(payload):
                if payload:
                    raise error

            async with running(worker):
                job = await client.enqueue("g", True)
                with pytest.raises(JobFailed) as caught:
                    await job.wait()
                assert caught.value.error_code == code
                assert await (await client.enqueue("g", False)).wait() is None
            assert worker.metrics["g"].failed == 1

    run(main())


def test_a_result_that_cannot_be_encoded_is_a_failure():
    async def main():
        async with connected() as client:
            worker = Worker(client)
            worker.task("g")(lambda payload: object())
            async with running(worker):
                with pytest.raises(JobFailed, match="TypeError"):
                    await (await client.enqueue("g")).wait()

    run(main())


# --- cancellation and leases ---------------------------------------------------------------------------------------------


def test_a_cancelled_job_ends_its_async_handler_at_once():
    async def main():
        async with connected() as client:
            worker = Worker(client)
            begun = asyncio.Event()
            cleaned = False

            @worker.task("g")
            async def long(_):
                nonlocal cleaned
                begun.set()
                try:
                    await asyncio.sleep(IN_S)
                finally:
                    cleaned = True

            async with running(worker):
                job = await client.enqueue("g")
                await begun.wait()
                await job.cancel()
                with pytest.raises(JobCancelled):
                    await job.wait()
            assert cleaned
            assert worker.metrics["g"].cancelled == 1

    run(main())


def test_a_thread_looks_for_itself_whether_it_is_cancelled():
    async def main():
        async with connected() as client:
            worker = Worker(client)
            begun = threading.Event()

            @worker.task("g")
            def long(_, task):
                begun.set()
                assert task.wait_cancelled(IN_S)
                task.check()

            async with running(worker):
                job = await client.enqueue("g")
                assert await asyncio.to_thread(begun.wait, IN_S)
                await job.cancel()
                with pytest.raises(JobCancelled):
                    await job.wait()

    run(main())


def short_leases(server, tasks):
    """Let a scripted broker, which knows no streams, give these tasks with leases of 0.4 s."""

    async def lease(request, context):
        given = [tasks.pop(0)] if tasks else []
        return pb.LeaseTasksResponse(tasks=given)

    server.answers["LeaseTasks"] = lease


def task(job_id: str = "a", **fields) -> pb.Task:
    return pb.Task(
        id=f"task-{job_id}",
        job_id=job_id,
        attempt_number=1,
        shard=SHARD,
        task_group="g",
        lease_ms=400,
        **fields,
    )


def test_heartbeats_go_on_while_a_handler_blocks_its_loop():
    async def main():
        async with scripted() as server:
            short_leases(server, [task()])
            enough = threading.Event()
            reported = asyncio.Event()

            async def report(request, context):
                reported.set()
                return pb.ReportOutcomeResponse()

            async def beat(request, context):
                if server.count("Heartbeat") == 5:
                    enough.set()
                return pb.HeartbeatResponse()

            server.answers |= {"ReportOutcome": report, "Heartbeat": beat}
            worker = Worker(server.address)

            @worker.task("g")
            async def block(_):
                # The loop of the worker stands still; the broker has one of its own.
                assert enough.wait(IN_S)

            thread = threading.Thread(target=lambda: asyncio.run(_until(worker, stop)))
            stop = threading.Event()
            thread.start()
            await reported.wait()
            stop.set()
            await asyncio.to_thread(thread.join)
            assert worker.metrics["g"].succeeded == 1

    run(main())


async def _until(worker: Worker, stop: threading.Event) -> None:
    async with running(worker):
        await asyncio.to_thread(stop.wait)


def test_a_lost_lease_ends_the_handler_and_is_not_reported():
    async def main():
        async with scripted() as server:
            short_leases(server, [task()])

            async def beat(request, context):
                await context.abort(grpc.StatusCode.NOT_FOUND, "lease not found")

            server.answers["Heartbeat"] = beat
            worker = Worker(server.address)
            ended = asyncio.Event()
            lost = None

            @worker.task("g")
            async def long(_, task):
                nonlocal lost
                try:
                    await asyncio.sleep(IN_S)
                finally:
                    lost = task.is_lost
                    ended.set()

            async with running(worker):
                await ended.wait()
            assert lost is True
            assert worker.metrics["g"].lost == 1
            assert not server.count("ReportOutcome")

    run(main())


def test_against_a_broker_without_streams_a_worker_asks_in_plain_calls():
    async def main():
        async with scripted() as server:
            payload = pb.SerializedBytes(msgpack=msgpack.packb(20))
            short_leases(server, [task(f"{n}", payload=payload) for n in range(5)])
            reports: dict[str, bytes] = {}
            all_there = asyncio.Event()

            async def report(request, context):
                reports[request.task_id] = request.success.msgpack
                if len(reports) == 5:
                    all_there.set()
                return pb.ReportOutcomeResponse()

            server.answers["ReportOutcome"] = report
            worker = Worker(server.address)
            worker.task("g")(lambda payload: payload + 1)
            async with running(worker):
                await all_there.wait()
            assert set(reports) == {f"task-{n}" for n in range(5)}
            assert set(reports.values()) == {msgpack.packb(21)}

    run(main())


async def _until_now(client: AsyncClient, kind: str):
    """The events of a type that there are."""
    async for event in client.subscribe(from_seq=1, types=[kind]):
        yield event
        return


def test_a_floating_limit_is_refreshed_by_the_workers_function():
    async def main():
        async with connected() as client:
            worker = Worker(client)
            asked: list[tuple[str, int, dict[str, str]]] = []
            refreshed = asyncio.Event()

            @worker.task("g")
            async def work(_):
                await asyncio.wait_for(refreshed.wait(), IN_S)

            @worker.refresh("g")
            async def maximum(refresh):
                asked.append((refresh.key, refresh.maximum, refresh.metadata))
                refreshed.set()
                return 9

            limit = FloatingConcurrency("api", 1, refresh_s=0.001, metadata={"k": "v"})
            async with running(worker):
                jobs = await client.enqueue_many([NewJob(task_group="g", limits=[limit])] * 3)
                for job in jobs:
                    await job.wait()
            assert asked[0] == ("api", 1, {"k": "v"})
            found = [event async for event in _until_now(client, "RefreshSucceeded")]
            assert found[0].data["new_max_concurrency"] == 9

    run(main())


# --- life ----------------------------------------------------------------------------------------------------------------


def test_a_worker_that_stops_takes_no_more_and_finishes_what_it_has():
    async def main():
        async with connected() as client:
            worker = Worker(client, concurrency=1)
            begun, go_on = asyncio.Event(), asyncio.Event()

            @worker.task("g")
            async def work(_):
                begun.set()
                await go_on.wait()

            first = await client.enqueue("g")
            second = await client.enqueue("g")
            runs = asyncio.create_task(worker.run())
            await begun.wait()
            worker.stop()
            await asyncio.sleep(0.05)
            assert not runs.done()
            go_on.set()
            await runs
            assert await first.status() is Status.SUCCEEDED
            assert await second.status() is Status.SCHEDULED

    run(main())


def test_a_worker_that_cannot_finish_in_time_leaves_its_task_to_others(caplog):
    async def main():
        async with connected() as client:
            worker = Worker(client, drain_s=0.05)
            begun = asyncio.Event()

            @worker.task("g")
            async def work(_):
                begun.set()
                await asyncio.sleep(IN_S)

            job = await client.enqueue("g")
            with caplog.at_level(logging.WARNING, "silo.worker"):
                async with running(worker):
                    await begun.wait()
            assert "1 tasks did not end in time" in caplog.text
            assert await job.status() is Status.RUNNING

    run(main())


def test_a_worker_survives_a_broker_that_restarts_and_reports_what_it_did_meanwhile():
    async def main():
        settings = memory_settings()
        node = Node(settings)
        await node.start()
        address = node.grpc_addr
        async with AsyncClient(address) as client:
            worker = Worker(address, concurrency=4)
            begun, go_on = asyncio.Event(), asyncio.Event()

            @worker.task("g")
            async def work(payload):
                begun.set()
                await go_on.wait()
                return payload

            job = await client.enqueue("g", 5)
            async with running(worker):
                await begun.wait()
                await node.stop()
                go_on.set()
                node = Node(memory_settings(server=Server(grpc_addr=address), database=settings.database))
                await node.start()
                try:
                    assert await job.wait() == 5
                    # Only one attempt: the report reached the broker that came back.
                    assert len((await job.get(attempts=True)).attempts) == 1
                    assert await (await client.enqueue("g", 6)).wait() == 6
                    worker.stop()
                finally:
                    await asyncio.sleep(0)
            await node.stop()

    run(main())


def test_a_worker_that_the_broker_refuses_ends_with_the_reason():
    async def main():
        async with connected(auth_token="secret", client={"token": "wrong"}) as client:
            worker = Worker(client)
            worker.task("g")(lambda payload: None)
            with pytest.raises(NotAuthenticated, match="invalid auth token"):
                await worker.run()

    run(main())


def test_a_worker_waits_for_a_broker_that_is_not_there_yet_and_can_be_stopped():
    async def main():
        worker = Worker(AsyncClient("127.0.0.1:1", timeout_s=2 * IN_S))
        worker.task("g")(lambda payload: None)
        runs = asyncio.create_task(worker.run())
        await asyncio.sleep(0.1)
        assert not runs.done()
        worker.stop()
        await runs

    run(main())


def test_failures_are_tried_again_as_the_job_says():
    async def main():
        async with connected() as client:
            worker = Worker(client)

            @worker.task("g")
            async def third_time(_, task):
                if task.attempt < 3:
                    raise OSError("not yet")
                return task.attempt

            async with running(worker):
                job = await client.enqueue("g", retry=Retry(times=5, first_s=0.01, jitter=False))
                assert await job.wait() == 3
            assert worker.metrics["g"].failed == 2

    run(main())
