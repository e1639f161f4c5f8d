"""What may stand in a request: sizes, ranges, ids, and bytes that nobody looks into."""

from __future__ import annotations

import uuid

import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from tests.conformance.client import data, is_data

INVALID = StatusCode.INVALID_ARGUMENT

PRIORITY = "priority must be between 0 and 99"
ENTRIES = "metadata has too many entries (max 16)"
KEY = "metadata key too long (must be < 64 chars)"
VALUE = "metadata value too long (must be < u16::MAX bytes)"
GROUP = "task_group is required"
GROUP_LENGTH = "task_group too long (must be <= 64 chars)"

REFUSED = [
    pytest.param({"priority": 100}, PRIORITY, id="priority 100"),
    pytest.param({"priority": 2**32 - 1}, PRIORITY, id="the greatest priority of the wire"),
    pytest.param({"metadata": {f"k{n}": "" for n in range(17)}}, ENTRIES, id="17 entries of metadata"),
    pytest.param({"metadata": {"k" * 64: ""}}, KEY, id="a key of 64 characters"),
    pytest.param({"metadata": {"k": "v" * 65_535}}, VALUE, id="a value of 65535 bytes"),
    pytest.param(
        {"metadata": {"k": "é" * 32_768}}, VALUE, id="a value of 65536 bytes in half as many characters"
    ),
    pytest.param({"task_group": ""}, GROUP, id="no task group"),
]

ACCEPTED = [
    pytest.param({"priority": 0}, id="priority 0"),
    pytest.param({"priority": 99}, id="priority 99"),
    pytest.param({"metadata": {f"k{n}": "" for n in range(16)}}, id="16 entries of metadata"),
    pytest.param({"metadata": {"k" * 63: ""}}, id="a key of 63 characters"),
    pytest.param({"metadata": {"日" * 63: ""}}, id="a key of 63 characters and three times as many bytes"),
    pytest.param({"metadata": {"k": "v" * 65_534}}, id="a value of 65534 bytes"),
    pytest.param({"metadata": {"": ""}}, id="an empty key with an empty value"),
    pytest.param({"task_group": "日" * 64}, id="a task group of 64 characters"),
    pytest.param({"payload": None}, id="no payload"),
    pytest.param({"start_at_ms": -5}, id="a start before the epoch"),
    pytest.param(
        {
            "retry_policy": pb.RetryPolicy(
                initial_interval_ms=-1, max_interval_ms=-2, backoff_factor=float("nan")
            )
        },
        id="a retry policy that makes no sense",
    ),
]


@pytest.mark.parametrize(
    ("fields", "text"), [*REFUSED, pytest.param({"task_group": "g" * 65}, GROUP_LENGTH, id="65")]
)
def test_enqueue_refuses(silo, fields, text):
    fields = silo.job_fields(**fields)

    assert silo.refusal("Enqueue", **fields) == (INVALID, text)
    assert not silo.has(fields["id"])


@pytest.mark.parametrize("fields", ACCEPTED)
def test_enqueue_accepts(silo, fields):
    assert silo.has(silo.enqueue(**fields))


def test_an_id_is_free_text(silo):
    text = "any text / at all\n日本\0" + "x" * 1000
    [result] = silo.import_jobs({"id": f"imported {text}"})

    assert silo.enqueue(id=text) == text
    assert silo.job(text).id == text
    assert result.id == silo.job(result.id).id == f"imported {text}"


@pytest.mark.parametrize(("fields", "text"), REFUSED)
def test_an_import_refuses_in_its_entry_what_enqueue_refuses(silo, fields, text):
    job_id = silo.new_id()
    [result] = silo.import_jobs({"id": job_id, **fields})

    assert (result.id, result.success, result.status) == (job_id, False, pb.JOB_STATUS_FAILED)
    assert result.error == f'status: InvalidArgument, message: "{text}"'
    assert not silo.has(job_id)


@pytest.mark.parametrize(
    "fields", [*ACCEPTED, pytest.param({"task_group": "g" * 65}, id="a task group of 65 characters")]
)
def test_an_import_accepts(silo, fields):
    [result] = silo.import_jobs(fields)

    assert result.success, result.error
    assert silo.has(result.id)


def test_what_is_wrong_is_told_in_a_fixed_order(silo):
    wrong = [
        ({"priority": 100}, PRIORITY),
        ({"metadata": {f"{n:064}": "v" * 65_535 for n in range(17)}}, ENTRIES),
        ({"metadata": {"k" * 64: "v" * 65_535}}, KEY),
        ({"metadata": {"k": "v" * 65_535}}, VALUE),
        ({"task_group": ""}, GROUP),
    ]
    for place, (_, text) in enumerate(wrong):
        fields: dict = {}
        for more, _ in reversed(wrong[place:]):
            fields |= more
        assert silo.refusal("Enqueue", **silo.job_fields(**fields)) == (INVALID, text)


def test_lease_tasks_needs_a_task_group_of_any_length_and_no_worker(silo):
    fields = {"worker_id": "w", "max_tasks": 1}
    assert silo.refusal("LeaseTasks", **fields) == (INVALID, GROUP)
    assert silo.refusal("LeaseTasks", **fields, shard="no shard id") == (INVALID, GROUP)
    assert silo.lease(task_group="h" * 65, worker_id="") == []


