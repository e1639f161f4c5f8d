"""One shard over SlateDB: what is promised to callers while stores hang, fail and change hands."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager, nullcontext

import pytest

from silo.domain.jobs import JobStatus
from silo.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    Fenced,
    JobNotFound,
    LeaseNotFound,
    ShardNotReady,
    StoreFailed,
    Unavailable,
)
from silo.events.catalogue import JobEnqueued, ShardCreated
from silo.events.log import LOG_END, LOG_PREFIX, record_key
from silo.events.packing import to_bytes
from silo.projections.jobs import JOBS
from silo.shard import checkpoint as checkpoint_module
from silo.shard import shard as shard_module
from silo.shard.checkpoint import Note
from silo.shard.disk import CHECKPOINT_KEY, row_key
from silo.shard.draft import Caller
from silo.shard.enqueue import enqueue
from silo.shard.jobs import JobName
from silo.shard.lease import heartbeat, lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.reading import GetJob, get_counts, get_job
from silo.shard.replay import verify
from silo.shard.shard import Stage
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec, open_database
from tests.builders import NAME, NOW, a_heartbeat, a_job, failure, for_worker
from tests.serving import Clock, Watched, a_shard, opens, opens_slate, run, serving, turns

SHOW = GetJob(name=NAME, include_attempts=True)
FAILED = StoreFailed("the store is on fire")


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch):
    monkeypatch.setattr(shard_module, "REOPEN_AFTER_S", (0.0, 0.001))
    monkeypatch.setattr(shard_module, "CLOSE_WITHIN_S", 0.05)


def a_slate_store():
    return opens_slate(StoreSpec.in_memory())


class WatchedSlate:
    """Opens SlateDB, watched; `db` is what was opened last."""

    def __init__(self) -> None:
        self.spec = StoreSpec.in_memory()
        self.db: Watched
        self.openings = 0
        self.refusals: list[Exception] = []

    async def __call__(self) -> Watched:
        if self.refusals:
            raise self.refusals.pop(0)
        self.db = Watched(await open_database(self.spec, "shard"))
        self.openings += 1
        return self.db


async def events_of(shard) -> list:
    return [event async for events in shard.log.read(1) for event in events]


async def serves_again(shard, failed: Watched) -> None:
    """Wait until the shard has let go of the database that failed and has opened another."""
    await failed.abandoned.wait()
    with shard.listening() as decided:
        while shard.stage is not Stage.SERVING:
            decided.clear()
            await decided.wait()


class Hanging(Watched):
    """Checkpoints hang until `gate` is set; commits of the log, a row each, do not."""

    def __init__(self, inner: MemoryDatabase) -> None:
        super().__init__(inner)
        self.gate.clear()
        self.hangs = asyncio.Event()

    async def write(self, batch) -> None:
        if len(batch) == 1:
            await self.inner.write(batch)
            return
        self.hangs.set()
        await super().write(batch)


# --- opening and serving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", [False, True])
def test_what_was_acknowledged_is_there_after_reopening(disk):
    async def main(open_it):
        async with serving(open_it) as shard:
            await shard.execute(enqueue, a_job())
            (task,) = await shard.execute(lease_tasks, for_worker())
        async with serving(open_it) as shard:
            seen = await shard.execute(get_job, SHOW)
            assert (seen.row.status, seen.payload) == (JobStatus.RUNNING, b"payload")
            await shard.execute(report_outcome, failure(task.task_id))
            await shard.checkpoint()
        async with serving(open_it) as shard:
            seen = await shard.execute(get_job, SHOW)
            assert (seen.row.status, seen.attempts[0].data) == (JobStatus.FAILED, b"error")
            assert await verify(await shard.database.snapshot(), MemoryDatabase()) is None

    with tempfile.TemporaryDirectory() as directory:
        spec = (
            StoreSpec(backend="fs", path=f"{directory}/%shard%", fsync=False)
            if disk
            else StoreSpec.in_memory()
        )
        run(main(opens_slate(spec)))


def test_the_log_begins_with_the_creation_of_the_shard():
    async def main():
        open_it = a_slate_store()
        for _ in range(2):
            async with serving(open_it) as shard:
                await shard.execute(get_counts, "")
                assert [type(event) for event in await events_of(shard)] == [ShardCreated]

    run(main())


def test_every_event_says_who_asked():
    async def main():
        async with serving() as shard:
            await shard.execute(enqueue, a_job(), caller=Caller(actor="client-7", method="Enqueue"))
            created, enqueued, started = await events_of(shard)
            assert (created.actor, created.method) == ("system", "")
            assert [(event.actor, event.method) for event in (enqueued, started)] == [
                ("client-7", "Enqueue")
            ] * 2

    run(main())


def test_a_shard_that_is_closed_says_so():
    async def main():
        shard = a_shard()
        with pytest.raises(ShardNotReady, match="shard shard is closed; try again"):
            await shard.execute(enqueue, a_job())
        await shard.open()
        await shard.execute(enqueue, a_job())
        await shard.close()
        await shard.close()
        with pytest.raises(ShardNotReady, match="shard shard is closed; try again"):
            await shard.execute(get_job, SHOW)

    run(main())


def test_time_never_runs_backward():
    async def main():
        clock, db = Clock(), MemoryDatabase()
        async with serving(opens(db), clock=clock) as shard:
            await shard.execute(enqueue, a_job(job_id="1"))
            clock.now_ms -= 5_000
            await shard.execute(enqueue, a_job(job_id="2"))
            assert shard.now_ms() == NOW
        async with serving(opens(db), clock=clock) as shard:
            await shard.execute(enqueue, a_job(job_id="3"))
            clock.now_ms += 5_001
            await shard.execute(enqueue, a_job(job_id="4"))
            times = [event.time_ms for event in await events_of(shard) if isinstance(event, JobEnqueued)]
            assert times == [NOW, NOW, NOW, NOW + 1]

    run(main())


# --- no reply before its events are durable -------------------------------------------------------------------


@asynccontextmanager
async def a_held_shard(**options):
    """A shard whose next write hangs until `db.gate` is set; `j1` is enqueued but not durable."""
    store = WatchedSlate()
    async with serving(store, **options) as shard:
        await shard.execute(get_counts, "")
        while not store.db.arrived.empty():
            store.db.arrived.get_nowait()
        store.db.gate.clear()
        enqueued = asyncio.create_task(shard.execute(enqueue, a_job()))
        await store.db.arrived.get()
        try:
            yield shard, store.db, enqueued
        finally:
            store.db.gate.set()
            enqueued.cancel()


@pytest.mark.parametrize(
    ("decide", "command"),
    [
        pytest.param(get_job, SHOW, id="a read of what is not durable"),
        pytest.param(
            get_job, GetJob(name=JobName("x", "y"), include_attempts=False), id="a refusal, not found"
        ),
        pytest.param(enqueue, a_job(), id="a refusal, exists"),
        pytest.param(get_counts, "", id="a read of totals"),
        pytest.param(enqueue, a_job(job_id="j2"), id="another write"),
    ],
)
def test_no_reply_leaves_before_everything_that_it_can_have_seen_is_durable(decide, command):
    async def main():
        async with a_held_shard() as (shard, db, enqueued):
            second = asyncio.create_task(shard.execute(decide, command))
            done, _ = await asyncio.wait([enqueued, second], timeout=0.05)
            assert not done
            db.gate.set()
            assert await enqueued == "j1"
            await asyncio.wait([second])
            expected = {"x": JobNotFound, "j1": AlreadyExists}.get(
                command.name.tenant if isinstance(command, GetJob) else getattr(command, "job_id", "")
            )
            assert second.exception() is None or isinstance(second.exception(), expected)

    run(main())


def test_a_caller_that_goes_away_changes_nothing():
    # A81, A184
    async def main():
        async with a_held_shard() as (shard, db, enqueued):
            enqueued.cancel()
            await asyncio.wait([enqueued])
            assert enqueued.cancelled()
            db.gate.set()
            assert (await shard.execute(get_job, SHOW)).payload == b"payload"

    run(main())


# --- when the store fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["the write is lost", "the write is there all the same"])
@pytest.mark.parametrize("failures", [1, 3])
def test_a_failed_write_is_told_and_nothing_acknowledged_is_lost(late, failures):
    async def main():
        store = WatchedSlate()
        acknowledged, unsure = set(), set()
        async with serving(store) as shard:
            for number in range(10):
                job_id = str(number)
                db = store.db
                if number in (3, 6, 8)[:failures]:
                    store.db.failures.append(FAILED)
                    store.db.late = late
                try:
                    await shard.execute(enqueue, a_job(job_id=job_id))
                    acknowledged.add(job_id)
                except Unavailable:
                    unsure.add(job_id)
                    await serves_again(shard, db)
            assert len(unsure) == failures
            assert store.openings == failures + 1

            found = {event.job_id for event in await events_of(shard) if isinstance(event, JobEnqueued)}
            assert acknowledged <= found
            assert found - acknowledged == (unsure if late else set())
            # Whoever was told to try again may.
            for job_id in unsure:
                with pytest.raises(AlreadyExists) if late else nullcontext():
                    await shard.execute(enqueue, a_job(job_id=job_id))
            await shard.checkpoint()
            assert await verify(await shard.database.snapshot(), MemoryDatabase()) is None

    run(main())


def test_everybody_who_waits_is_told_when_a_write_fails():
    async def main():
        async with a_held_shard() as (shard, db, enqueued):
            others = [
                asyncio.create_task(shard.execute(enqueue, a_job(job_id="j2"))),
                asyncio.create_task(shard.execute(get_job, SHOW)),
                asyncio.create_task(shard.execute(enqueue, a_job())),
            ]
            await turns()
            db.failures.append(FAILED)
            db.gate.set()
            for waiter in (enqueued, *others):
                with pytest.raises(StoreFailed, match="on fire"):
                    await waiter
            await serves_again(shard, db)
            with pytest.raises(JobNotFound):
                await shard.execute(get_job, SHOW)

    run(main())


def test_a_shard_that_cannot_be_opened_yet_is_tried_again():
    async def main():
        store = WatchedSlate()
        async with serving(store) as shard:
            await shard.execute(enqueue, a_job())
            db = store.db
            store.refusals = [StoreFailed("not yet"), StoreFailed("not yet")]
            store.db.failures.append(FAILED)
            with pytest.raises(Unavailable):
                await shard.execute(enqueue, a_job(job_id="j2"))
            await db.abandoned.wait()
            with pytest.raises(ShardNotReady, match="is opening"):
                await shard.execute(get_job, SHOW)
            await serves_again(shard, db)
            assert store.refusals == []
            assert (await shard.execute(get_job, SHOW)).payload == b"payload"

    run(main())


def test_a_failing_checkpoint_makes_the_shard_open_again():
    async def main():
        store = WatchedSlate()
        async with serving(store) as shard:
            await shard.execute(enqueue, a_job())
            db = store.db
            db.failures.append(FAILED)
            with pytest.raises(StoreFailed, match="on fire"):
                await shard.checkpoint()
            await serves_again(shard, db)
            assert (await shard.execute(get_job, SHOW)).payload == b"payload"
            await shard.checkpoint()
            assert await verify(await shard.database.snapshot(), MemoryDatabase()) is None

    run(main())


def test_closing_waits_for_what_was_decided():
    async def main():
        open_it = a_slate_store()
        shard = a_shard(open_it)
        await shard.open()
        enqueued = asyncio.create_task(shard.execute(enqueue, a_job()))
        await asyncio.sleep(0)
        await shard.close()
        assert await enqueued == "j1"
        async with serving(open_it) as again:
            assert (await again.execute(get_job, SHOW)).payload == b"payload"

    run(main())


@pytest.mark.parametrize("interval_ms", [0, 60_000])
def test_whoever_still_waits_when_the_shard_closes_is_told(interval_ms):
    async def main():
        db = Watched(MemoryDatabase())
        shard = a_shard(opens(db), commit_interval_ms=interval_ms)
        await shard.open()
        await shard.execute(get_counts, "")
        db.gate.clear()
        waiting = [
            asyncio.create_task(shard.execute(enqueue, a_job())),
            asyncio.create_task(shard.execute(get_job, SHOW)),
            asyncio.create_task(anext(shard.log.follow(2))),
        ]
        await turns()
        await shard.close()
        for task in waiting:
            with pytest.raises(Unavailable):
                await task

    run(main())


# --- bounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [{"pending_commands_max": 2}, {"pending_bytes_max": 200}])
def test_beyond_the_bound_callers_are_turned_away_at_once(bound):
    async def main():
        async with a_held_shard(**bound) as (shard, db, _):
            waiting = [
                asyncio.create_task(shard.execute(enqueue, a_job(job_id=f"more {number}"), size=200))
                for number in range(2)
            ]
            await turns()
            with pytest.raises(Busy, match="too many commands are waiting to become durable; try again"):
                await shard.execute(enqueue, a_job(job_id="one too many"))
            db.gate.set()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert results[0] == "more 0"
            assert await shard.execute(enqueue, a_job(job_id="later")) == "later"

    run(main())


def test_commands_wait_for_a_checkpoint_when_too_many_rows_have_changed():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db), checkpoint_rows=200) as shard:
            await shard.execute(get_counts, "")
            most = 0
            for number in range(1_500):
                await shard.execute(enqueue, a_job(job_id=str(number)))
                most = max(most, len(shard.rows.changes))
            # The size is looked at now and then, so the bound is not exact.
            slack = 4 * shard_module.LOOK_AFTER_EVENTS
            assert most <= shard_module.FULLNESS_MAX * 200 + slack
            assert shard.checkpoints.count > 1

    run(main())


def test_while_a_checkpoint_hangs_the_overlay_does_not_grow_beyond_its_bound():
    async def main():
        db = Hanging(MemoryDatabase())
        async with serving(opens(db), checkpoint_rows=200) as shard:
            done = 0

            async def enqueue_many():
                nonlocal done
                for number in range(1_500):
                    await shard.execute(enqueue, a_job(job_id=str(number)))
                    done += 1

            work = asyncio.create_task(enqueue_many())
            await db.hangs.wait()
            await turns()
            before = -1
            while before != done:
                before = done
                await turns()
            assert done < 1_500, "they wait"
            db.gate.set()
            await work
            assert done == 1_500

    run(main())


def test_a_shard_that_closes_tells_those_who_wait_for_room():
    async def main():
        db = Watched(MemoryDatabase())
        shard = a_shard(opens(db), checkpoint_rows=1)
        await shard.open()
        await shard.execute(get_counts, "")
        db.gate.clear()
        tasks = [asyncio.create_task(shard.execute(enqueue, a_job(job_id=str(n)))) for n in range(20)]
        await turns()
        await shard.close()
        done, pending = await asyncio.wait(tasks, timeout=5)
        assert not pending
        assert all(isinstance(task.exception(), Unavailable) for task in done)

    run(main())


# --- checkpoints ----------------------------------------------------------------------------------------------


def test_a_shard_with_nothing_to_do_writes_nothing():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db), checkpoint_interval_ms=1) as shard:
            written = shard.checkpoints.next()
            await shard.execute(enqueue, a_job())
            await written
            writes = db.arrived.qsize()
            for _ in range(20):
                await asyncio.sleep(0.002)
                await shard.execute(get_job, SHOW)
            assert db.arrived.qsize() == writes

    run(main())


def test_a_checkpoint_is_written_by_age_by_rows_and_by_bytes():
    async def main(**options):
        async with serving(**{"checkpoint_interval_ms": 3_600_000} | options) as shard:
            written = asyncio.create_task(shard.checkpoints.next())
            await shard.execute(enqueue, a_job(payload=b"x" * 1_000))
            await written

    run(main(checkpoint_interval_ms=1))
    run(main(checkpoint_rows=3))
    run(main(checkpoint_bytes=1_000))


def test_commands_are_served_while_a_checkpoint_is_written():
    async def main():
        store = WatchedSlate()
        async with serving(store) as shard:
            await shard.execute(enqueue, a_job())
            while store.db.arrived.qsize():
                store.db.arrived.get_nowait()
            store.db.gate.clear()
            checkpoint = asyncio.create_task(shard.checkpoint())
            await store.db.arrived.get()
            (task,) = await asyncio.wait_for(asyncio.shield(leased_in_memory(shard, store)), 5)
            await checkpoint
            await shard.execute(report_outcome, failure(task.task_id))
            await shard.checkpoint()
            assert await verify(await shard.database.snapshot(), MemoryDatabase()) is None

    async def leased_in_memory(shard, store):
        leasing = asyncio.create_task(shard.execute(lease_tasks, for_worker()))
        await store.db.arrived.get()
        assert not leasing.done()
        store.db.gate.set()
        return await leasing

    run(main())


def test_a_checkpoint_whose_caller_goes_away_hinders_no_later_one():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            db.gate.clear()
            checkpoint = asyncio.create_task(shard.checkpoint())
            await turns()
            checkpoint.cancel()
            await turns()
            db.gate.set()
            await shard.execute(enqueue, a_job(job_id="j2"))
            await shard.checkpoint()
            assert shard.stage is Stage.SERVING
            assert await verify(await shard.database.snapshot(), MemoryDatabase()) is None

    run(main())


def test_a_checkpoint_that_hangs_holds_up_none_of_the_next_opening():
    async def main():
        memory = MemoryDatabase()
        hangs, works = Watched(memory), Watched(memory)
        databases = iter([hangs, works])

        async def open_it() -> Watched:
            return next(databases)

        async with serving(open_it) as shard:
            await shard.execute(enqueue, a_job())
            hangs.gate.clear()
            stuck = asyncio.create_task(shard.checkpoint())
            await turns()
            waits = asyncio.create_task(shard.checkpoint())
            hangs.broken = FAILED
            await serves_again(shard, hangs)
            await shard.checkpoint()
            assert works.writes == 1
            hangs.gate.set()
            await asyncio.wait([stuck, waits])
            with pytest.raises(ShardNotReady, match="has opened again"):
                waits.result()

    run(main())


# --- when the shard changes hands, or is damaged --------------------------------------------------------------


def test_a_shard_that_was_opened_elsewhere_stops():
    async def main():
        open_it = a_slate_store()
        async with serving(open_it) as first:
            await first.execute(enqueue, a_job())
            async with serving(open_it) as second:
                await second.execute(enqueue, a_job(job_id="j2"))
                with pytest.raises(Fenced):
                    await first.execute(enqueue, a_job(job_id="j3"))
                await first.stopped.wait()
                assert first.stage is Stage.STOPPED
                for decide, command in ((enqueue, a_job(job_id="j4")), (get_job, SHOW)):
                    with pytest.raises(Fenced):
                        await first.execute(decide, command)
                counts = await second.execute(get_counts, "")
                assert counts.total == 2

    run(main())


def test_a_shard_that_is_taken_over_while_it_is_idle_stops_by_itself(monkeypatch):
    monkeypatch.setattr(shard_module, "WATCH_EVERY_S", 0.0)

    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            db.broken = Fenced("somebody else has it")
            await shard.stopped.wait()
            with pytest.raises(Fenced, match="somebody else has it"):
                await shard.execute(get_job, SHOW)

    run(main())


@pytest.mark.parametrize(
    ("record", "text"),
    [
        pytest.param(b"garbage", "event 4 cannot be decoded", id="garbage"),
        pytest.param(to_bytes([]), "event 4 cannot be decoded", id="an empty record"),
        pytest.param(
            to_bytes([[NOW, "", "", [[9999, 1]]]]), "event 4 .* type 9999 is unknown", id="an unknown type"
        ),
    ],
)
def test_a_record_that_cannot_be_understood_keeps_the_shard_from_opening(record, text):
    async def main():
        db = MemoryDatabase()
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
        batch = db.batch()
        batch.put(record_key(4), record)
        await db.write(batch)
        shard = a_shard(opens(db))
        with pytest.raises(Corrupt, match=text):
            await shard.open()
        await shard.close()

    run(main())


def test_a_shard_that_finds_damage_when_it_opens_again_stops_and_says_where():
    async def main():
        store = WatchedSlate()
        async with serving(store) as shard:
            await shard.execute(enqueue, a_job())
            batch = store.db.batch()
            batch.put(record_key(4), b"garbage")
            await store.db.inner.write(batch)
            store.db.failures.append(FAILED)
            with pytest.raises(Unavailable):
                await shard.execute(enqueue, a_job(job_id="j2"))
            await shard.stopped.wait()
            with pytest.raises(Corrupt, match="shard shard has stopped: event 4 cannot be decoded"):
                await shard.execute(get_job, SHOW)

    run(main())


def test_an_event_that_contradicts_the_rows_stops_the_shard():
    async def main():
        db = MemoryDatabase()
        async with serving(opens(db)) as shard:
            await shard.execute(get_counts, "")
        batch = db.batch()
        batch.put(record_key(2), to_bytes([[NOW, "", "", [[18, 1, 0, "acme", "nobody"]]]]))
        await db.write(batch)
        shard = a_shard(opens(db))
        with pytest.raises(Corrupt, match=r"event 2 \(JobDeleted\) needs jobs .* which does not exist"):
            await shard.open()
        await shard.close()

    run(main())


def test_a_bug_in_a_decision_changes_nothing():
    async def broken(shard):
        def decide(command, draft):
            enqueue(command, draft)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await shard.execute(decide, a_job())

    async def main():
        async with serving() as shard:
            await broken(shard)
            with pytest.raises(JobNotFound):
                await shard.execute(get_job, SHOW)
            await shard.execute(enqueue, a_job())
            assert [event.seq for event in await events_of(shard)] == [1, 2, 3]

    run(main())


def test_rows_that_stand_for_more_than_the_log_has_are_not_served():
    async def main():
        db = MemoryDatabase()
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            await shard.checkpoint()
        lost = db.batch()
        for key, _ in await db.scan(LOG_PREFIX, LOG_END, limit=100):
            lost.delete(key)
        await db.write(lost)
        with pytest.raises(Corrupt, match="is missing from the log"):
            async with serving(opens(db)):
                pass

    run(main())


def test_a_shard_that_was_taken_over_notices_without_being_asked_for_anything():
    async def main():
        spec = StoreSpec.in_memory()
        async with serving(opens_slate(spec)) as stale, serving(opens_slate(spec)):
            async with asyncio.timeout(30):
                await stale.stopped.wait()
            with pytest.raises(Fenced, match="another process has opened this shard"):
                await stale.execute(enqueue, a_job())

    run(main())


def test_reading_while_a_checkpoint_is_built_does_not_disturb_it():
    async def main():
        db = Watched(MemoryDatabase())
        async with serving(opens(db)) as shard:
            for number in range(500):
                await shard.execute(enqueue, a_job(job_id=f"j{number}"))
            db.gate.clear()
            checkpoint = asyncio.create_task(shard.checkpoint())
            await turns()
            # The frozen rows have no table of leases: looking there must not add one.
            shown = asyncio.create_task(shard.execute(heartbeat, a_heartbeat()))
            await turns()
            db.gate.set()
            await checkpoint
            with pytest.raises(LeaseNotFound):
                await shown
            assert shard.stage is Stage.SERVING

    run(main())


def test_a_row_that_cannot_be_read_stops_the_shard_and_is_named():
    # A91
    async def main():
        db = MemoryDatabase()
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            await shard.checkpoint()
        damage = db.batch()
        damage.put(row_key(JOBS, ("acme", "j1")), b"\x93\x01\x02\x03")
        await db.write(damage)
        async with serving(opens(db)) as shard:
            with pytest.raises(Corrupt, match=r"the row jobs \('acme', 'j1'\) cannot be read"):
                await shard.execute(get_job, SHOW)
            async with asyncio.timeout(30):
                await shard.stopped.wait()

    run(main())


def test_a_bug_met_while_opening_again_does_not_end_the_tries(monkeypatch):
    monkeypatch.setattr(shard_module, "REOPEN_AFTER_S", (0.0,))

    async def main():
        spec = StoreSpec.in_memory()
        opened, again = 0, asyncio.Event()

        async def open_it():
            nonlocal opened
            opened += 1
            if opened == 2:
                raise ValueError("a bug")
            if opened == 3:
                again.set()
            return await open_database(spec, "shard")

        async with serving(open_it) as shard:
            shard._failed.set(StoreFailed("gone"))
            async with asyncio.timeout(30):
                await again.wait()
                while shard.stage is not Stage.SERVING:  # noqa: ASYNC110 - serving has no signal of its own
                    await asyncio.sleep(0)
            assert await shard.execute(enqueue, a_job(job_id="j2")) == "j2"

    run(main())


def test_rows_of_another_format_are_made_anew_from_the_log(monkeypatch):
    async def main():
        db = MemoryDatabase()
        async with serving(opens(db)) as shard:
            await shard.execute(enqueue, a_job())
            await shard.checkpoint()
        with monkeypatch.context() as older:
            older.setattr(checkpoint_module, "ROWS_FORMAT", "older")
            note = db.batch()
            note.put(CHECKPOINT_KEY, checkpoint_module._note_bytes(Note(2, NOW), "older"))
            note.put(row_key(JOBS, ("acme", "gone")), b"of an older shape")
            await db.write(note)
        async with serving(opens(db)) as shard:
            assert (await shard.execute(get_job, SHOW)).payload == b"payload"
            await shard.checkpoint()
        assert await verify(db, MemoryDatabase()) is None

    run(main())
