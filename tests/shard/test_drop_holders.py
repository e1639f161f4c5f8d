from __future__ import annotations

from silo.events.catalogue import HoldersDropped, SlotGranted
from silo.projections.concurrency import QUEUES
from silo.projections.jobs import HOLDERS, Place
from silo.shard.drop_holders import drop_holders
from silo.shard.lease import heartbeat
from tests.builders import LATER, NAME, a_heartbeat, a_limit, fact, named
from tests.shard.days import ended, enqueued, leased
from tests.story import Story, kinds

A, B = a_limit(1, "a"), a_limit(1, "b")


def test_jobs_lose_the_slots_they_hold_and_go_on():
    # A111
    story = enqueued(Story(), "j1", limits=(A, B))
    leased(story)
    task_id = story.job().chain.task_id
    story.when(drop_holders, [NAME])

    assert story.reply == 2
    assert story.events == [fact(HoldersDropped, task_id=task_id, queues=("a", "b"))]
    assert story.job().chain.place is Place.LEASED
    assert not story.table(QUEUES)
    assert story.when(heartbeat, a_heartbeat(task_id)).reply is None
    ended(story, "j1")
    assert story.listed(HOLDERS) == []


def test_who_waited_is_let_in_by_the_same_command():
    story = enqueued(Story(), "j1", "j2", limits=(A,))
    story.when(drop_holders, [NAME])

    assert kinds(story.events) == [HoldersDropped, SlotGranted]
    assert leased(story) == ["j1", "j2"]


def test_a_job_that_waits_further_on_loses_what_it_had_and_keeps_its_place():
    story = enqueued(Story(), "holds", limits=(B,))
    enqueued(story, "j1", limits=(A, B))
    story.when(drop_holders, [NAME])
    assert (story.reply, story.places()["j1"]) == (1, "waiting")

    leased(story)
    ended(story, "holds")
    assert [queue for queue, _ in story.job().chain.held] == ["b"]


def test_who_holds_nothing_loses_nothing():
    # A83, A111
    story = enqueued(Story(), "plain")
    enqueued(story, "j1", "waits", limits=(A,))
    enqueued(story, "later", limits=(B,), enqueue_time_ms=LATER)
    story.when(drop_holders, [NAME])
    names = [named(job_id) for job_id in ("plain", "j1", "later", "gone")]

    assert (story.when(drop_holders, names).reply, story.events) == (0, [])
    assert story.when(drop_holders, [named("waits")]).reply == 1
    assert story.when(drop_holders, []).reply == 0