def test_lease_task_needs_a_worker(silo):
    refusal = silo.refusal("LeaseTask", id=silo.enqueue())

    assert refusal == (INVALID, "worker_id is required")
    assert silo.refusal("LeaseTask", id="no such job") == (INVALID, "worker_id is required")


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param(str, id="hyphenated"),
        pytest.param(lambda shard: shard.upper(), id="upper case"),
        pytest.param(lambda shard: shard.replace("-", ""), id="32 digits"),
        pytest.param(lambda shard: f"{{{shard}}}", id="in braces"),
        pytest.param(lambda shard: f"urn:uuid:{shard}", id="a URN"),
    ],
)
def test_a_shard_id_is_read_in_any_spelling_and_told_in_one(silo, spelling):
    shard = spelling(silo.node.shard)
    silo.enqueue(shard=shard)

    assert silo.lease_one(shard=shard).shard == silo.node.shard


TAKE_A_SHARD = [
    "Enqueue GetJob GetJobResult DeleteJob CancelJob DropTenantHolders RestartJob ExpediteJob LeaseTask ReportOutcome",
    "ReportRefreshOutcome Heartbeat Query QueryArrow RequestSplit GetSplitStatus ConfigureShard ForceReleaseShard",
    "CompactShard FlushShard GetShardStorageInfo",
]


@pytest.mark.parametrize("rpc", " ".join(TAKE_A_SHARD).split())
@pytest.mark.parametrize("text", ["", "no-uuid", "{" + "0" * 32, "0" * 31])
def test_what_is_no_shard_id_is_repeated_as_it_was_sent(silo, rpc, text):
    field = "shard_id" if rpc in ("RequestSplit", "GetSplitStatus") else "shard"
    # The tenant is not wanted either, but the shard comes first.
    tenant = {"tenant": "t"} if rpc in ("Enqueue", "GetJob") else {}

    assert silo.refusal(rpc, **{field: text}, **tenant) == (INVALID, f"invalid shard ID: {text}")


@pytest.mark.parametrize("text", ["", "no-uuid"])
def test_a_shard_filter_is_a_shard_id_also_if_it_is_empty(silo, text):
    fields = {"task_group": silo.group, "shard": text, "max_tasks": 0}

    assert silo.refusal("LeaseTasks", **fields) == (INVALID, f"invalid shard ID: {text}")


def test_a_job_without_an_id_gets_one_that_is_a_uuid(silo):
    made = silo.enqueue(id="")

    assert str(uuid.UUID(made)) == made
    assert silo.enqueue(id="") != made


def test_a_task_id_is_a_uuid_that_no_other_attempt_has(silo):
    job_id = silo.enqueue(retry_policy=pb.RetryPolicy(retry_count=3))
    seen = []
    for _ in range(3):
        task = silo.lease_one()
        seen.append(task.id)
        silo.report(task, failure=("E", b""))

    assert [str(uuid.UUID(task_id)) for task_id in seen] == seen
    assert len({*seen, job_id}) == 4
    assert [attempt.task_id for attempt in silo.job(job_id).attempts] == seen


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"\x93\x01\x02\x03", b"\xff\x00 is no msgpack", b"\x00" * 1000, b""])
def test_payload_and_result_come_back_as_they_were_sent(silo, raw):
    job_id = silo.enqueue(payload=data(raw))
    task = silo.lease_one()
    silo.report(task, success=raw)
    job = silo.job(job_id)

    assert is_data(task.payload, raw)
    assert is_data(job.payload, raw)
    assert is_data(job.result, raw)
    assert is_data(job.attempts[0].result, raw)
    assert is_data(silo.call("GetJobResult", id=job_id).success_data, raw)


@pytest.mark.parametrize("raw", [b"\xa3why", b"\xff\x00 is no msgpack", b""])
def test_the_data_of_an_error_come_back_as_they_were_sent(silo, raw):
    job_id = silo.enqueue()
    silo.report(silo.lease_one(), failure=("CODE", raw))
    [attempt] = silo.job(job_id).attempts

    assert is_data(attempt.error_data, raw)
    assert is_data(silo.call("GetJobResult", id=job_id).failure.error_data, raw)


@pytest.mark.parametrize("absent", [None, pb.SerializedBytes()], ids=["no message", "an empty message"])
def test_bytes_that_were_not_sent_are_told_as_no_bytes(silo, absent):
    job_id = silo.enqueue(payload=absent)
    task = silo.lease_one()
    report = silo.report_fields(task) | {"success": pb.SerializedBytes()}
    silo.call("ReportOutcome", **report)
    job = silo.job(job_id)

    assert is_data(task.payload, b"")
    assert is_data(job.payload, b"")
    assert is_data(job.result, b"")
    assert is_data(job.attempts[0].result, b"")
    assert is_data(silo.call("GetJobResult", id=job_id).success_data, b"")


def test_a_failure_that_says_nothing_has_an_empty_code_and_no_bytes(silo):
    job_id = silo.enqueue()
    silo.call("ReportOutcome", **silo.report_fields(silo.lease_one()) | {"failure": pb.Failure()})
    [attempt] = silo.job(job_id).attempts
    failure = silo.call("GetJobResult", id=job_id).failure

    assert attempt.HasField("error_code")
    assert attempt.error_code == failure.error_code == ""
    assert is_data(attempt.error_data, b"")
    assert is_data(failure.error_data, b"")
