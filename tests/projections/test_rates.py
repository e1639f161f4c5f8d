from __future__ import annotations

from typing import Any

import pytest

from silo.domain.jobs import JobStatus
from silo.errors import Corrupt
from silo.events.catalogue import (
    BucketForgotten,
    BucketWaited,
    ChainStarted,
    Event,
    JobCancelled,
    JobExpedited,
    JobFailed,
    JobReimported,
    RateCheckDue,
    RateChecked,
    RateWaited,
)
from silo.projections.jobs import Place
from silo.projections.rates import (
    BUCKET_LINES,
    BUCKET_TIMERS,
    BUCKETS,
    CHECKS,
    LOOKED_AT_AFTER_MS,
    BucketRow,
    bucket_keys,
    rate_limit,
)
from silo.projections.tasks import READY, JobRef
from tests.builders import (
    LATER,
    NOW,
    a_bucket,
    a_limit,
    a_rate_limit,
    a_spec,
    checking,
    fact,
    pending,
    throttled,
)
from tests.story import Story

BUCKET = ("acme", "mails", "acme")
NAMED = {"name": "mails", "unique_key": "acme"}
REF = JobRef("acme", "j1")


def come_to_a_rate(**but: Any) -> list[Event]:
    return pending(**{"limits": (a_rate_limit(),)} | but)


# --- buckets ---------------------------------------------------------------------------------------------------------


def test_a_bucket_is_as_the_last_check_left_it():
    story = Story().given(*come_to_a_rate(), fact(RateChecked, bucket=a_bucket(3)))

    timer_ms = NOW + LOOKED_AT_AFTER_MS
    assert story.table(BUCKETS) == {BUCKET: BucketRow(a_bucket(3), 0, timer_ms)}
    assert list(story.table(BUCKET_TIMERS)) == [(timer_ms, *BUCKET)]
    story.given(fact(JobCancelled), fact(ChainStarted), fact(RateChecked, bucket=a_bucket(4)))
    assert story.row(BUCKETS, *BUCKET).bucket == a_bucket(4)
    assert list(story.table(BUCKET_TIMERS)) == [(timer_ms, *BUCKET)]


def test_a_bucket_that_lasts_is_looked_at_when_it_expires():
    story = Story().given(
        *come_to_a_rate(), fact(RateChecked, bucket=a_bucket(3, expires_ms=NOW + 10_000_000))
    )

    assert story.row(BUCKETS, *BUCKET).timer_ms == NOW + 10_000_000


def test_a_bucket_that_is_as_good_as_new_takes_no_room():
    story = Story().given(*come_to_a_rate(), fact(RateChecked, bucket=None))

    assert not story.table(BUCKETS)
    assert not story.table(BUCKET_TIMERS)


def test_what_an_outside_service_counts_is_in_no_bucket():
    story = Story().given(*come_to_a_rate(), fact(RateCheckDue), fact(RateChecked, is_local=False))

    assert not story.table(BUCKETS)
    assert story.job().chain.place is Place.READY


def test_a_bucket_that_was_looked_at_has_another_time_and_one_that_is_forgotten_none():
    story = Story().given(*come_to_a_rate(), fact(RateChecked, bucket=a_bucket()))
    story.given(fact(BucketWaited, until_ms=LATER, **NAMED))
    assert list(story.table(BUCKET_TIMERS)) == [(LATER, *BUCKET)]
    assert story.row(BUCKETS, *BUCKET) == BucketRow(a_bucket(), 0, LATER)

    story.given(fact(BucketForgotten, **NAMED))
    assert not story.table(BUCKETS)
    assert not story.table(BUCKET_TIMERS)


# --- lines -----------------------------------------------------------------------------------------------------------


def test_who_waits_for_a_bucket_is_in_its_line_by_virtual_start():
    story = Story().given(*throttled(start_ms=NOW - 5, virtual_start_ms=NOW + 7))

    assert story.table(BUCKET_LINES) == {(*BUCKET, NOW + 7, NOW - 5, 2): REF}
    assert story.row(BUCKETS, *BUCKET) == BucketRow(a_bucket(), 1, NOW + 1_000)
    assert list(story.table(BUCKET_TIMERS)) == [(NOW + 1_000, *BUCKET)]
    assert story.job().chain.place is Place.THROTTLED


def test_a_line_is_looked_at_when_the_first_of_its_members_may_pass():
    story = Story().given(*throttled())
    for job_id, passes_ms in (("j2", NOW + 5_000), ("j3", NOW + 300)):
        about = {"job_id": job_id, "task_id": f"task of {job_id}"}
        enqueued, started = come_to_a_rate()
        enqueued.job_id, started.job_id, started.task_id = job_id, job_id, about["task_id"]
        story.given(enqueued, started, fact(RateWaited, passes_ms=passes_ms, **about))

    assert story.row(BUCKETS, *BUCKET).waiting == 3
    assert list(story.table(BUCKET_TIMERS)) == [(NOW + 300, *BUCKET)]


