"""What a statement shows of the past is what was there."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from silo.archive.archive import Archive
from silo.archive.database import with_archive
from silo.archive.folder import OnDisk
from silo.broker.archiving import keep_archive
from silo.errors import Exhausted, Invalid
from silo.projections.jobs import JOBS
from silo.query import as_of
from silo.query.as_of import Moment, moment_of, state_at
from silo.query.snapshot import Stopped, take
from silo.query.statement import plan
from silo.shard.base import Base
from silo.shard.checkpoint import Note
from silo.shard.replay import replay
from silo.shard.rows import Rows
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.archive.makers import Here
from tests.builders import NOW
from tests.query.test_strategies import live
from tests.serving import Clock, opens_slate, run, serving

STATE_TABLES = ("jobs", "tasks", "queues", "tenant_counts", "queue_counts", "attempts", "leases")


def a_history(chance: random.Random) -> list[Any]:
    """Steps as in test_strategies.py."""
    steps: list[Any] = []
    for _ in range(120):
        tenant, number = chance.choice("ab"), chance.randrange(5)
        steps.append(
            chance.choice(
                [
                    ("enqueue", tenant, number, "mail"),
                    ("enqueue", tenant, number, "x"),
                    ("lease", 2),
                    ("cancel", tenant, number),
                    ("delete", tenant, number),
                    ("checkpoint",),
                ]
            )
        )
    return steps


async def answered(shard: Any, sql: str) -> list[str]:
    async with (await plan(sql, [])).running(shard) as batches:
        return sorted([repr(row) async for batch in batches for row in batch.to_pylist()])


def test_a_hundred_moments_of_the_past_are_what_a_replay_that_stops_there_gives():
    async def main() -> None:
        chance, clock = random.Random(7), Clock()
        async with serving(opens_slate(StoreSpec.in_memory()), clock=clock) as shard:
            for step in a_history(chance):
                clock.now_ms += chance.randrange(3_000)
                await live(shard, [step], chance)
            newest = shard.log.next_seq - 1
            times = {
                seq: event.time_ms
                async for events in shard.log.read(1)
                for event in events
                for seq in [event.seq]
            }
            for _ in range(100):
                at_ms = chance.randrange(NOW - 10, clock.now_ms + 10)
                last = max((seq for seq, time_ms in times.items() if time_ms <= at_ms), default=0)
                by_instant = await state_at(shard, Moment(time_ms=at_ms))
                by_event = await state_at(shard, Moment(seq=last))
                expected = Rows()
                await replay(
                    shard.database, expected, MemoryDatabase(), after=Note(0, 0), upto=last, rows_max=10**9
                )
                for table, rows in by_instant.changed.items():
                    assert rows == dict(expected.changed(table)) == by_event.changed[table], (at_ms, table)
                assert by_instant.seq == by_event.seq == last
            assert newest > 60

    run(main())


def test_a_moment_is_told_from_an_image_and_what_came_after_it(tmp_path):
    async def main() -> None:
        chance, clock, memory = random.Random(8), Clock(), MemoryDatabase()

        async def open_it():
            return await with_archive(memory, Archive(OnDisk(tmp_path, fsync=False)))

        async with serving(open_it, clock=clock) as shard:
            for number, step in enumerate(a_history(chance)):
                clock.now_ms += chance.randrange(3_000)
                await live(shard, [step], chance)
                if number % 20 == 0:
                    await keep_archive(shard, None, image=True, maker=Here())
            newest = shard.log.next_seq - 1
            assert len(shard.database.archive.images) > 1
            moments = [Moment(seq=chance.randrange(newest + 1)) for _ in range(20)]
            asked = [f"SELECT * FROM {table}_at({moment.seq})" for table in TABLES_AT for moment in moments]
            from_images = [await answered(shard, sql) for sql in asked]
            for image in shard.database.archive.images:
                shard.database.archive.drop(image)
            assert [await answered(shard, sql) for sql in asked] == from_images

            # Cut, too: nothing is missing.
            await keep_archive(shard, None, image=True, maker=Here())
            clock.now_ms += 1
            await keep_archive(shard, 0, image=False, maker=Here())
            assert shard.database.live_seq > 1
            assert [await answered(shard, sql) for sql in asked] == from_images

    run(main())


def test_nobody_goes_on_loading_an_image_for_a_statement_that_was_given_up(tmp_path):
    async def main() -> None:
        memory = MemoryDatabase()

        async def open_it():
            return await with_archive(memory, Archive(OnDisk(tmp_path, fsync=False)))

        async with serving(open_it) as shard:
            await live(shard, a_history(random.Random(11)), random.Random(11))
            await keep_archive(shard, None, image=True, maker=Here())
            snapshot = await take(shard, ())
            snapshot.release()
            [image] = shard.database.archive.images
            with pytest.raises(Stopped):
                await Base(shard.database.archive, image).load(MemoryDatabase(), go_on=snapshot.go_on)

    run(main())


def test_many_may_ask_for_the_past_of_a_log_that_was_cut(tmp_path):
    async def main() -> None:
        chance, clock, memory = random.Random(10), Clock(), MemoryDatabase()

        async def open_it():
            return await with_archive(memory, Archive(OnDisk(tmp_path, fsync=False)))

        async with serving(open_it, clock=clock) as shard:
            await live(shard, a_history(chance), chance)
            await keep_archive(shard, None, image=True, maker=Here())
            clock.now_ms += 1
            await keep_archive(shard, 0, image=False, maker=Here())
            for image in shard.database.archive.images:
                shard.database.archive.drop(image)
            # More than there are threads.
            many = [state_at(shard, Moment(time_ms=NOW)) for _ in range(40)]
            assert len({snapshot.seq for snapshot in await asyncio.gather(*many)}) == 1

    run(main())


TABLES_AT = ("jobs", "tasks", "queues", "attempts", "leases", "tenant_counts", "queue_counts")


def test_events_are_one_table_over_archive_and_log(tmp_path):
    async def main() -> None:
        chance, clock, memory = random.Random(9), Clock(), MemoryDatabase()

        async def open_it():
            return await with_archive(memory, Archive(OnDisk(tmp_path, fsync=False)))

        asked = [
            "SELECT * FROM events",
            "SELECT COUNT(*) AS n FROM events",
            "SELECT seq, data FROM events WHERE seq BETWEEN 3 AND 40 AND type = 'ChainStarted'",
            "SELECT * FROM events WHERE seq = 7",
            "SELECT type, count(*) AS n FROM events GROUP BY type",
            "SELECT method FROM events WHERE tenant = 'a' AND shard_id = 'shard'",
        ]
        async with serving(open_it, clock=clock) as shard:
            history = a_history(chance)
            await live(shard, history[:70], chance)
            live_only = [await answered(shard, sql) for sql in asked]
            await keep_archive(shard, None, image=False, maker=Here())
            assert shard.database.archive.last_seq == shard.log.next_seq - 1
            assert [await answered(shard, sql) for sql in asked] == live_only

            await live(shard, history[70:], chance)
            both = [await answered(shard, sql) for sql in asked]
            assert len(both[0]) == shard.log.next_seq - 1
            await keep_archive(shard, None, image=True, maker=Here())
            clock.now_ms += 1
            await keep_archive(shard, 0, image=False, maker=Here())
            assert shard.database.live_seq > 3
            with_the_cut = await answered(shard, asked[0])
            assert [row for row in with_the_cut if "LogCut" not in row] == both[0]

    run(main())


def test_each_table_of_now_is_its_table_of_the_newest_event():
    async def main() -> None:
        chance, clock = random.Random(3), Clock()
        async with serving(opens_slate(StoreSpec.in_memory()), clock=clock) as shard:
            for step in a_history(chance):
                await live(shard, [step], chance)
            newest = shard.log.next_seq - 1
            for table in STATE_TABLES:
                now = await answered(shard, f"SELECT * FROM {table}")
                assert now == await answered(shard, f"SELECT * FROM {table}_at({newest})")
                assert (
                    now == await answered(shard, f"SELECT * FROM {table}_at('2100-01-01')") or table == "jobs"
                )
                assert await answered(shard, f"SELECT * FROM {table}_at(0)") == []
            counted = (
                f"SELECT status_kind, count(*) FROM jobs_at({newest}) WHERE tenant = 'a' GROUP BY status_kind"
            )
            assert await answered(shard, counted)
            joined = "SELECT count(*) n FROM jobs j JOIN jobs_at(2) b ON j.id = b.id JOIN jobs_at(9) c ON j.id = c.id"
            assert len(await answered(shard, joined)) == 1

    run(main())


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-03 14:05", Moment(time_ms=1_793_714_700_000)),
        ("2026-11-03T14:05:00.250", Moment(time_ms=1_793_714_700_250)),
        ("2026-11-03 15:05+01:00", Moment(time_ms=1_793_714_700_000)),
        (17, Moment(seq=17)),
    ],
)
def test_a_moment_is_an_instant_or_an_event(value, moment):
    assert moment_of(value) == moment


@pytest.mark.parametrize("value", ["yesterday", "", None, True, 1.5])
def test_what_is_no_moment_is_refused_with_a_way_to_say_one(value):
    with pytest.raises(Invalid, match="2026-11-03"):
        moment_of(value)


@pytest.mark.parametrize(
    ("sql", "details"),
    [
        ("SELECT * FROM jobs_at()", "jobs_at wants one argument"),
        ("SELECT * FROM jobs_at('yesterday')", "'yesterday' is no instant"),
        ("SELECT * FROM jobs_at(nosuch)", "must be written out"),
        ("SELECT * FROM events_at(3)", "table function 'events_at' not found"),
    ],
)
def test_a_mistake_in_asking_for_the_past_is_named(sql, details):
    with pytest.raises(Invalid, match=details):
        run(plan(sql, []))


def test_a_moment_that_too_many_events_lead_to_is_refused(monkeypatch):
    monkeypatch.setattr(as_of, "EVENTS_MAX", 4)

    async def main() -> None:
        async with serving(opens_slate(StoreSpec.in_memory())) as shard:
            await live(shard, [("enqueue", "a", number, "x") for number in range(4)], random.Random(1))
            assert (await state_at(shard, Moment(seq=4))).changed[JOBS]
            with pytest.raises(
                Exhausted, match="5 events lead to that moment, and a statement folds 4 at most"
            ):
                await state_at(shard, Moment(seq=5))

    run(main())
