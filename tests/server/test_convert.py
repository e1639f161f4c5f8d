from __future__ import annotations

import pytest

from silo.domain.jobs import AttemptStatus
from silo.domain.limits import Algorithm, ConcurrencyLimit, FloatingLimit, RateLimit, RateLimitRetry
from silo.errors import Invalid
from silo.pb import silo_pb2 as pb
from silo.server import convert
from silo.shard.outcome import Cancelled, Failure, Success


def an_enqueue(**but):
    return pb.EnqueueRequest(**{"task_group": "g", "priority": 50, **but})


def an_import(**but):
    return pb.ImportJobRequest(**{"id": "j", "task_group": "g", "priority": 50, **but})


def some_bytes(data):
    return pb.SerializedBytes(msgpack=data)


def test_a_job_is_taken_as_its_client_states_it():
    policy = pb.RetryPolicy(
        retry_count=3, initial_interval_ms=10, max_interval_ms=20, randomize_interval=True, backoff_factor=1.5
    )
    request = an_enqueue(
        id="j", start_at_ms=-7, payload=some_bytes(b"\xc0"), retry_policy=policy, metadata={"k": "v"}
    )
    job = convert.new_job(request, "acme")
    assert (job.tenant, job.job_id, job.payload) == ("acme", "j", b"\xc0")
    assert (job.spec.priority, job.spec.task_group, job.spec.enqueue_time_ms) == (50, "g", -7)
    assert job.spec.metadata == (("k", "v"),)
    assert (job.spec.retry_policy.retry_count, job.spec.retry_policy.backoff_factor) == (3, 1.5)


def test_what_is_absent_stays_absent():
    job = convert.new_job(an_enqueue(), "-")
    assert job.spec.retry_policy is None
    assert job.payload == b""


TOO_MUCH = {f"k{number}": "v" for number in range(17)}


@pytest.mark.parametrize(
    ("request_fields", "text"),
    [
        ({"priority": 100, "metadata": TOO_MUCH, "task_group": ""}, "priority must be between 0 and 99"),
        ({"metadata": TOO_MUCH, "task_group": ""}, "metadata has too many entries (max 16)"),
        ({"metadata": {"k" * 64: "v"}, "task_group": ""}, "metadata key too long (must be < 64 chars)"),
        (
            {"metadata": {"k": "v" * 65_535}, "task_group": ""},
            "metadata value too long (must be < u16::MAX bytes)",
        ),
        ({"task_group": ""}, "task_group is required"),
        ({"task_group": "g" * 65}, "task_group too long (must be <= 64 chars)"),
    ],
)
def test_the_first_thing_wrong_with_a_job_is_the_one_that_is_told(request_fields, text):
    with pytest.raises(Invalid) as refused:
        convert.new_job(an_enqueue(**request_fields), "-")
    assert str(refused.value) == text


def test_what_is_just_within_bounds_is_taken():
    convert.new_job(
        an_enqueue(
            priority=99,
            task_group="g" * 64,
            metadata={"ä" * 63: "v" * 65_534, **{f"k{number}": "" for number in range(15)}},
        ),
        "-",
    )


RATE = {"name": "calls", "unique_key": "k", "limit": 5, "duration_ms": 1_000, "hits": 2, "behavior": 24}
LIMITS = [
    (
        pb.Limit(concurrency=pb.ConcurrencyLimit(key="k", max_concurrency=3)),
        ConcurrencyLimit(key="k", max_concurrency=3),
    ),
    (
        pb.Limit(
            floating_concurrency=pb.FloatingConcurrencyLimit(
                key="f", default_max_concurrency=2, refresh_interval_ms=9, metadata={"a": "b"}
            )
        ),
        FloatingLimit(key="f", default_max_concurrency=2, refresh_interval_ms=9, metadata=(("a", "b"),)),
    ),
    (
        pb.Limit(
            rate_limit=pb.GubernatorRateLimit(
                algorithm="GUBERNATOR_ALGORITHM_LEAKY_BUCKET",
                retry_policy=pb.RateLimitRetryPolicy(
                    initial_backoff_ms=1, max_backoff_ms=2, backoff_multiplier=3.5, max_retries=4
                ),
                **RATE,
            )
        ),
        RateLimit(
            algorithm=Algorithm.LEAKY_BUCKET,
            retry=RateLimitRetry(
                initial_backoff_ms=1, max_backoff_ms=2, backoff_multiplier=3.5, max_retries=4
            ),
            **RATE,
        ),
    ),
]


def test_limits_are_taken_in_the_clients_order_and_read_back_as_they_were():
    messages, values = [message for message, _ in LIMITS], tuple(value for _, value in LIMITS)

    for order in (slice(None), slice(None, None, -1)):
        spec = convert.new_job(an_enqueue(limits=messages[order]), "-").spec
        assert spec.limits == values[order]
        assert convert.limit_messages(spec.limits) == messages[order]


