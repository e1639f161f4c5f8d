"""SQL as clients of this protocol know it: tables, types, rows, bounds, and each error with its text."""

from __future__ import annotations

import msgpack
import pyarrow as pa
import pytest
from grpc import StatusCode

from silo.pb import silo_pb2 as pb
from silo.settings import Server
from tests.conformance.client import LATER_MS, NIL, Silo

INVALID = StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def small_node(nodes):
    bounds = Server(grpc_addr="127.0.0.1:0", max_result_bytes=20_000, max_concurrent_statements=1)
    return nodes.start(server=bounds)


@pytest.fixture
def small(small_node):
    return Silo(small_node.nodes, small_node.node)


def text(value):
    return pb.QueryParameter(string_value=value)


def rows(silo, sql, *parameters):
    reply = silo.call("Query", sql=sql, parameters=parameters)
    assert reply.row_count == len(reply.rows)
    return [msgpack.unpackb(row.msgpack) for row in reply.rows]


def values(silo, sql, *parameters):
    return [tuple(row.values()) for row in rows(silo, sql, *parameters)]


# --- tables --------------------------------------------------------------------------------------------------------------


def test_a_job_is_shown_with_what_its_client_stated_and_where_it_stands(silo):
    job_id = silo.enqueue(
        priority=3,
        payload=pb.SerializedBytes(msgpack=msgpack.packb({"to": "a@b.c", "n": [1, None]})),
        metadata={"kind": "mail"},
        limits=[pb.Limit(concurrency=pb.ConcurrencyLimit(key="q", max_concurrency=2))],
        task_group=silo.group,
    )
    [row] = rows(silo, "SELECT * FROM jobs WHERE id = $1", text(job_id))

    shown = {
        name: row[name] for name in ("tenant", "id", "priority", "enqueue_time_ms", "payload", "status_kind")
    }
    assert shown == {
        "tenant": "-",
        "id": job_id,
        "priority": 3,
        "enqueue_time_ms": 0,
        "payload": '{"to":"a@b.c","n":[1,null]}',
        "status_kind": "Waiting",
    }
    assert row["metadata"] == "{kind: mail}"
    assert row["limits"] == '[{"limit_type":"Concurrency","key":"q","value":"2"}]'
    assert (row["task_group"], row["current_attempt"]) == (silo.group, 1)
    assert row["next_attempt_starts_after_ms"] <= row["status_changed_at_ms"]


def test_a_status_is_what_a_person_would_say_it_is(silo):
    later, now, running, done = (
        silo.enqueue(task_group=f"{silo.group}-{n}", start_at_ms=LATER_MS * (n == 0)) for n in range(4)
    )
    silo.call("LeaseTask", id=running, worker_id="w")
    [task] = [silo.call("LeaseTask", id=done, worker_id="w").task]
    silo.call("ReportOutcome", task_id=task.id, success=pb.SerializedBytes(msgpack=b"\x01"))

    found = dict(
        values(silo, f"SELECT id, status_kind FROM jobs WHERE id IN ('{later}','{now}','{running}','{done}')")
    )
    assert found == {later: "Scheduled", now: "Waiting", running: "Running", done: "Succeeded"}
    for kind, job_id in (("Scheduled", later), ("Waiting", now), ("Running", running), ("Succeeded", done)):
        assert job_id in [
            each for (each,) in values(silo, "SELECT id FROM jobs WHERE status_kind = $1", text(kind))
        ]
    [(attempt, next_ms)] = values(
        silo, "SELECT current_attempt, next_attempt_starts_after_ms FROM jobs WHERE id = $1", text(done)
    )
    assert (attempt, next_ms) == (None, None)


def test_tasks_and_queues_show_who_holds_and_who_waits(limited):
    limit = [pb.Limit(concurrency=pb.ConcurrencyLimit(key="one", max_concurrency=1))]
    first, second = (limited.enqueue(limits=limit, priority=number) for number in (1, 2))
    where = f"tenant = '{limited.tenant}'"

    assert sorted(
        values(limited, f"SELECT entry_type, job_id, priority FROM queues WHERE {where}"), key=str
    ) == [
        ("holder", None, None),
        ("requester", second, 2),
    ]
    assert sorted(values(limited, f"SELECT job_id, variant_type, held_queues FROM tasks WHERE {where}")) == [
        (first, "RunAttempt", "one"),
        (second, "RequestTicket", ""),
    ]
    [counted] = rows(limited, f"SELECT * FROM queue_counts WHERE {where}")
    del counted["shard_id"]
    assert counted == {
        "tenant": limited.tenant,
        "queue_name": "one",
        "holders": 1,
        "requesters": 1,
        "max_concurrency": 1,
        "limit_type": "fixed",
    }


