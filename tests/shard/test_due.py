from __future__ import annotations

from silo.events.catalogue import ChainDue
from silo.projections.jobs import Place
from silo.projections.tasks import READY, TIMERS
from silo.shard.due import PER_COMMAND_MAX, wake_due
from silo.shard.enqueue import enqueue
from tests.builders import LATER, NOW, a_job, cancelled_by_client, fact, pending
from tests.story import Story


def test_a_chain_becomes_ready_when_its_time_comes():
    story = Story().given(*pending(start_ms=LATER, virtual_start_ms=LATER + 5)).at(LATER).when(wake_due)

    assert story.reply == 1
    assert story.events == [fact(ChainDue)]
    assert story.job().chain.place is Place.READY
    assert list(story.table(READY)) == [("group", LATER + 5, LATER, 2)]
    assert not story.table(TIMERS)
    assert story.job().changed_ms == NOW


def test_nothing_happens_before_that():
    story = Story().given(*pending(start_ms=LATER)).at(LATER - 1).when(wake_due)

    assert story.reply == 0
    assert story.events == []


def test_a_cancelled_job_never_comes_due():
    story = Story().given(*cancelled_by_client(start_ms=LATER)).at(LATER).when(wake_due)

    assert story.events == []


def test_many_chains_come_due_in_pieces_and_in_the_order_of_their_times():
    story = Story()
    for number in range(PER_COMMAND_MAX + 1):
        story.when(enqueue, a_job(job_id=str(number), enqueue_time_ms=LATER + 1_000 - number))
    story.at(LATER + 2_000).when(wake_due)

    assert story.reply == PER_COMMAND_MAX
    assert story.events[0].job_id == str(PER_COMMAND_MAX)
    assert story.when(wake_due).reply == 1
    assert story.when(wake_due).reply == 0