def test_a_limit_that_says_nothing_is_dropped():
    message, value = LIMITS[0]

    assert convert.new_job(an_enqueue(limits=[pb.Limit(), message]), "-").spec.limits == (value,)


def test_a_rate_limit_without_a_retry_policy_is_tried_for_as_long_as_it_takes():
    message = pb.Limit(rate_limit=pb.GubernatorRateLimit(**RATE))

    [limit] = convert.new_job(an_enqueue(limits=[message]), "-").spec.limits
    assert limit.retry == RateLimitRetry(
        initial_backoff_ms=100, max_backoff_ms=30_000, backoff_multiplier=2.0, max_retries=0
    )


def test_an_algorithm_that_nobody_knows_is_a_token_bucket():
    message = pb.Limit(rate_limit=pb.GubernatorRateLimit(algorithm=9, **RATE))

    [limit] = convert.new_job(an_enqueue(limits=[message]), "-").spec.limits
    assert limit.algorithm is Algorithm.TOKEN_BUCKET


@pytest.mark.parametrize(
    "second", [LIMITS[0][0], pb.Limit(floating_concurrency=pb.FloatingConcurrencyLimit(key="k"))]
)
def test_a_job_asks_for_slots_of_a_key_once(second):
    limits = [LIMITS[0][0], LIMITS[2][0], second]

    with pytest.raises(Invalid, match=r"^duplicate concurrency key 'k'$"):
        convert.new_job(an_enqueue(limits=limits), "-")
    with pytest.raises(Invalid, match=r"^duplicate concurrency key 'k'$"):
        convert.imported_job(an_import(limits=limits), "-", now_ms=5)


def test_an_imported_job_without_a_time_was_enqueued_now():
    assert convert.imported_job(an_import(), "-", now_ms=5).spec.enqueue_time_ms == 5
    assert convert.imported_job(an_import(enqueue_time_ms=3), "-", now_ms=5).spec.enqueue_time_ms == 3


def test_an_imported_attempt_has_the_data_of_its_own_status_only():
    everything = {"result": some_bytes(b"r"), "error_code": "E", "error_data": some_bytes(b"e")}
    attempts = [
        pb.ImportAttempt(status=status, started_at_ms=1, finished_at_ms=2, **everything)
        for status in ("ATTEMPT_STATUS_FAILED", "ATTEMPT_STATUS_CANCELLED", "ATTEMPT_STATUS_SUCCEEDED")
    ]
    told = convert.imported_job(an_import(attempts=attempts), "-", now_ms=5).attempts
    assert [(attempt.status, attempt.error_code, attempt.data) for attempt in told] == [
        (AttemptStatus.FAILED, "E", b"e"),
        (AttemptStatus.CANCELLED, "", b""),
        (AttemptStatus.SUCCEEDED, "", b"r"),
    ]


@pytest.mark.parametrize(
    ("request_fields", "text"),
    [
        ({"id": "", "task_group": "", "priority": 100}, "job id is required for import"),
        ({"task_group": "", "priority": 100}, "task_group is required"),
        ({"priority": 100, "metadata": TOO_MUCH}, "priority must be between 0 and 99"),
        ({"metadata": TOO_MUCH, "attempts": [pb.ImportAttempt()]}, "metadata has too many entries (max 16)"),
        ({"attempts": [pb.ImportAttempt()]}, "import attempts must be terminal (not Running)"),
        ({"attempts": [pb.ImportAttempt(status=9)]}, "invalid attempt status"),
    ],
)
def test_the_first_thing_wrong_with_an_import_is_the_one_that_is_told(request_fields, text):
    with pytest.raises(Invalid) as refused:
        convert.imported_job(an_import(**request_fields), "-", now_ms=5)
    assert str(refused.value) == text


def test_an_import_may_bring_a_long_task_group():
    convert.imported_job(an_import(task_group="g" * 65), "-", now_ms=5)


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"success": some_bytes(b"r")}, Success(b"r")),
        ({"success": pb.SerializedBytes()}, Success(b"")),
        ({"failure": pb.Failure(code="E", data=some_bytes(b"e"))}, Failure("E", b"e")),
        ({"cancelled": pb.Cancelled()}, Cancelled()),
    ],
)
def test_an_outcome_is_what_its_arm_says(request_fields, expected):
    assert convert.outcome(pb.ReportOutcomeRequest(**request_fields)) == expected


def test_a_report_without_an_outcome_is_refused():
    with pytest.raises(Invalid, match="missing outcome"):
        convert.outcome(pb.ReportOutcomeRequest())
    with pytest.raises(Invalid, match="missing outcome"):
        convert.refresh_outcome(pb.ReportRefreshOutcomeRequest())
