"""Asking for a slot: what the facts say, what a floating limit begins with, and what there is when the shard opens again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.broker.timers import next_due_ms, run_due
from silo.domain.jobs import LEASE_MS
from silo.events.catalogue import (
    ChainStarted,
    JobEnqueued,
    LimitCreated,
    RefreshScheduled,
    SlotGranted,
    SlotWaited,
)
from silo.projections.concurrency import FLOATING, NO_QUEUE, QUEUES, Floating, QueueRow
from silo.projections.jobs import HOLDERS
from silo.shard import gates
from silo.shard.conservation import check_conservation
from silo.shard.disk import read_table
from silo.shard.enqueue import enqueue
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.refresh import Refreshed, ReportRefresh, lease_work, report_refresh
from silo.shard.slots import next_waiter, next_waiters
from silo.storage.memory import MemoryDatabase
from silo.storage.stores import StoreSpec
from tests.builders import NOW, a_floating_limit, a_job, a_limit, a_policy, fact, for_worker, named, success
from tests.serving import Clock, Watched, opens, opens_slate, run, serving, turns
from tests.shard.days import ended, enqueued, leased, refreshed
from tests.story import Story, kinds

A = a_limit(1, "a")


# --- facts -----------------------------------------------------------------------------------------------------------


def test_a_free_slot_is_granted_with_the_maximum_that_allowed_it():
    # A1, A25
    story = enqueued(Story(), "j1", limits=(a_limit(3, "a"),))
    task_id = story.job().chain.task_id

    assert story.events[2:] == [fact(SlotGranted, task_id=task_id, queue="a", maximum=3)]
    assert story.listed(HOLDERS) == [("acme", "a", NOW, task_id, "j1")]


def test_who_finds_no_slot_waits_and_the_fact_says_for_what():
    # A2
    story = enqueued(Story(), "j1", "j2", limits=(A,))
    task_id = story.job(named("j2")).chain.task_id

    assert story.events[2:] == [fact(SlotWaited, job_id="j2", task_id=task_id, queue="a", maximum=1)]


def test_tenants_have_queues_of_their_own():
    # A7
    story = enqueued(Story(), "j1", limits=(A,))
    story.when(enqueue, a_job(tenant="other", limits=(A,)))

    assert list(story.table(QUEUES)) == [("acme", "a"), ("other", "a")]
    assert kinds(story.events)[-1] is SlotGranted


def test_a_queue_counts_those_who_hold_and_those_who_wait():
    # A3, A110
    story = Story()
    counts = []
    for number in range(5):
        enqueued(story, str(number), limits=(a_limit(3, "a"),))
        row = story.row(QUEUES, "acme", "a")
        counts.append((row.holders, row.waiters))
    assert counts == [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]

    for _ in range(5):
        [job_id] = leased(story, 1)
        ended(story, job_id)
        row = story.row(QUEUES, "acme", "a") or NO_QUEUE
        counts.append((row.holders, row.waiters))
    assert counts[5:] == [(3, 1), (3, 0), (2, 0), (1, 0), (0, 0)]


@given(
    holders=st.integers(0, 5),
    line=st.sampled_from([FLOATING, 0, 1, 3]),
    maximum=st.none() | st.integers(0, 4),
)
def test_there_is_room_while_fewer_hold_than_the_maximum_says(holders, line, maximum):
    # A100
    floating = None if maximum is None else Floating(maximum, 9, 0, (), 0, 0, 0, None)
    row = QueueRow(holders, (), 0, floating, 0, None)

    allowed = (maximum or 0) if line == FLOATING else line
    assert row.has_room(line) == (holders < allowed)


# --- floating limits -------------------------------------------------------------------------------------------------


def test_the_first_job_of_a_floating_limit_makes_it_and_later_ones_change_nothing():
    # A120
    first = a_floating_limit(1, "a", refresh_interval_ms=5_000, metadata=(("region", "eu"),))
    story = enqueued(Story(), "j1", limits=(first,))
    assert kinds(story.events) == [JobEnqueued, ChainStarted, LimitCreated, SlotGranted]
    before = story.row(QUEUES, "acme", "a").floating
    assert (before.maximum, before.refresh_interval_ms, before.metadata) == (1, 5_000, (("region", "eu"),))
    assert (before.refreshed_ms, before.failures, before.refresh) == (0, 0, None)

    enqueued(story, "j2", limits=(a_floating_limit(9, "a", refresh_interval_ms=1),), task_group="other")
    assert LimitCreated not in kinds(story.events)
    assert story.events[2].maximum == 1
    after = story.row(QUEUES, "acme", "a").floating
    assert (after.maximum, after.default_maximum, after.refresh_interval_ms) == (1, 1, 5_000)


def test_who_waits_at_an_old_maximum_has_it_found_out_by_workers_of_its_group():
    # A122
    story = enqueued(Story(), "j1", limits=(a_floating_limit(1, "a"),))
    assert RefreshScheduled not in kinds(story.events)
    enqueued(story, "j2", limits=(a_floating_limit(1, "a"),), task_group="other")
    assert kinds(story.events)[2:] == [SlotWaited, RefreshScheduled]
    assert story.events[3].task_group == "other"

    enqueued(story, "j3", "j4", limits=(a_floating_limit(1, "a"),))
    assert kinds(story.events)[2:] == [SlotWaited]


def test_who_waits_at_a_maximum_that_is_fresh_has_nothing_found_out():
    # A122
    story = enqueued(Story(), "j1", "j2", limits=(a_floating_limit(1, "a"),))
    refreshed(story, 1)
    assert RefreshScheduled not in kinds(enqueued(story, "j3", limits=(a_floating_limit(1, "a"),)).events)

    story.at(NOW + 60_000)
    assert RefreshScheduled in kinds(enqueued(story, "j4", limits=(a_floating_limit(1, "a"),)).events)


def test_who_waits_by_a_fixed_maximum_has_nothing_found_out():
    story = enqueued(Story(), "j1", limits=(a_floating_limit(1, "a"),))
    enqueued(story, "j2", limits=(A,))

    assert kinds(story.events)[2:] == [SlotWaited]


# --- who is next -----------------------------------------------------------------------------------------------------


def test_the_next_ones_are_named_in_advance_as_far_as_there_is_room():
    """A guess at what one command will need, so that it is loaded together: too much is no harm, too little only slow."""
    story = Story().given(fact(LimitCreated, queue="a", default_max_concurrency=0))
    for number in range(6):
        enqueued(story, f"{number}", limits=(a_floating_limit(0, "a"),))
    assert next_waiters(10, story.rows) == []

    def raise_it(_: None, draft: Any) -> None:
        [refresh] = lease_work(for_worker(), draft).refreshes
        report_refresh(ReportRefresh(refresh.task_id, Refreshed(4)), draft)
        assert next_waiters(10, draft.view) == [named(f"{number}") for number in range(4)]
        assert next_waiters(2, draft.view) == [named("0"), named("1")]
        assert next_waiter("acme", "a", draft.view) == named("0")

    story.when(raise_it)


# --- opened again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointed", [False, True], ids=["from the log", "from a checkpoint"])
@pytest.mark.parametrize("maximum", [1, 2])
def test_slots_are_held_across_openings_and_still_in_the_way(maximum, checkpointed):
    # A21, A22, A99
    async def main():
        store = opens_slate(StoreSpec.in_memory())
        limits = (a_limit(maximum, "a"),)
        async with serving(store) as shard:
            for number in range(maximum):
                await shard.execute(enqueue, a_job(job_id=f"{number}", limits=limits))
            tasks = await shard.execute(lease_tasks, for_worker())
            await shard.execute(enqueue, a_job(job_id="waits", limits=limits))
            if checkpointed:
                await shard.checkpoint()
        async with serving(store) as shard:
            await shard.execute(enqueue, a_job(job_id="new", limits=limits))
            assert await shard.execute(lease_tasks, for_worker()) == []
            await shard.execute(report_outcome, success(tasks[0].task_id))
            [next_one] = await shard.execute(lease_tasks, for_worker())
            assert next_one.job_id == "waits"
            await shard.checkpoint()
            assert await check_conservation(await shard.database.snapshot()) == []

    run(main())


def test_room_that_was_not_given_away_yet_is_given_when_the_shard_has_opened(monkeypatch):
    """A broker may end between the command that makes much room and those that give the rest of it away."""
    monkeypatch.setattr(gates, "GRANTS_PER_COMMAND_MAX", 2)

    async def main():
        store = opens_slate(StoreSpec.in_memory())
        async with serving(store) as shard:
            for number in range(8):
                await shard.execute(enqueue, a_job(job_id=f"{number}", limits=(a_floating_limit(0, "a"),)))
            [refresh] = (await shard.execute(lease_work, for_worker())).refreshes
            await shard.execute(report_refresh, ReportRefresh(refresh.task_id, Refreshed(7)))
            await shard.checkpoint()
        async with serving(store) as shard:
            assert await shard.execute(next_due_ms, None) == shard.now_ms()
            await run_due(shard)
            leased = await shard.execute(lease_tasks, for_worker())
            assert [task.job_id for task in leased] == [f"{number}" for number in range(7)]

    run(main())


# --- callers who go away ---------------------------------------------------------------------------------------------


def test_a_worker_who_hangs_up_while_he_is_given_a_task_has_it_until_its_lease_is_over():
    """What was decided is decided: nobody else gets the task, its slot is held once, and both come back in time."""

    # A86
    async def main():
        clock, db = Clock(), Watched(MemoryDatabase())
        async with serving(opens(db), clock=clock) as shard:
            clock.now_ms += LEASE_MS
            limits, policy = (A,), a_policy(max_interval_ms=0)
            await shard.execute(enqueue, a_job(limits=limits, retry_policy=policy))
            db.gate.clear()
            call = asyncio.create_task(shard.execute(lease_tasks, for_worker()))
            await turns()
            call.cancel()
            db.gate.set()
            assert await shard.execute(lease_tasks, for_worker("other")) == []
            await shard.checkpoint()
            assert await holders(shard) == 1

            clock.now_ms += LEASE_MS
            await run_due(shard)
            [task] = await shard.execute(lease_tasks, for_worker("other"))
            assert task.attempt == 2
            await shard.execute(report_outcome, success(task.task_id))
            await shard.checkpoint()
            assert await holders(shard) == 0

    async def holders(shard: Any) -> int:
        return sum([len(page) async for page in read_table(shard.database, HOLDERS)])

    run(main())
