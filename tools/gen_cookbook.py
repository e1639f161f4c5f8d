"""Writes docs/cookbook.md: twenty questions that operators ask, each with its SQL and what a broker really answered.

    python -m tools.gen_cookbook

The broker is one in memory, with a small history that this program makes; ids and times differ from run to run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from silo.client import AsyncClient, Concurrency, JobFailed, NewJob, Retry, Worker
from silo.client.worker import running
from silo.testing import broker

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cookbook.md"

HEAD = """# Twenty questions

What operators ask, each with the SQL and what a broker answered.
It had two small shops, `acme` and `globex`, some of whose jobs fail, wait and run.
Made by `python -m tools.gen_cookbook`.
[sql.md](sql.md) has the tables, and says which index answers what.

Each statement reads one shard: `siloctl query SHARD "..."`, or `client.query("...")`, which takes the tenant's shard.
The answers are shown as `client.query_arrow("...")` gives them; the others show times as milliseconds.
Put `tenant = 'acme' AND` in front of a condition to ask about one tenant.
"""

ROWS_SHOWN = 6
CELL_CHARS = 60


@attrs.frozen
class Question:
    """A question, its SQL, and what is worth knowing of it."""

    words: str
    sql: str
    note: str = ""


QUESTIONS = (
    Question(
        "How many jobs has each tenant, by status?",
        "SELECT tenant, status_kind, cnt FROM tenant_counts ORDER BY tenant, status_kind",
        "From counters, so it costs the same with millions of jobs.",
    ),
    Question(
        "How much waits for each task group, and since when?",
        """SELECT task_group, count(*) AS waiting, to_timestamp_millis(min(start_time_ms)) AS oldest
FROM tasks WHERE variant_type = 'RunAttempt' GROUP BY task_group""",
    ),
    Question(
        "Which jobs have failed for good, and why?",
        """SELECT j.id, a.error_code, a.data FROM jobs j JOIN attempts a
ON a.tenant = j.tenant AND a.job_id = j.id AND a.finished_at_ms = j.status_changed_at_ms WHERE j.status_kind = 'Failed'""",
    ),
    Question(
        "Which errors are the most frequent?",
        """SELECT error_code, count(*) AS attempts, count(DISTINCT job_id) AS jobs FROM attempts
WHERE status = 'Failed' GROUP BY error_code ORDER BY attempts DESC""",
    ),
    Question(
        "What runs now, where, and since when?",
        """SELECT l.worker_id, l.job_id, to_timestamp_millis(a.started_at_ms) AS since FROM leases l
JOIN attempts a ON a.task_id = l.task_id ORDER BY a.started_at_ms""",
    ),
    Question(
        "How much does each worker do?",
        """SELECT worker_id, count(*) AS tasks, count(DISTINCT job_id) AS jobs FROM events
WHERE type = 'TaskLeased' GROUP BY worker_id ORDER BY tasks DESC""",
    ),
    Question(
        "Which limits are full?",
        """SELECT tenant, queue_name, holders, max_concurrency, requesters FROM queue_counts
WHERE holders >= max_concurrency ORDER BY requesters DESC""",
    ),
    Question(
        "Who holds the slots of a limit?",
        """SELECT entry_type, coalesce(job_id, task_id) AS who, to_timestamp_millis(timestamp_ms) AS since
FROM queues WHERE queue_name = 'exports' ORDER BY entry_type, timestamp_ms""",
    ),
    Question(
        "How long does a job run?",
        """SELECT j.task_group, count(*) AS n,
  approx_percentile_cont(a.finished_at_ms - a.started_at_ms, 0.5) AS p50_ms,
  approx_percentile_cont(a.finished_at_ms - a.started_at_ms, 0.95) AS p95_ms
FROM attempts a JOIN jobs j ON j.tenant = a.tenant AND j.id = a.job_id
WHERE a.status = 'Succeeded' GROUP BY j.task_group ORDER BY j.task_group""",
    ),
    Question(
        "How long does a job wait before it first runs?",
        """SELECT approx_percentile_cont(l.time_ms - e.time_ms, 0.5) AS p50_ms, max(l.time_ms - e.time_ms) AS max_ms
FROM events e JOIN events l ON l.tenant = e.tenant AND l.job_id = e.job_id
WHERE e.type = 'JobEnqueued' AND l.type = 'TaskLeased' AND l.attempt = 1""",
    ),
    Question(
        "Which jobs needed more than one attempt?",
        """SELECT tenant, job_id, count(*) AS attempts FROM attempts
GROUP BY tenant, job_id HAVING count(*) > 1 ORDER BY attempts DESC, job_id""",
    ),
    Question(
        "What has happened to one job?",
        """SELECT seq, to_timestamp_millis(time_ms) AS time, type, attempt, actor, method FROM events
