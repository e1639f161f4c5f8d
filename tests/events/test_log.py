from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import Corrupt, SiloError, StoreFailed
from silo.events import log as log_module
from silo.events.catalogue import JobEnqueued, ShardCreated
from silo.events.codec import encode
from silo.events.log import LOG_PREFIX, Log, first_seq_of, history, matches, read, record_key
from silo.storage.memory import MemoryDatabase
from tests.builders import fact, stamped
from tests.serving import Watched, run, turns

FAILED = StoreFailed("the store is on fire")


def facts(first: int, count: int = 1) -> list:
    return [stamped(fact(JobEnqueued), seq=seq) for seq in range(first, first + count)]


def append(log: Log, count: int = 1) -> asyncio.Future[None]:
    """Append the next facts, as one command."""
    return log.append(facts(log.next_seq, count), 10 * count)


@asynccontextmanager
async def a_log(**options):
    """A log at work, and its database."""
    db = Watched(MemoryDatabase())
    log = Log(db, **{"next_seq": 1} | options)
    task = asyncio.create_task(log.run())
    try:
        yield log, db
    finally:
        task.cancel()
        with suppress(SiloError, asyncio.CancelledError):
            await task


async def records(db) -> list[list[int]]:
    """The sequence numbers in the store, a record at a time."""
    return [[event.seq for event in events] async for events in read(db, 1)]


# --- appending ------------------------------------------------------------------------------------------------


def test_what_is_appended_is_there_when_the_waiter_is_told():
    async def main():
        async with a_log() as (log, db):
            done = append(log, 3)
            assert not done.done()
            await done
            assert await records(db) == [[1, 2, 3]]
            assert (log.next_seq, log.durable_seq) == (4, 3)

    run(main())


def test_a_commit_starts_at_once_when_none_is_on_its_way():
    async def main():
        async with a_log() as (log, db):
            db.gate.clear()
            append(log)
            await turns()
            assert db.arrived.qsize() == 1

    run(main())


def test_everything_appended_while_a_commit_is_on_its_way_becomes_one_record():
    async def main():
        async with a_log() as (log, db):
            db.gate.clear()
            first = append(log)
            await db.arrived.get()
            later = [append(log, 2) for _ in range(3)]
            await turns()
            assert db.arrived.empty()
            assert not first.done()

            db.gate.set()
            await asyncio.gather(first, *later)
            assert await records(db) == [[1], [2, 3, 4, 5, 6, 7]]
            assert log.commits == 2

    run(main())


def test_what_is_appended_in_one_turn_is_one_record():
    async def main():
        async with a_log() as (log, db):
            await asyncio.gather(append(log), append(log), append(log))
            assert await records(db) == [[1, 2, 3]]

    run(main())


def test_a_commit_interval_gathers_what_comes_in_between():
    async def main():
        async with a_log(commit_interval_ms=300) as (log, db):
            await append(log)
            second = append(log)
            await turns()
            third = append(log)
            await asyncio.gather(second, third)
            assert await records(db) == [[1], [2, 3]]

    run(main())


def test_one_record_holds_a_bounded_number_of_events(monkeypatch):
    monkeypatch.setattr(log_module, "EVENTS_PER_COMMIT_MAX", 4)

    async def main():
        async with a_log() as (log, db):
            await asyncio.gather(*[append(log, 3) for _ in range(4)])
            assert await records(db) == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]

    run(main())


def test_one_record_holds_a_bounded_number_of_bytes(monkeypatch):
    monkeypatch.setattr(log_module, "BYTES_PER_COMMIT_MAX", 25)

    async def main():
        async with a_log() as (log, db):
            await asyncio.gather(*[append(log) for _ in range(4)])
            assert await records(db) == [[1, 2, 3], [4]]

    run(main())


def test_what_is_pending_is_counted_until_it_is_durable():
    async def main():
        async with a_log() as (log, db):
            db.gate.clear()
            done = [append(log), append(log, 2)]
            assert (log.pending_commands, log.pending_bytes) == (2, 30)
            db.gate.set()
            await asyncio.gather(*done)
            assert (log.pending_commands, log.pending_bytes) == (0, 0)

    run(main())


def test_durable_waits_for_what_was_appended_before_and_for_nothing_else():
    async def main():
        async with a_log() as (log, db):
            await log.durable()
            assert db.arrived.empty()

            db.gate.clear()
            append(log)
            waiter = asyncio.create_task(log.durable())
            await turns()
            assert not waiter.done()
            db.gate.set()
            await waiter
            assert log.durable_seq == 1
            assert db.writes == 1

    run(main())


