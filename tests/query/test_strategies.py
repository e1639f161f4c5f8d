"""Whichever index a statement walks, it finds what a walk through everything finds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.errors import Refused
from silo.query.plan import NOTHING_SAID
from silo.query.provider import SOURCES
from silo.query.statement import Statement, plan
from silo.query.tables import SCHEMAS
from silo.shard.cancel import cancel
from silo.shard.delete import delete
from silo.shard.enqueue import enqueue
from silo.shard.jobs import JobName
from silo.shard.lease import lease_tasks
from silo.shard.outcome import report_outcome
from silo.shard.shard import Shard
from silo.storage.stores import StoreSpec
from tests.builders import a_job, a_limit, failure, for_worker, success
from tests.serving import opens_slate, run, serving

CONDITIONS = [
    "true",
    "tenant = 'a'",
    "id = 'j1'",
    "tenant = 'b' AND id = 'j2'",
    "id IN ('j1', 'j3', 'nobody')",
    "status_kind = 'Waiting'",
    "status_kind = 'Scheduled' AND tenant = 'a'",
    "status_kind IN ('Running', 'Succeeded')",
    "status_kind = 'Cancelled' OR status_kind = 'Failed'",
    "NOT status_kind IN ('Running', 'Waiting')",
    "status_kind <> 'Waiting' AND priority >= 1",
    "array_contains(element_at(metadata, 'kind'), 'mail')",
    "tenant = 'a' AND array_contains(element_at(metadata, 'kind'), 'mailing')",
    "array_any_value(element_at(metadata, 'kind')) LIKE 'mail%'",
    "starts_with(array_any_value(element_at(metadata, 'kind')), 'mai')",
    "metadata['kind'] = 'mail' AND id <> 'j1'",
    "tenant = 'a' AND tenant = 'b'",
    "priority = 1 OR id = 'j0'",
    "id > 'j2'",
]
COUNTS = [
    "SELECT count(*) FROM jobs",
    "SELECT count(*) FROM jobs WHERE tenant = 'a'",
    "SELECT count(*) FROM jobs WHERE id = 'j1'",
]
OTHERS = [
    f"SELECT * FROM {table} WHERE {condition}"
    for table in ("tasks", "queues", "tenant_counts", "queue_counts", "attempts", "leases")
    for condition in ("true", "tenant = 'a'")
] + [
    "SELECT * FROM attempts WHERE tenant = 'a' AND job_id = 'j1'",
    "SELECT seq, type, job_id FROM events WHERE seq > 3 AND seq <= 9",
    "SELECT seq, type, data FROM events WHERE seq = 5",
]

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("enqueue"),
            st.sampled_from("ab"),
            st.integers(0, 4),
            st.sampled_from(["mail", "mailing", "x"]),
        ),
        st.tuples(st.just("lease"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["cancel", "delete"]), st.sampled_from("ab"), st.integers(0, 4)),
        st.tuples(st.just("checkpoint")),
    ),
    max_size=25,
)


async def live(shard: Shard, steps: list[Any], chance: random.Random) -> None:
    """Let a shard have a history."""
    for kind, *what in steps:
        try:
            match kind:
                case "enqueue":
                    tenant, number, word = what
                    job = a_job(
                        tenant=tenant,
                        job_id=f"j{number}",
                        priority=number % 3,
                        metadata=(("kind", word),),
                        limits=(a_limit(1, "q"),) if number == 3 else (),
                        payload=b"\xc4\x00" if number == 1 else b"\xda\x03\xe8" + b"x" * 1000,
                    )
                    await shard.execute(enqueue, job)
                case "lease":
                    for task in await shard.execute(lease_tasks, for_worker(max_tasks=what[0])):
                        if report := chance.choice([None, success, failure]):
                            await shard.execute(report_outcome, report(task.task_id))
                case "checkpoint":
                    await shard.checkpoint()
                case _:
                    tenant, number = what
                    name = JobName(tenant, f"j{number}")
                    await shard.execute(cancel if kind == "cancel" else delete, name)
        except Refused:
            continue


async def answer(shard: Shard, statement: Statement) -> list[str]:
    async with statement.running(shard) as batches:
        return sorted([repr(row) async for batch in batches for row in batch.to_pylist()])


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.randoms(use_true_random=False))
def test_an_index_finds_what_a_walk_through_everything_finds(steps, chance):
    async def main() -> None:
        async with serving(opens_slate(StoreSpec.in_memory())) as shard:
            await live(shard, steps, chance)
            for sql in [f"SELECT * FROM jobs WHERE {each}" for each in CONDITIONS] + COUNTS + OTHERS:
                by_index, by_walk = await plan(sql, []), await plan(sql, [])
                for table in by_walk.tables:
                    table.wanted = NOTHING_SAID
                assert await answer(shard, by_index) == await answer(shard, by_walk), sql

    run(main())


@pytest.mark.parametrize(
    ("sql", "strategy"),
    [
        ("SELECT * FROM jobs WHERE id = 'x'", "jobs[ExactId(id='x')]"),
        ("SELECT * FROM jobs WHERE tenant = 't' AND id = 'x'", "jobs[ExactId(tenant='t', id='x')]"),
        (
            "SELECT * FROM jobs WHERE array_contains(element_at(metadata, 'k'), 'v')",
            "jobs[MetadataExact(key='k', value='v')]",
        ),
        (
            "SELECT * FROM jobs WHERE tenant = 't' AND array_any_value(element_at(metadata, 'k')) LIKE 'v%'",
            "jobs[MetadataPrefix(tenant='t', key='k', value='v')]",
        ),
        ("SELECT * FROM jobs WHERE status_kind = 'Failed'", "jobs[Status(status='Failed')]"),
        (
            "SELECT * FROM jobs WHERE status_kind IN ('Failed', 'Running')",
            "jobs[Status(status=['Failed', 'Running'])]",
        ),
        ("SELECT * FROM jobs WHERE priority = 3", "jobs[FullScan()]"),
        ("SELECT * FROM jobs WHERE tenant = 't'", "jobs[FullScan(tenant='t')]"),
        ("SELECT * FROM jobs a JOIN jobs b ON a.id = b.id WHERE a.id = 'x'", "jobs[FullScan()]"),
        ("SELECT * FROM events WHERE seq BETWEEN 3 AND 9", "events[Log(seq=3..9)]"),
    ],
)
def test_explain_tells_which_index_is_walked(sql, strategy):
    async def main() -> str:
        async with serving(opens_slate(StoreSpec.in_memory())) as shard:
            statement = await plan(f"EXPLAIN {sql}", [])
            async with statement.running(shard) as batches:
                rows = [row async for batch in batches for row in batch.to_pylist()]
            return str(rows[-1]["plan"])

    assert run(main()) == strategy


def test_every_table_has_its_columns_and_a_source():
    assert list(SCHEMAS) == list(SOURCES)
