from __future__ import annotations

import re

import pytest

from silo.domain.jobs import JobStatus
from silo.errors import AlreadyExists
from silo.events.catalogue import ChainStarted, JobDeleted, JobEnqueued
from silo.projections.counters import COUNTS, WHOLE_SHARD
from silo.projections.jobs import Place
from silo.projections.payloads import PAYLOADS
from silo.projections.tasks import READY, TIMERS
from silo.shard.draft import Rules
from silo.shard.enqueue import enqueue
from silo.shard.lease import lease_tasks
from silo.shard.reading import GetJob, get_job
from tests.builders import (
    LATER,
    NAME,
    NOW,
    a_job,
    a_policy,
    cancelled_by_client,
    fact,
    failed,
    for_worker,
    pending,
    running,
    succeeded,
)
from tests.story import CALLER, Story


def test_a_job_is_taken_in_and_its_first_attempt_sets_out():
    # A172
    story = Story().when(enqueue, a_job(priority=3, metadata=(("a", "b"),)))

    taken_in, chain = story.events
    assert story.reply == "j1"
    assert taken_in == fact(JobEnqueued, spec=a_job(priority=3, metadata=(("a", "b"),)).spec)
    assert chain == fact(ChainStarted, task_id=chain.task_id, virtual_start_ms=NOW + 30_000)


def test_every_fact_says_when_it_was_decided_and_who_asked():
    story = Story().when(enqueue, a_job())

    stamps = [(event.seq, event.time_ms, event.actor, event.method, event.prev) for event in story.events]
    assert stamps == [(1, NOW, CALLER.actor, CALLER.method, 0), (2, NOW, CALLER.actor, CALLER.method, 1)]


@pytest.mark.parametrize("asked_ms", [0, -1, NOW - 5, NOW])
def test_a_job_without_a_start_or_with_one_that_has_passed_is_ready_at_once(asked_ms):
    story = Story().when(enqueue, a_job(enqueue_time_ms=asked_ms))

    start_ms = asked_ms if asked_ms > 0 else NOW
    assert story.job().chain.place is Place.READY
    assert story.job().next_start_ms == start_ms
    assert list(story.table(READY)) == [("group", start_ms, start_ms, 2)]
    assert not story.table(TIMERS)


def test_a_job_for_later_waits_and_is_not_ready():
    story = Story().when(enqueue, a_job(enqueue_time_ms=LATER))

    assert story.job().chain.place is Place.TIMER
    assert list(story.table(TIMERS)) == [(LATER, 2)]
    assert not story.table(READY)


def test_the_requested_start_is_kept_verbatim_and_the_arrival_beside_it():
    row = Story().when(enqueue, a_job(enqueue_time_ms=-7)).job()

    assert (row.spec.enqueue_time_ms, row.enqueued_ms) == (-7, NOW)


def test_a_new_job_is_scheduled_since_now_and_has_no_attempts():
    row = Story().when(enqueue, a_job()).job()

    assert (row.status, row.changed_ms, row.next_start_ms, row.attempts) == (JobStatus.SCHEDULED, NOW, NOW, 0)
    assert (row.chain.attempt, row.chain.relative_attempt) == (1, 1)


def test_a_job_without_an_id_gets_one_that_sorts_by_its_arrival():
    story = Story()

    first = story.when(enqueue, a_job(job_id="")).reply
    second = story.at(NOW + 1).when(enqueue, a_job(job_id="")).reply

    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first)
    assert first < second


@pytest.mark.parametrize("life", [pending, running, succeeded, failed, cancelled_by_client])
def test_an_id_is_taken_in_whatever_state_its_job_is(life):
    story = Story().given(*life())
    before = story.everything()

    with pytest.raises(AlreadyExists, match=r"^job already exists with id j1$"):
        story.when(enqueue, a_job(payload=b"another"))
    assert story.everything() == before


def test_another_tenant_may_use_the_same_id():
    story = Story().given(*pending()).when(enqueue, a_job(tenant="other"))

    assert story.reply == "j1"
    assert story.row(COUNTS, WHOLE_SHARD).total == 2
    assert story.row(COUNTS, "other").total == 1


def test_an_id_that_was_deleted_starts_clean():
    story = Story().given(*failed(), fact(JobDeleted)).when(enqueue, a_job(payload=b"second"))

    seen = story.when(get_job, GetJob(name=NAME, include_attempts=True)).reply
    assert (seen.payload, seen.attempts, seen.row.attempts) == (b"second", [], 0)
    assert story.when(lease_tasks, for_worker()).reply[0].attempt == 1
    assert story.history[-3].prev == 0


def test_payloads_are_kept_apart_from_the_rows_that_change():
    story = Story().when(enqueue, a_job(payload=b"x" * 1000))

    assert story.row(PAYLOADS, story.job().payload_seq) == b"x" * 1000


def test_an_empty_payload_is_a_payload():
    story = Story().when(enqueue, a_job(payload=b""))

    assert story.when(get_job, GetJob(name=NAME, include_attempts=False)).reply.payload == b""


def queue_order(rules: Rules, *jobs: dict[str, int]) -> list[str]:
    """Enqueue jobs named by their place in the arguments; the order in which they would be leased."""
    story = Story(rules=rules)
    for number, job in enumerate(jobs):
        story.when(enqueue, a_job(job_id=str(number), **job))
    return [task.job_id for task in story.when(lease_tasks, for_worker()).reply]


@pytest.mark.parametrize(
    ("weight_ms", "jobs", "order"),
    [
        pytest.param(
            10_000,
            [{"priority": 50}, {"priority": 0}],
            ["1", "0"],
            id="a low number overtakes what is as old",
        ),
        pytest.param(
            10_000,
            [{"priority": 50, "enqueue_time_ms": NOW - 500_001}, {"priority": 0}],
            ["0", "1"],
            id="but not what is older by more than the weight of the difference",
        ),
        pytest.param(
            10_000,
            [{"priority": 50, "enqueue_time_ms": NOW - 499_999}, {"priority": 0}],
            ["1", "0"],
            id="only what is less old than that",
        ),
        pytest.param(
            10_000,
            [{"priority": 0}, {"priority": 1, "enqueue_time_ms": NOW - 10_000}],
            ["1", "0"],
            id="of the same virtual start the older goes first",
        ),
        pytest.param(
            10_000, [{}, {}, {}], ["0", "1", "2"], id="of the same start the first to come goes first"
        ),
        pytest.param(
            0,
            [{"priority": 0}, {"priority": 99, "enqueue_time_ms": NOW - 1}],
            ["1", "0"],
            id="without a weight only age counts",
        ),
    ],
)
def test_ready_work_is_ordered_by_virtual_start(weight_ms, jobs, order):
    assert queue_order(Rules(priority_weight_ms=weight_ms), *jobs) == order


def test_a_start_at_the_end_of_time_is_no_error():
    end = (1 << 63) - 1
    story = Story().when(enqueue, a_job(enqueue_time_ms=end, priority=99, retry_policy=a_policy()))

    assert story.events[1].virtual_start_ms == end
