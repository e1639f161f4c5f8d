"""The clock of rate limits: checks that come due, and buckets whose lines are let in one by one."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from silo.domain.jobs import JobStatus
from silo.domain.limits import Algorithm, Behavior, RateLimitRetry
from silo.events.catalogue import (
    BucketForgotten,
    BucketWaited,
    RateCheckDue,
    RateChecked,
    RateWaited,
    SlotGranted,
    SlotWaited,
)
from silo.projections.rates import BUCKET_LINES, BUCKET_TIMERS, BUCKETS, CHECKS, LOOKED_AT_AFTER_MS
from silo.shard.cancel import cancel
from silo.shard.draft import Rules
from silo.shard.due import PER_COMMAND_MAX
from silo.shard.import_jobs import import_jobs
from silo.shard.lease import LeaseTask, lease_task
from silo.shard.throttle import LET_IN_PER_BUCKET_MAX, check_due, open_buckets, open_questions
from tests.builders import NOW, a_limit, a_rate_limit, an_attempt, an_import, named
from tests.shard.days import enqueued, leased
from tests.story import Story, kinds

ONCE = a_rate_limit(1)
BUCKET = ("acme", "mails", "acme")
WINDOW_ENDS = NOW + 1_000


def line(story: Story) -> list[str]:
    """Who stands in the line of the only bucket."""
    return [ref.job_id for ref in story.table(BUCKET_LINES).values()]


def passed(story: Story) -> list[str]:
    """Who was let pass by the last command."""
    return [event.job_id for event in story.events if isinstance(event, RateChecked) and event.allowed]


# --- buckets with a line ---------------------------------------------------------------------------------------------


def test_when_the_window_is_over_the_first_in_line_passes_and_the_next_waits_on():
    # A141
    story = enqueued(Story(), "used", "j1", "j2", limits=(ONCE,))
    assert story.at(WINDOW_ENDS - 1).when(open_buckets).reply == 0

    story.at(WINDOW_ENDS).when(open_buckets)
    assert kinds(story.events) == [RateChecked, BucketWaited]
    assert (passed(story), line(story)) == (["j1"], ["j2"])
    assert list(story.table(BUCKET_TIMERS)) == [(WINDOW_ENDS + 1_000, *BUCKET)]
    assert leased(story) == ["used", "j1"]


def test_those_in_line_pass_by_virtual_start():
    story = Story(rules=Rules(priority_weight_ms=1_000))
    enqueued(story, "used", limits=(ONCE,))
    for job_id, priority, start_ms in (("p50", 50, 1), ("p10", 10, 1), ("late", 0, 20_000), ("p99", 99, 1)):
        enqueued(story, job_id, limits=(ONCE,), priority=priority, enqueue_time_ms=start_ms)

    order = []
    for number in range(1, 5):
        order += passed(story.at(NOW + number * 1_000).when(open_buckets))
    assert order == ["p10", "late", "p50", "p99"]


def test_as_many_pass_as_there_is_room_for():
    limit = a_rate_limit(3)
    story = enqueued(Story(), *map(str, range(8)), limits=(limit,))

    assert passed(story.at(WINDOW_ENDS).when(open_buckets)) == ["3", "4", "5"]
    assert passed(story.at(WINDOW_ENDS + 1_000).when(open_buckets)) == ["6", "7"]


def test_one_who_needs_much_is_not_overtaken_by_those_who_need_little():
    story = enqueued(Story(), "used", limits=(a_rate_limit(3),))
    enqueued(story, "needs all", limits=(a_rate_limit(3, hits=3),))
    enqueued(story, "needs one", limits=(a_rate_limit(3),))
    assert line(story) == ["needs all", "needs one"]

    story.at(WINDOW_ENDS).when(open_buckets)
    assert (passed(story), line(story)) == (["needs all"], ["needs one"])


def test_a_leaky_bucket_lets_in_one_after_the_other():
    limit = a_rate_limit(2, algorithm=Algorithm.LEAKY_BUCKET)
    story = enqueued(Story(), "a", "b", "c", "d", limits=(limit,))

    assert passed(story.at(NOW + 500).when(open_buckets)) == ["c"]
    assert passed(story.when(open_buckets)) == []
    assert passed(story.at(NOW + 1_000).when(open_buckets)) == ["d"]


def test_who_passes_goes_on_to_its_next_gate():
    # A142
    story = enqueued(Story(), "used", limits=(ONCE, a_limit(1, "a")))
    enqueued(story, "j1", limits=(ONCE, a_limit(1, "a")))
    enqueued(story, "j2", limits=(ONCE, a_limit(2, "a")))

    story.at(WINDOW_ENDS).when(open_buckets)
    assert kinds(story.events) == [RateChecked, SlotWaited, BucketWaited]
    story.at(WINDOW_ENDS + 1_000).when(open_buckets)
    assert kinds(story.events)[:2] == [RateChecked, SlotGranted]


def test_who_passes_one_bucket_may_come_to_the_line_of_another():
    # A142
    second = a_rate_limit(1, name="second", duration_ms=5_000)
    story = enqueued(Story(), "used", limits=(ONCE, second))
    enqueued(story, "j1", limits=(ONCE, second))

    story.at(WINDOW_ENDS).when(open_buckets)
    assert kinds(story.events) == [RateChecked, RateChecked, RateWaited, BucketWaited]
    assert [key[1] for key in story.table(BUCKET_LINES)] == ["second"]
    assert passed(story.at(NOW + 5_000).when(open_buckets)) == ["j1"]


def test_a_job_may_come_to_the_same_bucket_twice():
    story = enqueued(Story(), "j1", limits=(a_rate_limit(2), a_rate_limit(2)))
    assert story.places() == {"j1": "ready"}

    enqueued(story, "j2", limits=(a_rate_limit(2), a_rate_limit(2)))
    story.at(WINDOW_ENDS).when(open_buckets)
    assert story.places()["j2"] == "ready"

    enqueued(story, "j3", limits=(a_rate_limit(1), a_rate_limit(1)))
    for number in range(2, 5):
        story.at(NOW + number * 1_000).when(open_buckets)
    assert story.places()["j3"] == "ready"


def test_one_who_can_never_pass_leaves_the_line_when_it_is_first():
    # It was not asked when it came, as others were before it.
    story = enqueued(Story(), "used", "j1", limits=(ONCE,))
    enqueued(story, "never", limits=(a_rate_limit(1, hits=2),))
    enqueued(story, "j2", limits=(ONCE,))
    assert line(story) == ["j1", "never", "j2"]

    story.at(WINDOW_ENDS).when(open_buckets)
    assert (passed(story), line(story)) == (["j1"], ["j2"])
    assert story.places()["never"] == "checking"
    assert passed(story.at(WINDOW_ENDS + 1_000).when(open_buckets)) == ["j2"]


def test_a_line_of_which_nobody_can_ever_pass_is_gone():
    story = enqueued(Story(), "used", "j1", limits=(ONCE,))
    enqueued(story, "never", "nor", limits=(a_rate_limit(1, hits=2),))

    story.at(WINDOW_ENDS).when(open_buckets)
    assert (passed(story), line(story)) == (["j1"], [])
    assert list(story.table(BUCKET_TIMERS)) == [(WINDOW_ENDS + LOOKED_AT_AFTER_MS, *BUCKET)]


def cancelled(story: Story, job_id: str) -> None:
    story.when(cancel, named(job_id))


def reimported(story: Story, job_id: str) -> None:
    story.when(import_jobs, [an_import(an_attempt(), name=named(job_id), retry_policy=None)])
    assert story.job(named(job_id)).status is JobStatus.FAILED


def leased_by_name(story: Story, job_id: str) -> None:
    story.when(lease_task, LeaseTask(job=named(job_id), worker_id="worker"))


@pytest.mark.parametrize("goes", [cancelled, reimported, leased_by_name])
def test_when_the_first_in_line_goes_away_those_behind_it_pass_as_soon_as_they_may(goes):
    """The first needed more than there was, and so was in the way of those who need less."""
    wide = {"limit": 10, "duration_ms": 86_400_000}
    story = enqueued(Story(), "used", limits=(a_rate_limit(**wide, hits=5),))
    enqueued(story, "needs all", limits=(a_rate_limit(**wide, hits=10),))
    enqueued(story, "j1", "j2", limits=(a_rate_limit(**wide, hits=2),))
    enqueued(story, "j3", limits=(a_rate_limit(**wide, hits=10),))
    goes(story.at(NOW + 7), "needs all")

    story.when(open_buckets)
    assert passed(story) == ["j1", "j2"]
    assert list(story.table(BUCKET_TIMERS)) == [(NOW + 86_400_000, *BUCKET)]
    assert story.when(open_buckets).reply == 0


def test_when_a_bucket_is_reset_by_one_who_does_not_stand_in_line_the_others_need_not_wait():
    by_day = {"limit": 2, "duration_ms": 86_400_000}
    story = enqueued(Story(), "u1", "u2", "j1", "j2", limits=(a_rate_limit(**by_day),))
    reset = {"behavior": Behavior.RESET_REMAINING, "retry": RateLimitRetry(max_retries=1)}
    enqueued(story.at(NOW + 7), "resets", limits=(a_rate_limit(**by_day, **reset),))
    assert story.places()["resets"] == "ready"

    story.when(open_buckets)
    assert (passed(story), line(story)) == (["j1"], ["j2"])
    assert story.when(open_buckets).reply == 0


def test_a_line_whose_last_member_goes_away_is_looked_at_no_more():
    story = enqueued(Story(), "used", "j1", limits=(ONCE,))
    cancelled(story, "j1")
    story.at(WINDOW_ENDS).when(open_buckets)

    assert kinds(story.events) == [BucketForgotten]
    assert story.when(open_buckets).reply == 0


def test_one_bucket_lets_in_a_bounded_number_at_once_and_keeps_nobody_else_waiting():
    many = LET_IN_PER_BUCKET_MAX + 7
    wide, narrow = a_rate_limit(many, name="wide"), a_rate_limit(1, name="narrow")
    story = enqueued(Story(), *(f"w{number:03}" for number in range(2 * many)), limits=(wide,))
    enqueued(story, "n1", "n2", limits=(narrow,))
    story.at(WINDOW_ENDS).when(open_buckets)
    assert passed(story) == ["n2", *(f"w{many + number:03}" for number in range(LET_IN_PER_BUCKET_MAX))]

    story.when(open_buckets)
    assert len(passed(story)) == 7
    assert story.when(open_buckets).reply == 0


# --- buckets without a line ------------------------------------------------------------------------------------------


def test_a_bucket_that_has_expired_is_forgotten_when_it_is_looked_at():
    story = enqueued(Story(), "j1", limits=(ONCE,))
    assert story.at(NOW + LOOKED_AT_AFTER_MS - 1).when(open_buckets).reply == 0

    story.at(NOW + LOOKED_AT_AFTER_MS).when(open_buckets)
    assert kinds(story.events) == [BucketForgotten]
    assert not story.table(BUCKETS)


def test_a_bucket_that_is_in_use_is_looked_at_once_in_a_while():
    story = enqueued(Story(), "j1", limits=(ONCE,))
    enqueued(story.at(NOW + LOOKED_AT_AFTER_MS - 1), "j2", limits=(ONCE,))
    story.at(NOW + LOOKED_AT_AFTER_MS).when(open_buckets)

    assert kinds(story.events) == [BucketWaited]
    assert story.row(BUCKETS, *BUCKET).timer_ms == NOW + 2 * LOOKED_AT_AFTER_MS


def test_a_bucket_that_lasts_a_month_is_looked_at_at_its_end():
    by_month = a_rate_limit(1, behavior=Behavior.DURATION_IS_GREGORIAN, duration_ms=4)
    story = enqueued(Story(), "j1", limits=(by_month,))

    month_ms = 31 * 86_400_000
    assert story.row(BUCKETS, *BUCKET).timer_ms == month_ms
    assert kinds(story.at(month_ms).when(open_buckets).events) == [BucketForgotten]


def test_many_buckets_are_looked_at_in_pieces():
    story = Story()
    for number in range(PER_COMMAND_MAX + 1):
        enqueued(story, f"{number}", limits=(a_rate_limit(unique_key=f"{number}"),))
    story.at(NOW + LOOKED_AT_AFTER_MS)

    assert [story.when(open_buckets).reply for _ in range(3)] == [PER_COMMAND_MAX, 1, 0]
    assert not story.table(BUCKETS)


# --- checks ----------------------------------------------------------------------------------------------------------


def impatient(**but: Any) -> Any:
    return a_rate_limit(
        1, duration_ms=60_000, retry=RateLimitRetry(max_retries=1, initial_backoff_ms=500), **but
    )


def test_a_check_is_asked_when_it_is_due():
    limit = attrs.evolve(impatient(), duration_ms=400)
    story = enqueued(Story(), "used", "j1", limits=(limit,))
    assert story.at(NOW + 399).when(check_due).reply == 0

    assert passed(story.at(NOW + 400).when(check_due)) == ["j1"]
    assert story.when(check_due).reply == 0


def test_many_checks_are_asked_in_pieces_in_the_order_of_their_times():
    story = Story()
    enqueued(story, "used", limits=(impatient(),))
    for number in range(PER_COMMAND_MAX + 1):
        enqueued(story.at(NOW + number), f"{number}", limits=(impatient(),))
    story.at(NOW + 1_000)

    assert [story.when(check_due).reply for _ in range(3)] == [PER_COMMAND_MAX, 1, 0]
    assert [event.job_id for event in story.history if isinstance(event, RateChecked)][
        -1
    ] == f"{PER_COMMAND_MAX}"


def test_a_patient_job_that_can_never_pass_joins_no_line_for_good():
    never = a_rate_limit(1, hits=2)
    story = enqueued(Story(), "never", limits=(never,))
    enqueued(story, "used", "j1", "j2", limits=(ONCE,))
    for number in range(1, 4):
        story.at(NOW + number * 1_000)
        while story.when(check_due).reply:
            pass
        story.when(open_buckets)

    assert (story.places()["j1"], story.places()["j2"]) == ("ready", "ready")
    assert story.places()["never"] in ("checking", "throttled")


# --- questions to a service outside ----------------------------------------------------------------------------------


def test_questions_that_are_due_are_open_and_the_next_time_is_known():
    story = Story(rules=Rules(asks_limiter=True))
    for number in range(4):
        enqueued(story.at(NOW + number), f"{number}", limits=(ONCE,))
    questions = story.at(NOW + 2).when(open_questions, 10).reply

    assert [question.name.job_id for question in questions.due] == ["0", "1", "2"]
    assert questions.next_ms == NOW + 3
    questions = story.when(open_questions, 2).reply
    assert [question.name.job_id for question in questions.due] == ["0", "1"]
    assert questions.next_ms is None
    assert story.at(NOW + 9).when(open_questions, 10).reply.next_ms is None
    assert Story().when(open_questions, 10).reply.due == []


def test_what_a_service_decides_no_bucket_is_asked_about():
    story = enqueued(Story(rules=Rules(asks_limiter=True)), "j1", limits=(ONCE,))

    assert story.when(check_due).reply == 0
    assert story.places() == {"j1": "checking"}


def test_who_stood_in_line_when_a_service_was_configured_is_asked_about_there():
    story = enqueued(Story(), "used", "j1", "j2", limits=(ONCE,))
    story.rules = Rules(asks_limiter=True)
    story.at(WINDOW_ENDS).when(open_buckets)

    assert kinds(story.events) == [RateCheckDue, RateCheckDue, BucketForgotten]
    assert [question.name.job_id for question in story.when(open_questions, 10).reply.due] == ["j1", "j2"]


def test_what_a_service_was_to_be_asked_a_bucket_decides_when_there_is_no_service_any_more():
    story = enqueued(Story(rules=Rules(asks_limiter=True)), "j1", "j2", limits=(ONCE,))
    story.rules = Rules()
    story.when(check_due)

    assert passed(story) == ["j1"]
    assert story.places() == {"j1": "ready", "j2": "throttled"}
    assert not story.table(CHECKS)