def test_counts_of_a_tenant_are_those_of_its_jobs_and_never_waiting(limited):
    for _ in range(3):
        limited.enqueue()
    limited.call("CancelJob", id=limited.enqueue())
    sql = f"FROM tenant_counts WHERE tenant = '{limited.tenant}'"

    assert sorted(values(limited, f"SELECT status_kind, cnt {sql}")) == [("Cancelled", 1), ("Scheduled", 3)]
    assert values(limited, f"SELECT count(*) FROM jobs WHERE tenant = '{limited.tenant}'") == [(4,)]


def test_attempts_leases_and_events_are_there_too(limited):
    job_id = limited.enqueue(task_group=limited.group)
    [task] = limited.lease()
    where = f"tenant = '{limited.tenant}'"

    assert values(limited, f"SELECT job_id, task_id FROM leases WHERE {where}") == [(job_id, task.id)]
    assert values(limited, f"SELECT attempt, status FROM attempts WHERE {where}") == [(1, "Running")]
    assert values(limited, f"SELECT type FROM events WHERE {where} AND job_id = '{job_id}' ORDER BY seq") == [
        ("JobEnqueued",),
        ("ChainStarted",),
        ("TaskLeased",),
    ]


# --- types and rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "name", "value"),
    [
        ("1", "Int64", 1),
        ("-200", "Int64", -200),
        ("CAST(300 AS INT UNSIGNED)", "UInt32", 300),
        ("1.5", "Float64", 1.5),
        ("CAST(0.5 AS REAL)", "Float32", 0.5),
        ("true", "Boolean", True),
        ("NULL", "Null", None),
        ("'x'", "Utf8", "x"),
        (
            "arrow_cast(1700000000123, 'Timestamp(Millisecond, None)')",
            "Timestamp(Millisecond, None)",
            1_700_000_000_123,
        ),
        ("CAST('2024-01-02' AS DATE)", "Date32", "2024-01-02"),
        ("CAST(1.5 AS DECIMAL(10, 2))", "Decimal128(10, 2)", "1.50"),
        ("X'01ff'", "Binary", "01ff"),
        ("[1, 2]", "List", "[1, 2]"),
        ("MAP {'k': 'v'}", "Map", "{k: v}"),
    ],
)
def test_values_and_types_are_spelled_as_clients_know_them(silo, expression, name, value):
    reply = silo.call("Query", sql=f"SELECT {expression} AS a")

    assert reply.columns[0].name == "a"
    assert reply.columns[0].data_type.startswith(name)
    assert [msgpack.unpackb(row.msgpack) for row in reply.rows] == [{"a": value}]


def test_numbers_take_their_shortest_form(silo):
    [row] = silo.call("Query", sql="SELECT 5 AS a, 300 AS b").rows
    assert row.msgpack == b"\x82\xa1a\x05\xa1b\xcd\x01\x2c"


def test_an_empty_result_has_its_columns(silo):
    reply = silo.call("Query", sql="SELECT id, priority, enqueue_time_ms FROM jobs WHERE id = 'nobody'")

    assert [(each.name, each.data_type) for each in reply.columns] == [
        ("id", "Utf8"),
        ("priority", "UInt8"),
        ("enqueue_time_ms", "Int64"),
    ]
    assert reply.row_count == 0


def test_arrow_comes_in_messages_of_which_each_is_a_whole_stream(limited):
    ids = sorted(limited.enqueue(metadata={"k": "v"}) for _ in range(3))
    messages = limited.call(
        "QueryArrow", sql=f"SELECT id, metadata FROM jobs WHERE tenant = '{limited.tenant}'"
    )
    table = pa.concat_tables(pa.ipc.open_stream(message.ipc_data).read_all() for message in messages)

    assert sorted(table["id"].to_pylist()) == ids
    assert table["metadata"].to_pylist() == [[("k", "v")]] * 3
    [nothing] = limited.call("QueryArrow", sql="SELECT id FROM jobs WHERE id = 'nobody'")
    assert pa.ipc.open_stream(nothing.ipc_data).read_next_batch().to_pydict() == {"id": []}


# --- parameters ----------------------------------------------------------------------------------------------------------


