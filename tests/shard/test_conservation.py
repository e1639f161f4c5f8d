"""The law of conservation: a shard in which somebody is in every place, damaged by hand at one place after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from silo.domain.jobs import JobStatus
from silo.domain.limits import RateLimitRetry
from silo.events.catalogue import (
    ChainStarted,
    JobEnqueued,
    LimitCreated,
    SlotWaited,
)
from silo.projections.concurrency import QUEUES
from silo.projections.counters import COUNTS, CountRow
from silo.projections.fold import TABLES
from silo.projections.jobs import HOLDERS, JOBS, JOBS_BY_METADATA, JOBS_BY_STATUS, Place
from silo.projections.leases import EXPIRIES, LEASES
from silo.projections.rates import BUCKETS
from silo.projections.tasks import READY
from silo.projections.view import Key, Table
from silo.shard.conservation import COUNTED, VIOLATIONS_MAX, check_conservation
from silo.shard.disk import row_key
from silo.shard.draft import Rules
from silo.shard.refresh import lease_refreshes
from silo.storage.memory import MemoryDatabase
from tests.builders import LATER, a_floating_limit, a_limit, a_rate_limit, a_spec, fact, for_worker
from tests.serving import run
from tests.shard.days import ended, enqueued, leased
from tests.story import Story

NO_PLACES = {"attempts", "payloads", "cursors", "erasures", "log_cuts"}
"""Tables of which no other says how many entries there should be."""

IMPATIENT = a_rate_limit(1, name="impatient", retry=RateLimitRetry(max_retries=3))


def everywhere() -> Story:
    """A job in each place, and a queue and a bucket in each state."""
    story = Story(rules=Rules(completed_expire_ms=5_000))
    enqueued(story, "ended", metadata=(("colour", "red"),))
    leased(story)
    ended(story, "ended")
    enqueued(story, "running")
    leased(story)
    enqueued(story, "holds", "waits", limits=(a_limit(1, "a"),))
    enqueued(story, "also waits", limits=(a_limit(0, "a"),))
    enqueued(story, "passed", "throttled", limits=(a_rate_limit(1),))
    enqueued(story, "passed too", "checking", limits=(IMPATIENT,))
    enqueued(story, "refresh leased", limits=(a_floating_limit(0, "leased"),))
    story.when(lease_refreshes, for_worker())
    enqueued(story, "refresh scheduled", limits=(a_floating_limit(0, "scheduled"),))
    enqueued(story, "later", enqueue_time_ms=LATER)
    enqueued(story, "elsewhere", tenant="other")
    unsettled = {"job_id": "unsettled", "task_id": "task of unsettled"}
    story.given(
        fact(LimitCreated, queue="unsettled"),
        fact(JobEnqueued, job_id="unsettled", spec=a_spec(limits=(a_floating_limit(1, "unsettled"),))),
        fact(ChainStarted, **unsettled),
        fact(SlotWaited, queue="unsettled", **unsettled),
    )
    return story


def on_disk(story: Story) -> MemoryDatabase:
    """The rows as a checkpoint would have written them."""
    database = MemoryDatabase()
    for table in TABLES:
        if table.name in (HOLDERS.name, JOBS_BY_STATUS.name, JOBS_BY_METADATA.name):
            rows = dict.fromkeys(story.listed(table), b"")
        else:
            rows = story.table(table)
        for key, row in rows.items():
            write(database, table, key, row)
    return database


def write(database: MemoryDatabase, table: Table[Any], key: Key, row: Any) -> None:
    """Put a row, or take it away (None)."""

    async def write_it() -> None:
        batch = database.batch()
        if row is None:
            batch.delete(row_key(table, key))
        else:
            batch.put(row_key(table, key), table.encode(row))
        await database.write(batch)

    run(write_it())


def found(database: MemoryDatabase) -> list[str]:
    return list(run(check_conservation(database)))


def test_a_shard_in_which_somebody_is_everywhere_adds_up():
    story = everywhere()
    assert set(story.places().values()) == {place.name.lower() for place in Place} - {"gate"}
    for table in TABLES:
        if table.name not in NO_PLACES:
            assert story.table(table) or story.listed(table), f"nobody is in {table}"

    assert found(on_disk(story)) == []


def test_an_empty_shard_adds_up():
    assert found(MemoryDatabase()) == []


def test_whoever_waits_is_told_how_far_it_is():
    told: list[int] = []
    run(check_conservation(on_disk(everywhere()), progress=told.append))

    assert told == [len(everywhere().table(JOBS))]


# --- entries that are missing, or too many ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", [table for table in COUNTED if table is not COUNTS], ids=lambda table: table.name
)
def test_an_entry_that_is_missing_is_found_and_says_to_whom_it_belongs(table):
    story = everywhere()
    key = [*story.table(table), *story.listed(table)][0]
    database = on_disk(story)
    write(database, table, key, None)

    violations = found(database)
    assert any(text.startswith(f"{table.name} {key} is missing, which belongs to") for text in violations), (
        violations
    )
    assert any(text.startswith(f"{table.name} has ") for text in violations)


@pytest.mark.parametrize("table", COUNTED, ids=lambda table: table.name)
def test_an_entry_too_many_is_counted(table):
    story = everywhere()
    rows = {**dict.fromkeys(story.listed(table), b""), **story.table(table)}
    key, row = next(iter(rows.items()))
    stray = (*key[:-1], key[-1] + 1 if isinstance(key[-1], int) else f"{key[-1]} and more")
    database = on_disk(story)
    write(database, table, stray, row)

    violations = found(database)
    assert f"{table.name} has {len(rows) + 1} entries, but there should be {len(rows)}" in violations


# --- rows that contradict themselves or others -----------------------------------------------------------------------


def changed(
    table: Table[Any], key: Key, change: Callable[[Any], Any]
) -> Callable[[Story, MemoryDatabase], None]:
    def damage(story: Story, database: MemoryDatabase) -> None:
        write(database, table, key, change(story.row(table, *key)))

    return damage


def job(job_id: str, **but: Any) -> Callable[[Story, MemoryDatabase], None]:
    return changed(JOBS, ("acme", job_id), lambda row: attrs.evolve(row, **but))


def chain(job_id: str, **but: Any) -> Callable[[Story, MemoryDatabase], None]:
    return changed(
        JOBS, ("acme", job_id), lambda row: attrs.evolve(row, chain=attrs.evolve(row.chain, **but))
    )


def queue(name: str, **but: Any) -> Callable[[Story, MemoryDatabase], None]:
    return changed(QUEUES, ("acme", name), lambda row: attrs.evolve(row, **but))


DAMAGES = {
    "an ended job with a chain": (
        job("running", status=JobStatus.SUCCEEDED),
        "job ('acme', 'running'): it is Succeeded, but its chain is Chain(",
    ),
    "a live job without one": (
        job("later", chain=None),
        "job ('acme', 'later'): it is Scheduled, but its chain is None",
    ),
    "a running job that is not leased": (
        chain("running", place=Place.READY),
        "job ('acme', 'running'): it is Running, but its chain is READY",
    ),
    "a leased job that does not run": (
        job("running", status=JobStatus.SCHEDULED),
        "job ('acme', 'running'): it is Scheduled, but its chain is LEASED",
    ),
    "a chain at a gate": (
        chain("waits", place=Place.GATE),
        "job ('acme', 'waits'): its chain was left at a gate",
    ),
    "a ready chain before its last gate": (
        chain("holds", gate=0),
        "job ('acme', 'holds'): its chain is READY, but has passed 0 of 1 gates",
    ),
    "a chain that waits for a slot at a rate limit": (
        chain("throttled", place=Place.WAITING),
        "job ('acme', 'throttled'): its chain is WAITING at gate 0, which is no queue",
    ),
    "a chain that waits for a slot behind its last gate": (
        chain("holds", place=Place.WAITING),
        "job ('acme', 'holds'): its chain is WAITING at gate 1, which is no queue",
    ),
    "a chain in the line of a bucket at a queue": (
        chain("waits", place=Place.THROTTLED),
        "job ('acme', 'waits'): its chain is THROTTLED at gate 0, which is no rate limit",
    ),
    "a chain that is checked at a queue": (
        chain("waits", place=Place.CHECKING),
        "job ('acme', 'waits'): its chain is CHECKING at gate 0, which is no rate limit",
    ),
    "a chain in another place": (
        chain("later", start_ms=LATER + 1),
        f"timers ({LATER + 1}, ",
    ),
    "the counts of a tenant": (
        changed(COUNTS, ("acme",), lambda row: CountRow((9, *row.by_status[1:]))),
        "counts of ('acme',): CountRow(by_status=(9, ",
    ),
    "the counts of the whole shard": (
        changed(COUNTS, ("",), lambda row: None),
        "counts of ('',): None is on record, but there are CountRow(",
    ),
    "the counts of a tenant that has no jobs": (
        lambda story, database: write(database, COUNTS, ("nobody",), CountRow((1, 0, 0, 0, 0))),
        "counts has 4 entries, but there should be 3",
    ),
    "the holders of a queue": (
        queue("a", holders=2),
        "queue ('acme', 'a') counts 2 holders, but there are 1",
    ),
    "a holder that is not listed": (
        lambda story, database: write(database, HOLDERS, story.listed(HOLDERS)[0], None),
        "queue ('acme', 'a') counts 1 holders, but there are 0",
    ),
    "the waiters of a queue": (
        queue("a", lines=((0, 1), (1, 7))),
        "queue ('acme', 'a') counts ((0, 1), (1, 7)) waiters, but there are ((0, 1), (1, 1))",
    ),
    "a line that is not on record": (
        queue("a", lines=((1, 1),)),
        "queue ('acme', 'a') counts ((1, 1),) waiters, but there are ((0, 1), (1, 1))",
    ),
    "room that nobody noted": (
        queue("unsettled", unsettled_seq=0),
        "queue ('acme', 'unsettled'): it has room beside a waiter, but says otherwise",
    ),
    "room that there is not": (
        queue("a", unsettled_seq=5),
        "queue ('acme', 'a'): it has no room beside a waiter, but says otherwise",
    ),
    "a queue of which nothing is left": (
        lambda story, database: write(
            database, QUEUES, ("acme", "z"), attrs.evolve(story.row(QUEUES, "acme", "a"), holders=0, lines=())
        ),
        "queue ('acme', 'z'): nothing is left of it",
    ),
    "a queue that is gone": (
        lambda story, database: write(database, QUEUES, ("acme", "a"), None),
        "holders has 1 entries of ('acme', 'a'), which nobody counts",
    ),
    "the last queue, which is gone": (
        lambda story, database: write(database, QUEUES, ("acme", "unsettled"), None),
        "waiters has 1 entries of ('acme', 'unsettled', -1), which nobody counts",
    ),
    "when a refresh is due": (
        queue("unsettled", refresh_due_ms=77),
        "refreshes_due (77, 'acme', 'unsettled') is missing, which belongs to ('acme', 'unsettled')",
    ),
    "how many wait for a bucket": (
        changed(BUCKETS, ("acme", "mails", "acme"), lambda row: attrs.evolve(row, waiting=0)),
        "bucket ('acme', 'mails', 'acme') counts 0 in its line, but there are 1",
    ),
    "when a bucket is looked at": (
        changed(BUCKETS, ("acme", "mails", "acme"), lambda row: attrs.evolve(row, timer_ms=5)),
        "bucket_timers (5, 'acme', 'mails', 'acme') is missing, which belongs to ('acme', 'mails', 'acme')",
    ),
    "a bucket that is gone while somebody waits": (
        lambda story, database: write(database, BUCKETS, ("acme", "mails", "acme"), None),
        "bucket_lines has 1 entries of ('acme', 'mails', 'acme'), which nobody counts",
    ),
}


@pytest.mark.parametrize(("damage", "text"), DAMAGES.values(), ids=DAMAGES)
def test_a_row_that_does_not_add_up_is_found_and_named(damage, text):
    story = everywhere()
    database = on_disk(story)
    damage(story, database)

    violations = found(database)
    assert any(violation.startswith(text) for violation in violations), violations


def test_a_lease_that_expires_at_another_time_is_found():
    story = everywhere()
    key, lease = next(iter(story.table(LEASES).items()))
    database = on_disk(story)
    write(database, LEASES, key, attrs.evolve(lease, expires_ms=5))

    assert f"lease_expiries (5, '{key[0]}') is missing, which belongs to {key}" in found(database)


def test_a_lease_of_nobody_is_counted():
    story = everywhere()
    database = on_disk(story)
    lease = next(iter(story.table(LEASES).values()))
    write(database, LEASES, ("nobody",), lease)
    write(database, EXPIRIES, (lease.expires_ms, "nobody"), b"")

    assert found(database) == ["leases has 3 entries, but there should be 2"]


def test_where_much_is_wrong_the_first_of_it_is_told():
    story = enqueued(Story(), *map(str, range(2 * VIOLATIONS_MAX)))
    database = on_disk(story)
    for key in list(story.table(READY)):
        write(database, READY, key, None)

    violations = found(database)
    assert len(violations) == VIOLATIONS_MAX
    assert all(" is missing, which belongs to " in text for text in violations)


def test_the_tables_that_this_is_about_are_all_looked_at():
    looked_at = {*COUNTED, JOBS, QUEUES, BUCKETS}

    assert {table.name for table in TABLES if table not in looked_at} == NO_PLACES
