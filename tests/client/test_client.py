"""What a program can do with a broker: each method of the client and of a job's handle, on a real one."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from silo.client import (
    AsyncClient,
    Bucket,
    Client,
    Concurrency,
    FloatingConcurrency,
    JobCancelled,
    JobFailed,
    JobInProgress,
    JobNotFound,
    Json,
    NotFinished,
    RateLimit,
    Retry,
    Standing,
    Status,
    TimedOut,
    Tls,
    Worker,
    WrongState,
)
from silo.client.payloads import MessagePack, Raw
from silo.client.worker import running
from silo.pb import silo_pb2 as pb
from silo.testing import broker
from tests.client.running import connected, scripted
from tests.serving import run

LATER = timedelta(days=1)


def working(client: AsyncClient) -> Worker:
    """A worker of the task group `g`: returns twice what it gets, and fails for a text."""
    worker = Worker(client, worker_id="w")

    @worker.task("g")
    async def double(payload):
        if isinstance(payload, str):
            raise LookupError(payload)
        return payload * 2

    return worker


# --- jobs ----------------------------------------------------------------------------------------------------------------


def test_a_job_is_enqueued_with_all_that_it_can_have_and_read_back():
    async def main():
        async with connected() as client:
            start = datetime.now(UTC).replace(microsecond=0) + LATER
            job = await client.enqueue(
                "g",
                {"to": "ä", "n": [1, 2.5, None, b"x"]},
                id="a",
                priority=7,
                start_at=start,
                retry=Retry(times=3, first_s=0.5, factor=3, longest_s=60, jitter=False),
                limits=[
                    Concurrency("k", 5),
                    RateLimit("r", "u", 10, per_s=60, hits=2, bucket=Bucket.LEAKY),
                    FloatingConcurrency("f", 3, refresh_s=30, metadata={"api": "x"}),
                ],
                metadata={"customer": "acme"},
            )
            state = await job.get()
            assert (state.id, state.task_group, state.priority, state.status) == (
                "a",
                "g",
                7,
                Status.SCHEDULED,
            )
            assert state.payload == {"to": "ä", "n": [1, 2.5, None, b"x"]}
            assert state.start_at == state.next_attempt_at == start
            assert state.metadata == {"customer": "acme"}
            concurrency, rate, floating = state.limits
            assert (concurrency.concurrency.key, concurrency.concurrency.max_concurrency) == ("k", 5)
            assert (rate.rate_limit.duration_ms, rate.rate_limit.hits) == (60_000, 2)
            assert rate.rate_limit.algorithm == pb.GUBERNATOR_ALGORITHM_LEAKY_BUCKET
            assert floating.floating_concurrency.refresh_interval_ms == 30_000
            explained = await job.explain()
            assert explained.standing is Standing.WAITS_FOR_TIME
            assert explained.next_at == start

    run(main())


def test_a_job_goes_its_way_and_its_handle_tells_of_it():
    async def main():
        async with connected() as client, running(working(client)):
            job = await client.enqueue("g", 21)
            assert await job.wait() == 42
            assert await job.result() == 42
            state = await job.get(attempts=True)
            assert (state.status, state.result) == (Status.SUCCEEDED, 42)
            [attempt] = state.attempts
            assert (attempt.number, attempt.result, attempt.error_code) == (1, 42, None)
            history = await job.history()
            assert history[0].type == "JobEnqueued"
            assert history[0].data["payload"] == 21
            assert [event.type for event in await job.history(most=1)] == [history[-1].type]
            await job.delete()
            with pytest.raises(JobNotFound):
                await job.get()

    run(main())


def test_a_job_that_failed_for_good_raises_what_its_worker_said():
    async def main():
        async with connected() as client, running(working(client)):
            job = await client.enqueue("g", "lost", retry=Retry(times=1, first_s=0.01))
            with pytest.raises(JobFailed, match=f"job {job.id} failed: LookupError: lost") as caught:
                await job.wait()
            assert caught.value.error_code == "LookupError"
            assert caught.value.data["traceback"].count("in double") == 1
            assert "silo/client" not in caught.value.data["traceback"]
            attempts = (await job.get(attempts=True)).attempts
            assert [attempt.error_code for attempt in attempts] == ["LookupError"] * 2

    run(main())


def test_a_job_is_cancelled_and_restarted_and_expedited():
    async def main():
        async with connected() as client:
            job = await client.enqueue("g", 1, delay_s=3600)
            with pytest.raises(NotFinished):
                await job.result()
            with pytest.raises(JobInProgress):
                await job.delete()
            await job.cancel()
            with pytest.raises(JobCancelled):
                await job.wait()
            await job.restart()
            with pytest.raises(WrongState):
                await job.restart()
            await job.expedite()
            later = await client.enqueue("g", 2, start_at=datetime.now(UTC) + LATER)
            await later.expedite()
            async with running(working(client)):
                assert await later.wait() == 4
                assert await job.wait() == 2

    run(main())


def test_waiting_ends_in_time_and_leaves_the_job_alone():
    async def main():
        async with connected() as client:
            job = await client.enqueue("g")
            with pytest.raises(TimedOut, match=f"job {job.id} has not ended within 0.05 s"):
                await job.wait(timeout_s=0.05)
            assert await job.status() is Status.SCHEDULED

    run(main())


def test_start_and_delay_together_are_refused():
    async def main():
        async with connected() as client:
            with pytest.raises(ValueError, match="start_at or delay_s, not both"):
                await client.enqueue("g", start_at=datetime.now(UTC), delay_s=1)

    run(main())


def test_tenants_are_taken_from_the_client_or_from_the_call():
    async def main():
        async with connected(tenancy=True, shards=4, client={"tenant": "acme"}) as client:
            mine = await client.enqueue("g", id="a")
            others = await client.enqueue("g", id="a", tenant="other")
            assert mine != others
            assert mine == client.job("a")
            assert (await client.job("a", tenant="other").get()).id == "a"
            rows = (await client.query("select tenant, id from jobs where id = $1", "a")).rows
            assert rows == ({"tenant": "acme", "id": "a"},)

    run(main())


# --- SQL and the log -----------------------------------------------------------------------------------------------------


def test_sql_gives_rows_and_arrow_tables_with_parameters():
    async def main():
        async with connected() as client:
            for number in range(3):
                await client.enqueue("g", number, id=f"job-{number}", priority=number)
            found = await client.query(
                "select id, priority, $2 as b, $3 as n from jobs where priority >= $1 order by id",
                1,
                True,
                None,
            )
            assert found.columns == ("id", "priority", "b", "n")
            assert [row["id"] for row in found.rows] == ["job-1", "job-2"]
            assert found.rows[0]["b"] is True
            assert found.rows[0]["n"] is None
            table = await client.query_arrow("select id from jobs where id <> $1 order by id", "job-1")
            assert table.to_pydict() == {"id": ["job-0", "job-2"]}
            nothing = await client.query_arrow("select id, priority from jobs where id = 'none'")
            assert (nothing.num_rows, nothing.column_names) == (0, ["id", "priority"])
            many = await client.query_arrow("select value from generate_series(1, 100000)")
            assert many.column(0).to_pylist() == list(range(1, 100_001))
            [shard] = await client.shards()
            assert (await client.query("select 1 as one", shard=shard.id)).rows == ({"one": 1},)
            with pytest.raises(TypeError, match="not list"):
                await client.query("select $1", [1])

    run(main())


def test_a_subscription_begins_where_it_is_told_and_goes_on():
    async def main():
        async with connected() as client:
            await client.enqueue("g", id="a")
            seen: list[tuple[str, str]] = []
            first = asyncio.Event()

            async def listen() -> None:
                async for event in client.subscribe(from_seq=1, types=["JobEnqueued"]):
                    seen.append((event.type, event.method))
                    first.set()
                    if len(seen) == 2:
                        return

            listening = asyncio.create_task(listen())
            await first.wait()
            await client.enqueue("g", id="b")
            await listening
            assert seen == [("JobEnqueued", "Enqueue")] * 2

    run(main())


def test_a_subscription_with_a_cursor_goes_on_behind_what_was_done_with():
    async def main():
        async with connected() as client:

            async def listen(*, most: int, from_seq: int | None = None) -> list[str | None]:
                seen: list[str | None] = []
                async for event in client.subscribe(
                    from_seq=from_seq, cursor="billing", types=["JobEnqueued"]
                ):
                    if len(seen) == most:
                        break
                    seen.append(event.job_id)
                return seen

            for job_id in "abc":
                await client.enqueue("g", id=job_id)
            listening = asyncio.create_task(listen(most=3, from_seq=1))
            # What is asked for beyond them says that they are done with.
            while not listening.done():
                await client.enqueue("g")
                await asyncio.sleep(0)
            assert await listening == ["a", "b", "c"]
            assert "a" not in await listen(most=1)

    run(main())


# --- the synchronous face, threads, loops --------------------------------------------------------------------------------


def test_the_synchronous_client_does_the_same():
    with broker() as silo, silo.client() as client:
        job = client.enqueue("g", 1, id="a", delay_s=3600)
        assert (job.id, job.status(), job.get().payload) == ("a", Status.SCHEDULED, 1)
        assert job.explain().standing is Standing.WAITS_FOR_TIME
        assert client.query("select count(*) as n from jobs").rows == ({"n": 1},)
        assert client.query_arrow("select id from jobs").to_pydict() == {"id": ["a"]}
        assert len(client.shards()) == 1
        job.expedite()
        job.cancel()
        with pytest.raises(JobCancelled):
            job.wait(5)
        with pytest.raises(JobCancelled):
            job.result()
        job.restart()
        assert job == client.job("a")
        assert next(event.type for event in client.subscribe(from_seq=2)) == "JobEnqueued"
        assert job.history()[-1].type == "ChainStarted"
        job.cancel()
        job.delete()
        with pytest.raises(JobNotFound):
            job.status()


def test_one_synchronous_client_serves_many_threads():
    with broker() as silo, silo.client() as client:
        made: list[str] = []

        def enqueue(number: int) -> None:
            made.extend(client.enqueue("g", number).id for _ in range(10))

        threads = [threading.Thread(target=enqueue, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(made)) == 80
        assert client.query("select count(*) as n from jobs").rows == ({"n": 80},)


def test_one_async_client_serves_many_event_loops():
    with broker() as silo:
        client = AsyncClient(silo.address)

        async def use(job_id: str) -> str:
            async with client:
                return (await client.enqueue("g", id=job_id)).id

        found: list[str] = []
        threads = [
            threading.Thread(target=lambda name=name: found.append(asyncio.run(use(name)))) for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == ["a", "b", "c", "d"]


# --- payloads, addresses, TLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (MessagePack(), {"a": [1, 2.5, None, "ä", b"x"], 3: datetime(2026, 1, 2, tzinfo=UTC)}),
        (Json(), {"a": [1, 2.5, None, "ä"]}),
        (Raw(), b"\x00\xff"),
    ],
)
def test_each_codec_gives_back_what_it_was_given(codec, value):
    async def main():
        async with connected(client={"codec": codec}) as client:
            job = await client.enqueue("g", value)
            assert (await job.get()).payload == value

    run(main())


def test_a_codec_says_what_it_cannot_encode():
    with pytest.raises(TypeError):
        MessagePack().encode(object())
    with pytest.raises(TypeError, match="takes bytes, not str"):
        Raw().encode("text")


@pytest.mark.parametrize("address", ["", "host", "a:1,b", [], "http://host"])
def test_what_is_no_address_is_refused_at_once(address):
    with pytest.raises(ValueError, match="address of a broker"):
        Client(address)


def test_the_environment_names_the_broker(monkeypatch):
    monkeypatch.setenv("SILO_ADDRESS", "a:1, b:2")
    assert AsyncClient().options.addresses == ("a:1", "b:2")
    monkeypatch.delenv("SILO_ADDRESS")
    assert AsyncClient().options.addresses == ("127.0.0.1:7450",)


def test_a_broker_behind_tls_is_spoken_to_with_the_right_certificate_only(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=silo.test",
            ),
            *("-addext", "subjectAltName=DNS:silo.test", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])

    async def main():
        async with scripted(tls=credentials) as server:
            tls = Tls(ca=certificate, server_name="silo.test")
            async with AsyncClient(server.address, tls=tls) as client:
                assert [shard.address for shard in await client.shards()] == [server.address]
            async with AsyncClient(server.address, tls=True, timeout_s=0.3) as client:
                with pytest.raises(Exception, match="no answer from"):
                    await client.shards()

    run(main())