def test_a_waiter_that_goes_away_changes_nothing():
    async def main():
        async with a_log() as (log, db):
            db.gate.clear()

            async def wait():
                await append(log)

            gone, patient = asyncio.create_task(wait()), asyncio.create_task(wait())
            await turns()
            gone.cancel()
            await turns()
            db.gate.set()
            await patient
            await append(log)
            assert [*chain(*await records(db))] == [1, 2, 3]

    run(main())


# --- failing --------------------------------------------------------------------------------------------------


def test_when_a_commit_fails_everybody_is_told():
    async def main():
        db = Watched(MemoryDatabase())
        log = Log(db, next_seq=1)
        task = asyncio.create_task(log.run())
        db.failures.append(FAILED)
        db.gate.clear()
        in_flight = append(log)
        await db.arrived.get()
        queued = append(log)
        reader = asyncio.create_task(log.durable())
        follower = asyncio.create_task(anext(log.follow(1)))
        await turns()
        db.gate.set()

        with pytest.raises(StoreFailed, match="on fire"):
            await task
        for waiter in (in_flight, queued, reader, follower, append(log), log.durable()):
            with pytest.raises(StoreFailed, match="on fire"):
                await waiter
        assert await records(db) == []

    run(main())


def test_a_failure_that_nobody_waits_for_is_no_unheard_error():
    async def main():
        unheard = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        db = Watched(MemoryDatabase())
        log = Log(db, next_seq=1)
        db.failures.append(FAILED)
        append(log)
        with pytest.raises(StoreFailed):
            await log.run()
        del log
        await turns()
        assert unheard == []

    run(main())


@pytest.mark.parametrize("in_flight", [True, False])
def test_a_log_that_is_stopped_while_it_writes_tells_everybody(in_flight):
    async def main():
        db = Watched(MemoryDatabase())
        log = Log(db, next_seq=1)
        db.gate.clear()
        task = asyncio.create_task(log.run())
        waiters = [append(log)]
        await db.arrived.get()
        if not in_flight:
            waiters.append(append(log))
        task.cancel()
        await asyncio.wait([task])

        for waiter in waiters:
            with pytest.raises(StoreFailed, match="closed before the command was durable"):
                await waiter

    run(main())


def test_a_log_that_is_stopped_between_two_commits_tells_everybody():
    async def main():
        db = Watched(MemoryDatabase())
        log = Log(db, next_seq=1, commit_interval_ms=60_000)
        task = asyncio.create_task(log.run())
        await append(log)
        waiter = append(log)
        await turns()
        task.cancel()
        await asyncio.wait([task])

        with pytest.raises(StoreFailed, match="closed before the command was durable"):
            await waiter

    run(main())


# --- reading --------------------------------------------------------------------------------------------------


def a_store(*counts: int) -> MemoryDatabase:
    """A store with records of so many events."""
    db = MemoryDatabase()
    batch, seq = db.batch(), 1
    for count in counts:
        batch.put(record_key(seq), encode(facts(seq, count)))
        seq += count
    asyncio.run(db.write(batch))
    return db


@given(st.lists(st.integers(1, 5), max_size=40), st.integers(1, 60), st.none() | st.integers(1, 60))
def test_any_part_of_the_log_can_be_read_also_from_the_middle_of_a_record(counts, start, end):
    async def main():
        found = [[event.seq for event in events] async for events in read(a_store_now, start, end=end)]
        last = sum(counts) + 1
        assert all(found)
        assert [*chain(*found)] == list(range(start, last if end is None else min(end, last)))

    a_store_now = a_store(*counts)
    run(main())


def raises_on_read(db, text: str, start: int = 1) -> None:
    async def main():
        with pytest.raises(Corrupt, match=text):
            async for _ in read(db, start):
                pass

    run(main())


def without(db: MemoryDatabase, first_seq: int) -> MemoryDatabase:
    batch = db.batch()
    batch.delete(record_key(first_seq))
    asyncio.run(db.write(batch))
    return db


def test_a_missing_record_is_noticed():
    raises_on_read(without(a_store(2, 2, 2), 3), r"^event 3 is missing: the log goes on at 5$")


def test_a_missing_first_record_is_noticed():
    raises_on_read(without(a_store(2, 2, 2), 1), r"^event 1 is missing: the log goes on at 3$")


def test_a_missing_record_is_noticed_by_whoever_begins_to_read_there():
    raises_on_read(without(a_store(2, 2, 2), 3), r"^event 3 is missing: the log goes on at 5$", start=3)


def test_a_record_that_cannot_be_read_is_named():
    db = a_store(2, 2)
    batch = db.batch()
    batch.put(record_key(3), b"garbage")
    asyncio.run(db.write(batch))

    raises_on_read(db, "^event 3 cannot be decoded")


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_records_lie_in_the_order_of_their_numbers(a, b):
    assert (record_key(a) < record_key(b)) == (a < b)
    assert first_seq_of(record_key(a)) == a
    assert record_key(a).startswith(LOG_PREFIX)


