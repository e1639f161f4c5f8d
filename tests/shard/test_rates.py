"""A chain at a rate limit: what is asked of a bucket or of a service, and what follows from the answer."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from silo.domain.jobs import JobStatus
from silo.domain.limits import Algorithm, Behavior, RateLimitRetry
from silo.errors import WrongState
from silo.events.catalogue import (
    ChainStarted,
    JobEnqueued,
    JobFailed,
    RateCheckDue,
    RateChecked,
    RateWaited,
    SlotGranted,
)
from silo.events.packing import from_bytes
from silo.projections.concurrency import QUEUES
from silo.projections.rates import BUCKET_LINES, BUCKETS, CHECKS
from silo.shard.cancel import cancel
from silo.shard.delete import delete
from silo.shard.draft import Rules
from silo.shard.expedite import expedite
from silo.shard.gates import take_reply
from silo.shard.lease import lease_task
from silo.shard.rates import Question, Reply
from silo.shard.reading import get_result
from silo.shard.throttle import check_due, open_questions
from tests.builders import NAME, NOW, a_limit, a_rate_limit, named, this_job
from tests.shard.days import enqueued, leased
from tests.story import Story, kinds

ONCE = a_rate_limit(1)
IMPATIENT = a_rate_limit(
    1,
    duration_ms=10_000,
    retry=RateLimitRetry(initial_backoff_ms=100, max_backoff_ms=1_000, backoff_multiplier=2, max_retries=3),
)


def used_up(limit: Any = ONCE, **rules: Any) -> Story:
    """A bucket from which one job has taken what there was."""
    return enqueued(Story(rules=Rules(**rules)), "used", limits=(limit,))


# --- buckets inside the shard ----------------------------------------------------------------------------------------


def test_a_bucket_with_room_lets_a_chain_pass_at_once():
    # A140
    story = enqueued(Story(), "j1", limits=(a_rate_limit(3),))

    assert kinds(story.events) == [JobEnqueued, ChainStarted, RateChecked]
    checked = story.events[2]
    assert (checked.allowed, checked.remaining, checked.reset_ms) == (True, 2, NOW + 1_000)
    assert (checked.is_local, checked.error, checked.retry_ms) == (True, "", None)
    assert leased(story) == ["j1"]


def test_each_job_takes_its_hits_from_the_bucket():
    # A145
    story = enqueued(Story(), *"abcde", limits=(a_rate_limit(5),))
    assert [story.places()[job_id] for job_id in "abcde"] == ["ready"] * 5
    assert story.row(BUCKETS, "acme", "mails", "acme").bucket.hits == 5

    assert enqueued(story, "f", limits=(a_rate_limit(5),)).places()["f"] == "throttled"


def test_buckets_are_told_apart_by_tenant_name_and_key():
    story = used_up()
    enqueued(story, "key", limits=(a_rate_limit(1, unique_key="other"),))
    enqueued(story, "name", limits=(a_rate_limit(1, name="other"),))
    enqueued(story, "tenant", tenant="other", limits=(ONCE,))

    assert set(story.places().values()) == {"ready"}
    assert len(story.table(BUCKETS)) == 4


def test_a_patient_job_is_told_no_and_waits_in_the_line_of_the_bucket():
    # A141
    story = enqueued(used_up(), "j1", limits=(ONCE,))

    assert kinds(story.events)[2:] == [RateChecked, RateWaited]
    checked, waited = story.events[2:]
    assert (checked.allowed, checked.remaining, checked.retry_ms) == (False, 0, None)
    assert waited.passes_ms == NOW + 1_000
    assert story.job().chain.tries == 1


def test_who_comes_behind_others_is_not_even_asked():
    story = enqueued(used_up(), "j1", "j2", limits=(ONCE,))

    assert kinds(story.events)[2:] == [RateWaited]
    assert story.job(named("j2")).chain.tries == 0
    # There is no room before the first, so none before the second.
    assert story.events[2].passes_ms == NOW + 1_000


def test_who_comes_before_others_is_asked():
    story = enqueued(Story(), "used", "waits", limits=(a_rate_limit(2, hits=2),))
    assert story.places()["waits"] == "throttled"
    story.at(NOW + 500)
    late = enqueued(story, "late", limits=(a_rate_limit(9, hits=1),))
    assert kinds(late.events)[2:] == [RateWaited]

    urgent = enqueued(story, "urgent", limits=(a_rate_limit(9, hits=1),), enqueue_time_ms=1)
    assert kinds(urgent.events)[2:] == [RateChecked]
    assert urgent.places()["urgent"] == "ready"


def test_an_impatient_job_does_not_stand_in_line():
    story = enqueued(used_up(IMPATIENT), "j1", limits=(IMPATIENT,))
    assert kinds(story.events)[2:] == [RateChecked]
    assert story.places()["j1"] == "checking"

    # Nor does it wait behind those who do.
    enqueued(story, "patient", limits=(ONCE,))
    enqueued(story, "j2", limits=(attrs.evolve(IMPATIENT, limit=9),))
    assert (story.places()["patient"], story.places()["j2"]) == ("throttled", "ready")


def test_a_check_is_tried_again_after_a_backoff_that_grows():
    # A149
    story = enqueued(used_up(IMPATIENT), "j1", limits=(IMPATIENT,))
    times = [story.job().chain.due_ms]
    while story.job().chain is not None:
        story.at(times[-1]).when(check_due)
        times += [story.job().chain.due_ms] if story.job().chain is not None else []

    assert [time - NOW for time in times] == [100, 100 + 200, 100 + 200 + 400]
    assert kinds(story.events) == [RateChecked, JobFailed]


def test_a_check_is_tried_again_at_the_reset_if_that_comes_soon():
    soon = attrs.evolve(IMPATIENT, duration_ms=700)
    story = enqueued(used_up(soon), "j1", limits=(soon,))

    assert story.job().chain.due_ms == NOW + 700


@pytest.mark.parametrize("backoff_ms", [0, -5])
def test_a_retry_without_a_wait_comes_later_than_the_check_before_it(backoff_ms):
    # A147
    at_once = RateLimitRetry(initial_backoff_ms=backoff_ms, max_backoff_ms=backoff_ms, max_retries=3)
    limit = a_rate_limit(1, retry=at_once)
    story = enqueued(used_up(limit), "j1", limits=(limit,))

    assert list(story.table(CHECKS)) == [(NOW + 1, story.job().chain.seq)]
    task_id = story.job().chain.task_id
    story.at(NOW + 1).when(check_due)
    assert (story.job().chain.due_ms, story.job().chain.task_id) == (NOW + 2, task_id)


def exhausted(story: Story, *limits: Any, **spec: Any) -> Story:
    """A job that is not let in, however often it asks."""
    enqueued(story, "j1", limits=limits, **spec)
    while story.job().chain is not None:
        story.at(story.job().chain.due_ms).when(check_due)
    return story


def test_a_job_whose_last_check_is_over_the_limit_fails_and_holds_nothing():
    # A82, A148
    story = exhausted(used_up(IMPATIENT), a_limit(1, "a"), IMPATIENT)

    assert kinds(story.events) == [RateChecked, JobFailed]
    assert story.events[0].retry_ms is None
    assert story.events[1].error_code == "RATE_LIMIT_EXHAUSTED"
    assert (story.job().status, story.job().attempts) == (JobStatus.FAILED, 0)
    assert not story.table(CHECKS)
    assert not story.table(QUEUES)


def test_a_job_that_failed_at_a_rate_limit_has_a_result_that_says_so():
    result = exhausted(used_up(IMPATIENT), IMPATIENT).when(get_result, NAME).reply

    assert (result.status, result.attempt, result.error_code) == (
        JobStatus.FAILED,
        None,
        "RATE_LIMIT_EXHAUSTED",
    )
    assert "rate limit" in from_bytes(result.error_data)


def test_a_job_that_failed_at_a_rate_limit_is_forgotten_like_any_other():
    story = exhausted(used_up(IMPATIENT, terminal_expire_ms=5_000), IMPATIENT)

    assert story.job().forget_ms == story.now_ms + 5_000


def test_the_slot_of_a_job_that_fails_at_its_rate_limit_is_given_on():
    limit = attrs.evolve(IMPATIENT, retry=attrs.evolve(IMPATIENT.retry, max_retries=1))
    story = enqueued(used_up(limit), "j1", limits=(a_limit(1, "a"), limit))
    enqueued(story, "waits", limits=(a_limit(1, "a"),))
    story.at(story.job().chain.due_ms).when(check_due)

    assert kinds(story.events) == [RateChecked, JobFailed, SlotGranted]


NEVER = [
    pytest.param(
        a_rate_limit(2, hits=3), "3 hits are more than the limit of 2", id="more hits than the limit"
    ),
    pytest.param(a_rate_limit(0), "a limit of 0 lets nobody pass", id="a limit of nothing"),
    pytest.param(a_rate_limit(1, duration_ms=0), "a duration of 0 ms lets nobody pass", id="no duration"),
]


@pytest.mark.parametrize(("limit", "reason"), NEVER)
def test_what_can_never_pass_says_why_and_is_in_nobodys_way(limit, reason):
    story = enqueued(Story(), "j1", limits=(limit,))
    assert (story.events[2].allowed, story.events[2].error) == (False, reason)
    assert story.places() == {"j1": "checking"}

    enqueued(story, "j2", limits=(a_rate_limit(1),))
    assert story.places()["j2"] == "ready"
    story.at(story.job().chain.due_ms).when(check_due)
    assert story.job().chain.tries == 2


@pytest.mark.parametrize(("limit", "reason"), NEVER)
def test_what_can_never_pass_and_is_impatient_fails(limit, reason):
    story = exhausted(Story(), attrs.evolve(limit, retry=IMPATIENT.retry))

    assert story.events[1].error_code == "RATE_LIMIT_EXHAUSTED"
    assert story.events[0].error == reason


def test_two_rate_limits_are_asked_one_after_the_other():
    # A142
    limits = (a_rate_limit(1, name="first"), a_rate_limit(1, name="second"))
    story = enqueued(Story(), "j1", "j2", limits=limits)
    assert story.places() == {"j1": "ready", "j2": "throttled"}
    assert [bucket[1] for bucket in story.table(BUCKETS)] == ["first", "second"]
    assert [key[1] for key in story.table(BUCKET_LINES)] == ["first"]


def test_a_leaky_bucket_lets_the_next_one_pass_when_enough_has_leaked():
    limit = a_rate_limit(2, algorithm=Algorithm.LEAKY_BUCKET)
    story = enqueued(Story(), "j1", "j2", "j3", limits=(limit,))

    assert story.events[-1].passes_ms == NOW + 500


def test_hits_that_are_not_taken_only_ask():
    story = enqueued(Story(), "j1", limits=(a_rate_limit(1, hits=0),))

    assert story.places() == {"j1": "ready"}
    assert not story.table(BUCKETS)


def test_who_drains_a_bucket_takes_all_that_there_is_though_it_may_not_pass():
    limit = a_rate_limit(5, hits=3, behavior=Behavior.DRAIN_OVER_LIMIT)
    story = enqueued(Story(), "j1", "j2", limits=(limit,))

    assert story.row(BUCKETS, "acme", "mails", "acme").bucket.hits == 5


def test_a_check_that_waits_for_its_time_can_be_expedited_and_asks_at_once():
    story = enqueued(used_up(IMPATIENT), "j1", limits=(IMPATIENT,)).at(NOW + 1).when(expedite, NAME)

    assert kinds(story.events)[1:] == [RateChecked]
    assert story.job().chain.tries == 2
    assert len(story.table(CHECKS)) == 1


def test_who_stands_in_the_line_of_a_bucket_cannot_be_expedited():
    story = enqueued(used_up(), "j1", limits=(ONCE,))

    with pytest.raises(WrongState, match="job has no pending task to expedite"):
        story.when(expedite, NAME)


@pytest.mark.parametrize("limit", [ONCE, IMPATIENT])
def test_a_job_leased_by_name_waits_for_no_rate_limit(limit):
    story = enqueued(used_up(limit), "j1", limits=(a_limit(1, "a"), limit)).when(lease_task, this_job())

    assert not story.table(CHECKS)
    assert not story.table(BUCKET_LINES)
    assert not story.table(QUEUES)


# --- a service outside -----------------------------------------------------------------------------------------------


def asking(
    *job_ids: str, limit: Any = IMPATIENT, before: tuple[Any, ...] = (), after: tuple[Any, ...] = ()
) -> Story:
    """Jobs about which an outside service is to be asked."""
    story = Story(rules=Rules(asks_limiter=True))
    return enqueued(story, *job_ids or ("j1",), limits=(*before, limit, *after))


def question(story: Story) -> Question:
    """The only question that is open."""
    [due] = story.when(open_questions, 10).reply.due
    return due


def test_a_chain_that_comes_to_a_rate_limit_is_asked_about():
    story = asking(before=(a_limit(1, "a"),))

    assert kinds(story.events)[2:] == [SlotGranted, RateCheckDue]
    assert story.places() == {"j1": "checking"}
    chain = story.job().chain
    assert question(story) == Question(name=NAME, task_id=chain.task_id, gate=1, tries=0, limit=IMPATIENT)
    assert not story.table(BUCKETS)


def test_who_may_pass_goes_on():
    story = asking(after=(a_limit(1, "a"),))
    story.when(take_reply, Reply(question=question(story), allowed=True, remaining=7, reset_ms=NOW + 9))

    assert kinds(story.events) == [RateChecked, SlotGranted]
    checked = story.events[0]
    assert (checked.allowed, checked.remaining, checked.reset_ms) == (True, 7, NOW + 9)
    assert (checked.is_local, checked.bucket, checked.error) == (False, None, "")
    assert story.places() == {"j1": "ready"}


def test_who_may_not_is_asked_about_again_under_the_same_id():
    # A146
    story = asking()
    task_id = story.job().chain.task_id
    story.when(take_reply, Reply(question=question(story), allowed=False))
    assert story.events[0].retry_ms == NOW + 100

    story.at(NOW + 100)
    again = question(story)
    assert (again.task_id, again.tries) == (task_id, 1)
    story.when(take_reply, Reply(question=again, allowed=True))
    assert story.job().chain.task_id == task_id
    assert leased(story) == ["j1"]


def test_who_is_over_the_limit_at_the_last_try_fails():
    # A148
    story = asking(before=(a_limit(1, "a"),))
    for tries in range(4):
        assert story.job().chain.tries == tries
        story.at(story.job().chain.due_ms).when(take_reply, Reply(question=question(story), allowed=False))

    assert kinds(story.events) == [RateChecked, JobFailed]
    assert story.job().error_code == "RATE_LIMIT_EXHAUSTED"
    assert not story.table(QUEUES)
    assert not story.table(CHECKS)


def test_a_service_that_does_not_answer_lets_nobody_pass_and_is_asked_ever_more_patiently():
    story, waits = asking(), []
    for tries in range(1, 12):
        story.at(story.job().chain.due_ms).when(take_reply, Reply(question=question(story), error="on fire"))
        assert (story.events[0].error, story.events[0].allowed) == ("on fire", False)
        assert (story.job().chain.tries, story.job().chain.refused) == (tries, 0)
        waits.append(story.events[0].retry_ms - story.now_ms)
    assert waits[:4] == [100, 200, 400, 800]
    assert max(waits) == waits[-1] == 1_000


def test_checks_without_an_answer_do_not_use_up_the_retries_of_a_job():
    story = asking(limit=IMPATIENT)
    for error in ("on fire", "on fire", "on fire", "on fire", "", "", ""):
        story.at(story.job().chain.due_ms)
        story.when(take_reply, Reply(question=question(story), allowed=False, error=error))
    assert story.job().chain.refused == 3

    story.at(story.job().chain.due_ms).when(take_reply, Reply(question=question(story), allowed=False))
    assert story.job().error_code == "RATE_LIMIT_EXHAUSTED"


@pytest.mark.parametrize("backoff_ms", [0, -5])
def test_after_an_error_some_time_passes(backoff_ms):
    story = asking(limit=a_rate_limit(1, retry=RateLimitRetry(initial_backoff_ms=backoff_ms)))
    story.when(take_reply, Reply(question=question(story), error="on fire"))

    assert story.job().chain.due_ms == NOW + 1


def answered_already(story: Story) -> None:
    story.when(take_reply, Reply(question=question(story), allowed=True))


def refused_already(story: Story) -> None:
    story.when(take_reply, Reply(question=question(story), allowed=False))


def cancelled(story: Story) -> None:
    story.when(cancel, NAME)


def deleted(story: Story) -> None:
    story.when(cancel, NAME).when(delete, NAME)


def leased_by_name(story: Story) -> None:
    story.when(lease_task, this_job())


def deleted_and_made_anew(story: Story) -> None:
    deleted(story)
    enqueued(story, "j1", limits=(IMPATIENT,))


def at_the_next_gate(story: Story) -> None:
    answered_already(story)
    assert story.job().chain.gate == 1


@pytest.mark.parametrize(
    ("meanwhile", "after"),
    [
        (answered_already, ()),
        (refused_already, ()),
        (cancelled, ()),
        (deleted, ()),
        (leased_by_name, ()),
        (deleted_and_made_anew, ()),
        (at_the_next_gate, (attrs.evolve(IMPATIENT, name="second"),)),
    ],
)
@pytest.mark.parametrize("answer", [{"allowed": True}, {"allowed": False}, {"error": "on fire"}], ids=str)
def test_an_answer_that_comes_late_or_twice_changes_nothing(meanwhile, after, answer):
    story = asking(after=after)
    asked = question(story)
    meanwhile(story)
    before = story.everything()

    story.when(take_reply, Reply(question=asked, **answer))
    assert story.events == []
    assert story.everything() == before


def test_a_job_that_waits_for_the_service_is_not_ready():
    story = asking()

    assert leased(story) == []
    assert story.when(check_due).reply == 0