def test_parameters_are_bound_by_their_place_and_type(silo):
    job_id = silo.enqueue(priority=7)
    number = pb.QueryParameter(int64_value=7)

    assert values(silo, "SELECT id FROM jobs WHERE id = $1 AND priority = $2", text(job_id), number) == [
        (job_id,)
    ]
    assert (
        values(silo, "SELECT id FROM jobs WHERE priority = $2 AND id = $1", text("' OR 1=1 --"), number) == []
    )
    parameters = [
        pb.QueryParameter(bool_value=True),
        pb.QueryParameter(uint64_value=2**63),
        pb.QueryParameter(float64_value=0.5),
        pb.QueryParameter(bytes_value=b"\x01\xff"),
        pb.QueryParameter(null_value=pb.QueryNull()),
    ]
    assert values(silo, "SELECT $1 a, $2 b, $3 c, $4 d, $5 e", *parameters) == [
        (True, 2**63, 0.5, "01ff", None)
    ]


def test_what_is_left_over_is_not_looked_at(silo):
    assert values(silo, "SELECT $1 a", text("x"), text("y")) == [("x",)]


@pytest.mark.parametrize(
    ("sql", "parameters", "details"),
    [
        ("SELECT 1", [pb.QueryParameter()], "query parameter is missing a value"),
        ("SELECT $1, $2", [text("x")], "SQL parameter error: No value found for placeholder with id $2"),
    ],
)
def test_a_parameter_that_is_missing_is_refused(silo, sql, parameters, details):
    assert silo.refusal("Query", sql=sql, parameters=parameters) == (INVALID, details)
    assert silo.refusal("QueryArrow", sql=sql, parameters=parameters) == (INVALID, details)


# --- refused -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELEC 1",
        "SELECT nosuch FROM jobs",
        "SELECT * FROM nosuch",
        "SELECT 1; SELECT 2",
        "DELETE FROM jobs",
        "INSERT INTO jobs VALUES (1)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/silo-test.csv'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM '/etc/passwd'",
        "DROP TABLE jobs",
    ],
)
def test_whatever_is_no_reading_of_these_tables_is_refused(silo, sql):
    code, details = silo.refusal("Query", sql=sql)

    assert code is INVALID
    assert details.startswith("SQL error: ")


def test_an_error_while_it_runs_is_named(silo):
    silo.enqueue()
    code, details = silo.refusal("Query", sql="SELECT 1 / (enqueue_time_ms - enqueue_time_ms) FROM jobs")

    assert code is StatusCode.INTERNAL
    assert details.startswith("Query execution failed: ")


@pytest.mark.parametrize("rpc", ["Query", "QueryArrow"])
def test_the_shard_is_looked_at_first(silo, rpc):
    assert silo.refusal(rpc, shard="no uuid", sql="") == (INVALID, "invalid shard ID: no uuid")
    assert silo.refusal(rpc, shard=NIL, sql="") == (StatusCode.NOT_FOUND, "shard not found")


def test_a_result_that_is_too_large_is_refused_with_a_way_out(small):
    for _ in range(80):
        small.enqueue(payload=pb.SerializedBytes(msgpack=msgpack.packb("x" * 400)))
    code, details = small.refusal("Query", sql="SELECT payload FROM jobs")

    assert code is StatusCode.RESOURCE_EXHAUSTED
    assert details.startswith("query result exceeded max_result_bytes (20000 bytes) after ")
    assert details.endswith(" rows; add a LIMIT, project fewer columns, or use QueryArrow")
    assert small.call("QueryArrow", sql="SELECT payload FROM jobs")
    assert len(rows(small, "SELECT payload FROM jobs LIMIT 5")) == 5


def test_a_statement_that_takes_too_long_is_ended(nodes):
    hasty = nodes.start(server=Server(grpc_addr="127.0.0.1:0", statement_timeout_ms=1))
    text = "Query exceeded statement timeout of 1 ms"
    sql = "SELECT a.type, count(*) FROM events a GROUP BY a.type UNION SELECT 'x', count(*) FROM jobs WHERE priority > 0"
    for _ in range(300):
        hasty.enqueue()

    assert hasty.refusal("Query", sql=sql) == (StatusCode.DEADLINE_EXCEEDED, text)
    assert hasty.refusal("QueryArrow", sql=sql) == (StatusCode.DEADLINE_EXCEEDED, text)


def test_there_are_only_so_many_statements_at_once(small):
    shard = small.node.shard
    sql = "SELECT count(*) FROM events WHERE seq > 0"
    replies = small.at_once_or_refused("Query", *[{"sql": sql}] * 6)
    refused = [reply for reply in replies if isinstance(reply, tuple)]

    assert 0 < len(refused) < 6
    assert {tuple(each) for each in refused} == {
        (
            StatusCode.RESOURCE_EXHAUSTED,
            f"shard {shard} has 1 statements already in flight (server.max_concurrent_statements)",
        )
    }
    assert values(small, sql)