# --- following ------------------------------------------------------------------------------------------------


def test_a_follower_gets_what_is_there_and_then_what_comes():
    async def main():
        async with a_log() as (log, db):
            await append(log, 2)
            await append(log, 2)
            following = log.follow(2)
            assert [[event.seq for event in await anext(following)] for _ in range(2)] == [[2], [3, 4]]

            db.gate.clear()
            coming = asyncio.create_task(anext(following))
            append(log)
            await turns()
            assert not coming.done(), "it is not durable yet"
            db.gate.set()
            assert [event.seq for event in await coming] == [5]

            await append(log)
            assert [event.seq for event in await anext(following)] == [6]

    run(main())


def test_one_may_follow_from_a_point_that_is_still_to_come():
    async def main():
        async with a_log() as (log, _):
            coming = asyncio.create_task(anext(log.follow(3)))
            await append(log, 2)
            await turns()
            assert not coming.done()
            await append(log, 2)
            assert [event.seq for event in await coming] == [3, 4]

    run(main())


def test_followers_neither_miss_nor_repeat_anything_under_load():
    async def main():
        async with a_log() as (log, _):
            seen = []

            async def follow():
                async for events in log.follow(1):
                    seen.extend(event.seq for event in events)
                    if seen[-1] == 200:
                        return

            follower = asyncio.create_task(follow())
            for _ in range(100):
                append(log, 2)
                await asyncio.sleep(0)
            await follower
            assert seen == list(range(1, 201))

    run(main())


# --- one job's history ----------------------------------------------------------------------------------------


def test_the_history_of_a_job_leads_back_to_its_beginning():
    async def main():
        async with a_log() as (log, _):
            ours = {1: 0, 3: 1, 4: 3, 8: 4}
            for first in (1, 4, 7):
                log.append(
                    [
                        stamped(fact(JobEnqueued), seq=seq, prev=ours.get(seq, 0))
                        for seq in range(first, first + 3)
                    ],
                    0,
                )
                await log.durable()
            assert [event.seq for event in await log.history(8)] == [1, 3, 4, 8]

    run(main())


def test_a_history_waits_until_its_newest_event_is_durable():
    async def main():
        async with a_log() as (log, db):
            db.gate.clear()
            append(log)
            reading = asyncio.create_task(log.history(1))
            await turns()
            assert not reading.done()
            db.gate.set()
            assert [event.seq for event in await reading] == [1]

    run(main())


def test_a_hole_in_a_history_is_noticed():
    async def main():
        with pytest.raises(Corrupt, match=r"^event 9 is missing from the log$"):
            await history(db, 9)

    db = a_store(3)
    run(main())


# --- filters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [True, True, True, True]),
        ({"tenant": "acme"}, [True, True, False, False]),
        ({"job_id": "j1"}, [True, False, True, False]),
        ({"tenant": "acme", "job_id": "j1"}, [True, False, False, False]),
        ({"tenant": "nobody"}, [False, False, False, False]),
    ],
)
def test_events_are_filtered_by_tenant_and_job(wanted, found):
    events = [
        fact(JobEnqueued),
        fact(JobEnqueued, job_id="j2"),
        fact(JobEnqueued, tenant="other"),
        fact(ShardCreated),
    ]
    assert [matches(event, **wanted) for event in events] == found


def test_reading_and_following_pass_over_what_is_not_asked_for():
    async def main():
        async with a_log() as (log, _):
            for seq, tenant, job_id in ((1, "a", "x"), (2, "b", "x"), (3, "a", "y"), (4, "a", "x")):
                log.append([stamped(fact(JobEnqueued, tenant=tenant, job_id=job_id), seq=seq)], 0)
                await log.durable()
            for wanted, found in (({"tenant": "a"}, [1, 3, 4]), ({"tenant": "a", "job_id": "x"}, [1, 4])):
                read_ = [event.seq async for events in log.read(1, **wanted) for event in events]
                assert read_ == found
                following = log.follow(1, **wanted)
                assert [(await anext(following))[0].seq for _ in found] == found

    run(main())


def test_a_follower_that_passes_over_everything_still_hears_of_what_comes():
    async def main():
        async with a_log() as (log, _):
            await append(log, 3)
            coming = asyncio.create_task(anext(log.follow(1, tenant="other")))
            await turns()
            assert not coming.done()
            await log.append([stamped(fact(JobEnqueued, tenant="other"), seq=4)], 0)
            assert [event.seq for event in await coming] == [4]

    run(main())