def test_a_line_is_looked_at_again_when_one_of_its_members_goes_and_others_stay():
    story = Story().given(*throttled())
    enqueued, started = come_to_a_rate()
    enqueued.job_id, started.job_id, started.task_id = "j2", "j2", "task-2"
    story.given(enqueued, started, fact(RateWaited, job_id="j2", task_id="task-2"))
    story.at(NOW + 5).given(fact(JobCancelled))
    assert story.row(BUCKETS, *BUCKET) == BucketRow(a_bucket(), 1, NOW + 5)
    assert list(story.table(BUCKET_TIMERS)) == [(NOW + 5, *BUCKET)]

    story.at(NOW + 6).given(fact(JobCancelled, job_id="j2"))
    assert story.row(BUCKETS, *BUCKET) == BucketRow(a_bucket(), 0, NOW + 5)


def test_a_line_may_form_before_a_bucket_that_holds_nothing():
    story = Story().given(*come_to_a_rate(), fact(RateWaited, passes_ms=LATER))

    assert story.row(BUCKETS, *BUCKET) == BucketRow(None, 1, LATER)


def test_who_passes_leaves_the_line():
    story = Story().given(*throttled(), fact(RateChecked, bucket=a_bucket(1)))

    assert not story.table(BUCKET_LINES)
    assert story.row(BUCKETS, *BUCKET).waiting == 0
    assert (story.job().chain.place, story.job().chain.tries) == (Place.READY, 0)


# --- checks ----------------------------------------------------------------------------------------------------------


def test_a_check_that_is_to_be_tried_again_has_a_time():
    story = Story().given(*checking(retry_ms=NOW + 50))

    assert story.table(CHECKS) == {(NOW + 50, 2): REF}
    chain = story.job().chain
    assert (chain.place, chain.tries, chain.due_ms) == (Place.CHECKING, 1, NOW + 50)
    assert story.job().next_start_ms == NOW + 50


def test_each_try_counts_and_moves_the_check_on():
    # A149
    story = Story()
    story.given(*come_to_a_rate())
    for number in range(1, 6):
        story.at(NOW + number).given(fact(RateChecked, allowed=False, retry_ms=NOW + number + 1))
        assert list(story.table(CHECKS)) == [(NOW + number + 1, 2)]
        assert (story.job().chain.tries, story.job().chain.task_id) == (number, "task-1")


def test_a_question_to_the_service_is_due_at_once_and_gone_when_it_is_answered():
    story = Story().given(*come_to_a_rate(), fact(RateCheckDue))
    assert story.table(CHECKS) == {(NOW, 2): REF}
    assert story.job().chain.due_ms == NOW

    story.given(fact(RateChecked, is_local=False))
    assert not story.table(CHECKS)
    assert list(story.table(READY)) == [("group", NOW, NOW, 2)]


ENDS = [
    pytest.param(fact(JobCancelled), id="cancelled"),
    pytest.param(fact(JobFailed, error_code="E"), id="failed"),
    pytest.param(fact(JobReimported, status=JobStatus.SUCCEEDED), id="imported as ended"),
    pytest.param(fact(ChainStarted, task_id="task-2", start_ms=LATER), id="superseded by another chain"),
    pytest.param(fact(JobExpedited), id="sent on"),
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("life", [throttled, checking])
def test_however_a_chain_ends_it_waits_for_no_rate(life, end):
    # A76, A164
    story = Story().given(*life(), end)

    assert not story.table(CHECKS)
    assert not story.table(BUCKET_LINES)
    assert story.row(BUCKETS, *BUCKET).waiting == 0


# --- values, and what cannot be --------------------------------------------------------------------------------------


def test_the_buckets_of_a_job_are_those_of_its_rate_limits():
    spec = a_spec(limits=(a_rate_limit(name="a"), a_limit(), a_rate_limit(name="b", unique_key="c")))

    assert bucket_keys("t", spec) == [("t", "a", "acme"), ("t", "b", "c")]


@pytest.mark.parametrize("gate", [0, 1])
def test_a_gate_that_is_no_rate_limit_is_not_taken_for_one(gate):
    story = Story().given(*pending(limits=(a_limit(),)))

    with pytest.raises(Corrupt, match=f"gate {gate} of a job is no rate limit"):
        rate_limit(story.job(), gate)


@pytest.mark.parametrize("kind", [BucketWaited, BucketForgotten])
def test_a_bucket_that_does_not_exist_is_not_guessed_at(kind):
    with pytest.raises(Corrupt, match="needs buckets"):
        Story().given(fact(kind))