WHERE tenant = 'acme' AND job_id = 'mail-3' ORDER BY seq""",
        "`silo events job mail-3 --tenant acme` shows the same as a story, and does not read the whole log for it.",
    ),
    Question(
        "Who has cancelled that?",
        "SELECT job_id, actor, to_timestamp_millis(time_ms) AS time FROM events WHERE type = 'CancellationRequested'",
        "The actor is the name that a client gives itself: `Client(actor=...)`.",
    ),
    Question(
        "Which jobs belong to one customer?",
        """SELECT id, status_kind, metadata['customer'] AS customer FROM jobs
WHERE tenant = 'acme' AND array_contains(element_at(metadata, 'customer'), 'ann') ORDER BY id""",
        "By the index of metadata; so put into metadata what you will ask for.",
    ),
    Question(
        "Which job has this in its payload?",
        "SELECT id, payload FROM jobs WHERE payload LIKE '%bob@%' ORDER BY id",
        "This reads all jobs.",
    ),
    Question(
        "What is to start later, and when?",
        """SELECT id, to_timestamp_millis(next_attempt_starts_after_ms) AS starts FROM jobs
WHERE status_kind = 'Scheduled' ORDER BY starts""",
    ),
    Question(
        "How was it right after a certain event?",
        "SELECT status_kind, count(*) AS n FROM jobs_at(12) GROUP BY status_kind ORDER BY status_kind",
        "Or at an instant: `jobs_at('2026-11-03 14:05')`.",
    ),
    Question(
        "What has changed since then?",
        """SELECT j.id, b.status_kind AS was, j.status_kind AS now FROM jobs j JOIN jobs_at(12) b
ON j.tenant = b.tenant AND j.id = b.id WHERE b.status_kind <> j.status_kind ORDER BY j.id""",
    ),
    Question(
        "How busy was it, second by second?",
        """SELECT date_bin(INTERVAL '1 second', to_timestamp_millis(time_ms)) AS second, count(*) AS events,
  count(*) FILTER (WHERE type = 'JobEnqueued') AS enqueued,
  count(*) FILTER (WHERE type = 'AttemptSucceeded') AS succeeded
FROM events GROUP BY second ORDER BY second""",
    ),
    Question(
        "Which statement would be slow?",
        "EXPLAIN SELECT id FROM jobs WHERE status_kind = 'Failed' LIMIT 10",
        "The row `silo_plan` says which index is walked; `FullScan` means all rows.",
    ),
)


@asynccontextmanager
async def a_history() -> AsyncIterator[AsyncClient]:
    """A client of a broker in which two shops have been at work for a second or two."""
    held = asyncio.Event()
    async with (
        broker(tenancy=True) as silo,
        silo.async_client(tenant="acme", actor="shop") as client,
    ):
        worker = Worker(silo.address, worker_id="worker-1", drain_s=0)

        @worker.task("mails")
        async def mail(payload: dict[str, Any]) -> str:
            await asyncio.sleep(0.01)
            if payload["to"].startswith("nobody"):
                raise LookupError("no such mailbox")
            return "sent"

        @worker.task("exports")
        async def export(_: None) -> None:
            await held.wait()

        people = ("ann", "bob", "cid", "nobody")
        mails = [
            NewJob(
                task_group="mails",
                payload={"to": f"{people[number % 4]}@example.com"},
                id=f"mail-{number}",
                metadata={"customer": people[number % 4]},
                retry=Retry(times=2, first_s=0.05) if number % 8 == 3 else None,
            )
            for number in range(16)
        ]
        exports = [
            NewJob(
                task_group="exports",
                id=f"export-{number}",
                tenant="globex",
                limits=[Concurrency("exports", 2)],
            )
            for number in range(5)
        ]
        await client.enqueue_many([*mails, NewJob(task_group="mails", id="mail-later", delay_s=3600)])
        await client.enqueue_many(
            [
                *exports,
                NewJob(task_group="reports", id="report-1"),
                NewJob(task_group="reports", id="report-2"),
            ]
        )
        await client.job("report-2").cancel()
        async with running(worker):
            for job in mails:
                with contextlib.suppress(JobFailed):
                    await client.job(job.id or "").wait()
            yield client


async def answers(client: AsyncClient) -> list[list[dict[str, Any]]]:
    """What the broker says to each question."""
    return [(await client.query_arrow(question.sql)).to_pylist() for question in QUESTIONS]


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        value = f"{value:%H:%M:%S.%f}"[:-3]
    text = "" if value is None else str(value).replace("\n", "<br>").replace("|", "\\|")
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    lines += [f"| {' | '.join(map(_cell, row.values()))} |" for row in rows[:ROWS_SHOWN]]
    if len(rows) > ROWS_SHOWN:
        lines += ["", f"and {len(rows) - ROWS_SHOWN} more."]
    return "\n".join(lines)


async def write() -> None:
    async with a_history() as client:
        found = await answers(client)
    parts = [HEAD]
    for number, (question, rows) in enumerate(zip(QUESTIONS, found, strict=True), start=1):
        note = f"\n{question.note}\n" if question.note else ""
        parts.append(
            f"\n## {number}. {question.words}\n\n```sql\n{question.sql}\n```\n\n{_table(rows)}\n{note}"
        )
    PAGE.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(write())
