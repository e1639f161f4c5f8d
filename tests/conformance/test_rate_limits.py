"""Limits on how often: by buckets inside the shard, and by a service outside, which is a real one on loopback."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import grpc
import msgpack
import pytest

from silo.pb import silo_pb2 as pb
from silo.settings import Gubernator as Settings
from tests.conformance.client import LATER_MS, Nodes, Silo
from tests.conformance.limits import AGAIN_AT_ONCE, rate, retry, slots
from tests.gubernator import Gubernator

SCHEDULED, FAILED = pb.JOB_STATUS_SCHEDULED, pb.JOB_STATUS_FAILED
PATIENT = retry()


@pytest.fixture(scope="module")
def service(nodes: Nodes) -> Iterator[Gubernator]:
    service = Gubernator()
    nodes.run(service.start())
    yield service
    nodes.run(service.stop())


@pytest.fixture(scope="module")
def asking_node(nodes: Nodes, service: Gubernator) -> Silo:
    return nodes.start(tenancy=True, gubernator=Settings(address=service.address, coalesce_interval_ms=1))


_keys = itertools.count(1)


@pytest.fixture
def judged(asking_node: Silo) -> Silo:
    """A client, alone with its tenant, of a node that asks the service about rates."""
    return Silo(asking_node.nodes, asking_node.node, tenant=f"judged-{next(_keys)}")


@pytest.fixture(params=["bucket", "service"])
def either(request, limited: Silo, judged: Silo) -> Silo:
    """A client of a node that decides by itself, and of one that asks."""
    return {"bucket": limited, "service": judged}[request.param]


def leased(silo: Silo, count: int = 1) -> list[pb.Task]:
    """So many tasks, as soon as they are there."""
    found: list[pb.Task] = []

    def all_are_there() -> bool:
        found.extend(silo.lease(count - len(found)))
        return len(found) == count

    silo.wait_until(all_are_there)
    return found


def ends(silo: Silo, job_id: str) -> pb.GetJobResultResponse:
    """How a job ends, as soon as it has."""
    silo.wait_until(lambda: silo.job(job_id).status not in (SCHEDULED, pb.JOB_STATUS_RUNNING))
    return silo.call("GetJobResult", id=job_id)


# --- either way ------------------------------------------------------------------------------------------------------


def test_a_rate_limit_is_read_back_as_it_was_stated(either):
    # A151
    limit = rate(
        5,
        either.group,
        hits=2,
        algorithm=pb.GUBERNATOR_ALGORITHM_LEAKY_BUCKET,
        behavior=16,
        retry_policy=retry(7),
    )
    job_id = either.enqueue(limits=[limit])
    [task] = leased(either)

    assert task.job_id == job_id
    assert list(task.limits) == list(either.job(job_id).limits) == [limit]


def test_rate_limits_are_passed_one_after_the_other(either):
    # A142
    first, second = (rate(1, f"{either.group} {name}", retry_policy=PATIENT) for name in "ab")
    job_id = either.enqueue(limits=[first, second])
    assert [task.job_id for task in leased(either)] == [job_id]

    # Both are used up now.
    for limit in (first, second):
        either.enqueue(limits=[limit])
    assert either.lease() == []


@pytest.mark.parametrize("order", ["slot rate", "rate slot", "slot rate other", "rate slot rate"])
def test_slots_and_rates_in_any_order_lead_to_one_task(either, order):
    # A143
    made = {"slot": slots(1, "queue"), "other": slots(1, "other"), "rate": rate(2, either.group)}
    limits = [made[name] for name in order.split()]
    either.enqueue(limits=limits)
    [task] = leased(either)
    assert either.lease() == []

    either.finish(task)
    assert either.lease() == []
    assert either.drop_holders() == 0


def test_a_job_that_waits_for_a_slot_asks_the_rate_limit_behind_it_when_it_has_one(either):
    # A144
    limits = [slots(), rate(2, either.group, retry_policy=PATIENT)]
    jobs = [either.enqueue(limits=limits) for _ in range(2)]
    [first] = leased(either)
    assert (first.job_id, either.lease()) == (jobs[0], [])

    either.finish(first)
    [second] = leased(either)
    assert second.job_id == jobs[1]
    either.finish(second)
    assert either.drop_holders() == 0


def test_as_many_pass_as_the_limit_says_and_each_passes_once(either):
    # A145
    jobs = [either.enqueue(limits=[rate(5, either.group, retry_policy=PATIENT)]) for _ in range(6)]
    tasks = leased(either, 5)
    assert either.lease() == []

    assert len({task.job_id for task in tasks}) == 5
    [waits] = [job_id for job_id in jobs if either.job(job_id).status == SCHEDULED]
    # Hits that were taken are not given back when the attempt has ended.
    for task in tasks:
        either.finish(task)
    assert either.lease() == []
    either.call("CancelJob", id=waits)


def test_each_attempt_asks_again(either):
    limit = rate(2, either.group, retry_policy=PATIENT)
    job_id = either.enqueue(limits=[limit], retry_policy=AGAIN_AT_ONCE)
    for number in (1, 2):
        [task] = leased(either)
        assert task.attempt_number == number
        either.report(task, failure=("E", b""))

    assert either.lease() == []
    assert either.job(job_id).status == SCHEDULED


def test_a_job_whose_rate_limit_stays_used_up_fails_and_gives_back_its_slots(either):
    # A82, A148
    limit = rate(1, either.group, retry_policy=retry(2))
    either.enqueue(limits=[limit])
    leased(either)
    job_id = either.enqueue(limits=[slots(), limit], retry_policy=AGAIN_AT_ONCE)
    behind = either.enqueue(limits=[slots()])
    result = ends(either, job_id)

    assert (result.status, result.failure.error_code) == (FAILED, "RATE_LIMIT_EXHAUSTED")
    assert msgpack.unpackb(result.failure.error_data.msgpack) == (
        "the rate limit was still used up at the last retry that its policy allows"
    )
    assert list(either.job(job_id).attempts) == []
    assert [task.job_id for task in leased(either)] == [behind]
    assert either.drop_holders() == 1


def test_a_retry_of_a_check_without_a_wait_is_not_lost(either):
    # A147
    limit = rate(1, either.group, retry_policy=retry(3, initial_ms=0, max_ms=0))
    either.enqueue(limits=[limit])
    leased(either)

    assert ends(either, either.enqueue(limits=[limit])).failure.error_code == "RATE_LIMIT_EXHAUSTED"


def test_a_job_that_failed_at_its_rate_limit_can_be_restarted_and_asks_again(either):
    limit = rate(1, either.group, retry_policy=retry(1))
    either.enqueue(limits=[limit])
    leased(either)
    job_id = either.enqueue(limits=[limit])
    ends(either, job_id)
    either.call("RestartJob", id=job_id)

    assert ends(either, job_id).failure.error_code == "RATE_LIMIT_EXHAUSTED"


def test_a_job_that_waits_at_a_rate_limit_can_be_cancelled_and_its_slot_is_free(either):
    # A76
    limit = rate(1, either.group, retry_policy=PATIENT)
    either.enqueue(limits=[limit])
    leased(either)
    gone = either.enqueue(limits=[slots(), limit])
    behind = either.enqueue(limits=[slots()])
    assert either.lease() == []

    either.call("CancelJob", id=gone)
    assert [task.job_id for task in either.lease()] == [behind]
    assert either.drop_holders() == 1


def test_a_rate_limit_is_not_asked_before_the_start(either):
    limit = rate(1, either.group, retry_policy=PATIENT)
    either.enqueue(limits=[limit], start_at_ms=LATER_MS)
    now = either.enqueue(limits=[limit])

    assert [task.job_id for task in leased(either)] == [now]


# --- buckets inside the shard ----------------------------------------------------------------------------------------


def test_a_rate_limit_that_lets_pass_costs_no_further_call(limited):
    # A140
    job_id = limited.enqueue(limits=[rate(10)])
    assert limited.lease_one().job_id == job_id


def test_a_bucket_that_was_used_up_lets_pass_when_its_window_is_over(limited):
    # A141
    limit = rate(1, duration_ms=150)
    jobs = [limited.enqueue(limits=[limit]) for _ in range(2)]
    assert [task.job_id for task in limited.lease()] == jobs[:1]

    [task] = leased(limited)
    assert task.job_id == jobs[1]


def test_those_who_wait_for_a_bucket_pass_by_start_and_priority(limited):
    limit = rate(1, duration_ms=100)
    limited.enqueue(limits=[limit])
    starts = {"second": 2_000, "third": 3_000, "first": 1_000}
    jobs = {limited.enqueue(limits=[limit], start_at_ms=at_ms): name for name, at_ms in starts.items()}
    tasks = leased(limited, 4)

    assert [jobs[task.job_id] for task in tasks[1:]] == ["first", "second", "third"]


def test_a_check_that_waits_for_its_retry_can_be_expedited(limited):
    an_hour = pb.RateLimitRetryPolicy(
        initial_backoff_ms=1_800_000, max_backoff_ms=1_800_000, backoff_multiplier=1, max_retries=1
    )
    limit = rate(1, retry_policy=an_hour)
    limited.enqueue(limits=[limit])
    job_id = limited.enqueue(limits=[limit])
    assert limited.job(job_id).status == SCHEDULED

    limited.call("ExpediteJob", id=job_id)
    assert ends(limited, job_id).failure.error_code == "RATE_LIMIT_EXHAUSTED"


def test_tenants_have_buckets_of_their_own(tenants):
    for tenant in "ab":
        tenants.enqueue(tenant=f"{tenants.group}-{tenant}", limits=[rate(1)])

    assert len(tenants.lease()) == 2


# --- a service outside -----------------------------------------------------------------------------------------------


def test_the_service_is_asked_once_for_each_job_that_passes(judged, service):
    # A145
    for _ in range(5):
        judged.enqueue(limits=[rate(5, judged.group)])
    leased(judged, 5)

    assert service.counts[f"name:{judged.group}"] == 5


def test_a_job_that_was_over_the_limit_runs_when_it_is_not_any_more(judged, service):
    # A146
    key = f"name:{judged.group}"
    service.forced[key] = False
    job_id = judged.enqueue(limits=[slots(), rate(1, judged.group, retry_policy=PATIENT)])
    judged.wait_until(lambda: service.counts[key] >= 2)
    assert judged.lease() == []

    service.forced[key] = True
    [task] = leased(judged)
    assert task.job_id == job_id
    judged.finish(task)
    assert judged.drop_holders() == 0


def test_nobody_passes_while_the_service_fails_and_no_retry_is_used_up(judged, service):
    key = f"name:{judged.group}"
    service.refusals[key] = "no such tenant"
    asked = service.calls
    job_id = judged.enqueue(limits=[rate(1, judged.group, retry_policy=retry(1, initial_ms=1, max_ms=1))])
    judged.wait_until(lambda: service.calls >= asked + 3)
    assert judged.job(job_id).status == SCHEDULED

    del service.refusals[key]
    assert [task.job_id for task in leased(judged)] == [job_id]


def test_a_service_that_does_not_answer_holds_up_nobody_else(judged, service):
    service.failure = grpc.StatusCode.UNAVAILABLE
    judged.enqueue(limits=[rate(1, judged.group, retry_policy=PATIENT)])
    other = judged.enqueue()
    assert [task.job_id for task in judged.lease()] == [other]

    service.failure = None
    assert len(leased(judged)) == 1


def test_many_jobs_are_asked_about_in_few_calls(judged, service):
    before = service.calls
    judged.at_once("Enqueue", *(judged.job_fields(limits=[rate(100, judged.group)]) for _ in range(60)))
    leased(judged, 60)

    assert service.calls - before < 30


def test_a_cancelled_job_stays_cancelled_whatever_the_service_says_afterwards(judged, service):
    service.gate.clear()
    arrived = service.calls
    job_id = judged.enqueue(limits=[slots(), rate(1, judged.group)])
    judged.wait_until(lambda: service.calls > arrived)
    judged.call("CancelJob", id=job_id)
    service.gate.set()

    # The service answers in the order in which it was asked, so this one's answer comes later.
    [task] = leased_after(judged)
    assert judged.job(job_id).status == pb.JOB_STATUS_CANCELLED
    assert task.job_id != job_id
    assert judged.drop_holders() == 0


def leased_after(silo: Silo) -> list[pb.Task]:
    """A task that needed the service as well."""
    silo.enqueue(limits=[rate(1, f"{silo.group} after")])
    return leased(silo)


def test_the_service_knows_no_tenants_so_they_share_its_limits(judged, service):
    limit = rate(1, judged.group, retry_policy=PATIENT)
    other = Silo(judged.nodes, judged.node, tenant=f"{judged.tenant}-other")
    judged.enqueue(limits=[limit])
    leased(judged)
    other.enqueue(limits=[limit])
    other.wait_until(lambda: service.counts[f"name:{judged.group}"] >= 2)

    assert other.lease() == []
