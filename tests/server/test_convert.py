from __future__ import annotations

import pytest

from silo.domain.jobs import AttemptStatus
from silo.errors import Invalid, NotSupported
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


LIMITS = [
    pb.Limit(concurrency=pb.ConcurrencyLimit(key="k", max_concurrency=1)),
    pb.Limit(floating_concurrency=pb.FloatingConcurrencyLimit(key="k")),
    pb.Limit(rate_limit=pb.GubernatorRateLimit(name="n")),
]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_job_with_a_limit_is_never_run_without_it(limit):
    with pytest.raises(NotSupported, match="limits are not supported"):
        convert.new_job(an_enqueue(limits=[pb.Limit(), limit]), "-")
    with pytest.raises(NotSupported, match="limits are not supported"):
        convert.imported_job(an_import(limits=[limit]), "-", now_ms=5)


def test_a_limit_that_says_nothing_is_dropped():
    convert.new_job(an_enqueue(limits=[pb.Limit()]), "-")


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
