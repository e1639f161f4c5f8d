"""Deliberate bugs: a guard removed, an event not applied, a release forgotten, a reply before its time.

Each is a text in a file that another one replaces; the simulator runs in a copy of the program that has it, and must find
it.
`python tools/mutate` does that, and writes the table in docs/mutations.md.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Bug:
    """One deliberate bug.

    Attributes:
        about: what is wrong, in a few words.
        file: below silo/.
        old, new: what is there, once, and what the bug makes of it.
        scenarios: those that are run; the first should find it.
    """

    name: str
    about: str
    file: str
    old: str
    new: str
    scenarios: tuple[str, ...] = ("mixed",)


BUGS: tuple[Bug, ...] = (
    # --- durability and recovery -----------------------------------------------------------------------------------------
    Bug(
        "reply-before-durable",
        "a command is acknowledged before its events are durable",
        "shard/shard.py",
        "                await durable\n            else:\n",
        "                _ = durable\n            else:\n",
    ),
    Bug(
        "refusal-before-durable",
        "a refusal tells of events that are not durable",
        "shard/shard.py",
        "                    # A refusal, too, tells what it has seen.\n                    await log.durable()\n",
        "",
        ("lossy_network", "mixed"),
    ),
    Bug(
        "read-before-durable",
        "a read shows events that are not durable",
        "shard/shard.py",
        "            else:\n                await log.durable()\n            return reply\n",
        "            return reply\n",
        ("early_reads",),
    ),
    Bug(
        "failed-commit-ignored",
        "the log goes on after a commit that failed",
        "events/log.py",
        "                await self._commit([event for append in group for event in append.events])\n",
        "                try:\n"
        "                    await self._commit([event for append in group for event in append.events])\n"
        "                except StoreFailed:\n"
        "                    pass\n",
        ("torn_checkpoints", "mixed"),
    ),
    Bug(
        "rows-ahead-of-log",
        "a checkpoint does not wait for the log that it stands for",
        "shard/shard.py",
        "                await log.durable()\n                await write_rows",
        "                await write_rows",
        ("torn_checkpoints", "crash_anywhere"),
    ),
    Bug(
        "note-one-behind",
        "a checkpoint says that it stands for one event less",
        "shard/shard.py",
        "            note = Note(log.next_seq - 1, self._time_ms)",
        "            note = Note(max(log.next_seq - 2, 0), self._time_ms)",
    ),
    Bug(
        "note-one-ahead",
        "a checkpoint says that it stands for one event more",
        "shard/shard.py",
        "            note = Note(log.next_seq - 1, self._time_ms)",
        "            note = Note(log.next_seq, self._time_ms)",
    ),
    Bug(
        "replay-skips-one",
        "opening leaves out the first event after the checkpoint",
        "shard/replay.py",
        "read(log, after.seq + 1,",
        "read(log, after.seq + 2,",
        ("crash_anywhere", "mixed"),
    ),
    Bug(
        "checkpoint-forgets-deletions",
        "a checkpoint does not delete rows",
        "shard/checkpoint.py",
        "    batch.change([(prefix + encode_key(key), None if row is None else encode_row(row)) for key, row in rows])\n",
        "    batch.change([(prefix + encode_key(key), encode_row(row)) for key, row in rows if row is not None])\n",
        ("torn_checkpoints", "mixed"),
    ),
    Bug(
        "checkpoint-leaves-old-entries",
        "a job stays in the order of its old status",
        "shard/checkpoint.py",
        "            changes += [(row_key(*entry), None) for entry in gone if entry not in come]\n",
        "",
    ),
    Bug(
        "draft-not-undone",
        "a command that was dropped leaves its changes behind",
        "shard/rows.py",
        "        while self._undo:\n            self._take_back(*self._undo.pop())\n",
        "        self._undo.clear()\n",
        ("backlog", "mixed"),
    ),
    Bug(
        "front-without-changes",
        "the front of a queue is loaded without what is only in memory",
        "shard/rows.py",
        "        for generation in (self.frozen, self.changes):\n            if generation is None:\n"
        "                continue\n"
        "            for key, row in generation.rows.get(table, NO_ROWS).items():\n                if table.queue",
        "        for generation in (self.frozen,):\n            if generation is None:\n                continue\n"
        "            for key, row in generation.rows.get(table, NO_ROWS).items():\n                if table.queue",
        ("backlog", "mixed"),
    ),
    Bug(
        "load-races-with-checkpoint",
        "the front of a queue that was read while a checkpoint ended may lack what that wrote",
        "shard/disk.py",
        "            if rows.epoch == epoch:\n                rows.extend",
        "            if True:\n                rows.extend",
        ("backlog", "torn_checkpoints"),
    ),
    Bug(
        "old-events-misread",
        "chains of the oldest version begin behind their first gate",
        "events/upcasts.py",
        "    return [*fields, 0]\n",
        "    return [*fields, 1]\n",
        ("old_events",),
    ),
    Bug(
        "time-goes-back",
        "events follow the wall clock back",
        "shard/shard.py",
        "        return max(self._wall_clock_ms(), self._time_ms)\n",
        "        return self._wall_clock_ms()\n",
        ("clock_jumps",),
    ),
    # --- slots and lines -------------------------------------------------------------------------------------------------
    Bug(
        "one-slot-too-many-at-once",
        "who comes to a queue is let in beside its maximum",
        "shard/slots.py",
        "    if row.holders < maximum and not row.is_unsettled:\n",
        "    if row.holders <= maximum and not row.is_unsettled:\n",
        ("concurrency_limits",),
    ),
    Bug(
        "one-slot-too-many-in-line",
        "who waits is let in beside the maximum",
        "projections/concurrency.py",
        "            return self.holders < line\n",
        "            return self.holders <= line\n",
        ("concurrency_limits",),
    ),
    Bug(
        "slots-never-given-back",
        "a chain that ends keeps its slots",
        "projections/concurrency.py",
        "    for queue, _ in chain.held:\n        row = existing",
        "    for queue, _ in chain.held[:0]:\n        row = existing",
        ("concurrency_limits",),
    ),
    Bug(
        "slot-kept-during-backoff",
        "an attempt that failed keeps its slot until the next one",
        "projections/concurrency.py",
        "    AttemptFailed: chain_over,\n",
        "",
        ("retry_frees_slot", "concurrency_limits"),
    ),
    Bug(
        "slot-kept-by-the-cancelled",
        "a cancelled job keeps its slot",
        "projections/concurrency.py",
        "    JobCancelled: chain_over,\n",
        "",
        ("cancelled_holders",),
    ),
    Bug(
        "slot-kept-by-the-reimported",
        "a job that is imported again keeps its slot and its place",
        "projections/concurrency.py",
        "    JobReimported: chain_over,\n",
        "",
        ("imports",),
    ),
    Bug(
        "cancelled-stays-in-line",
        "a cancelled job stays in the line of its queue",
        "projections/concurrency.py",
        "        view.delete(WAITERS, waiter_key(event.tenant, limit, chain))\n"
        "        _change(event, limit.key, row, view, lines=_longer(row.lines, line_of(limit), -1))\n",
        "        _ = row\n",
        ("cancelled_holders",),
    ),
    Bug(
        "free-slots-not-given",
        "nobody gives away the room that a chain leaves",
        "shard/gates.py",
        "    if not view.first(UNSETTLED, (), 1):\n        return 0\n    require",
        "    if view.first(UNSETTLED, (), 1) is not None:\n        return 0\n    require",
        ("concurrency_limits",),
    ),
    Bug(
        "last-in-line-first",
        "the last in line is let in first",
        "shard/slots.py",
        "    _, ref = min(fronts, key=lambda front: front[0][3:])\n",
        "    _, ref = max(fronts, key=lambda front: front[0][3:])\n",
        ("many_lines",),
    ),
    Bug(
        "newcomers-first",
        "who comes to a queue takes a slot that is somebody else's next",
        "shard/slots.py",
        "    if row.holders < maximum and not row.is_unsettled:\n",
        "    if row.holders < maximum:\n",
        ("floating_limits", "mixed", "grant_race", "imports"),
    ),
    Bug(
        "drop-without-trace",
        "holders that are dropped keep their slots in the job's row",
        "projections/jobs.py",
        "chain=_chain_with(live_chain(event, job), held=()))\n",
        "chain=_chain_with(live_chain(event, job)))\n",
        ("dropped_holders",),
    ),
    # --- the ready queue and leases --------------------------------------------------------------------------------------
    Bug(
        "leased-stays-ready",
        "a leased task stays in the ready queue",
        "projections/tasks.py",
        "def task_leased(event: TaskLeased, job: JobRow, view: View) -> None:\n    _leave(job, view)\n",
        "def task_leased(event: TaskLeased, job: JobRow, view: View) -> None:\n    pass\n",
        ("grant_race",),
    ),
    Bug(
        "cancelled-stays-ready",
        "a cancelled job stays in the ready queue",
        "projections/tasks.py",
        "    JobCancelled: job_cancelled,\n",
        "",
        ("cancelled_holders", "mixed"),
    ),
    Bug(
        "priority-ignored",
        "the ready queue is in the order of start times alone",
        "projections/tasks.py",
        "        key = (job.spec.task_group, event.virtual_start_ms, event.start_ms, event.seq)\n        _enter_ready",
        "        key = (job.spec.task_group, event.start_ms, event.start_ms, event.seq)\n        _enter_ready",
        ("neighbours", "mixed"),
    ),
    Bug(
        "leases-never-expire",
        "nobody looks for leases that have run out",
        "broker/timers.py",
        "    expire_leases,\n    check_due,\n",
        "    check_due,\n",
        ("lost_workers",),
    ),
    Bug(
        "expiry-stays",
        "the expiry of a lease stays when its attempt has ended",
        "projections/leases.py",
        "    view.delete(LEASES, (event.task_id,))\n    view.delete(EXPIRIES, (lease.expires_ms, event.task_id))\n",
        "    view.delete(LEASES, (event.task_id,))\n",
        ("concurrency_limits",),
    ),
    Bug(
        "heartbeat-not-noted",
        "a renewed lease expires when the first one would have",
        "shard/expire.py",
        "        expires_ms = draft.leases.expires_ms(task_id, lease.expires_ms)\n",
        "        expires_ms = lease.expires_ms - 5_000\n",
        ("long_pauses", "late_reports", "lost_workers"),
    ),
    Bug(
        "late-report-counts",
        "a report is taken although the lease is gone",
        "shard/outcome.py",
        "    if lease is None or lease.queue is not None:\n        raise LeaseNotFound\n",
        "    if lease is not None and lease.queue is not None:\n        raise LeaseNotFound\n"
        "    if lease is None:\n        return\n",
        ("late_reports",),
    ),
    Bug(
        "expired-lease-forgets-the-job",
        "a lease that runs out is taken back, and its attempt goes on for ever",
        "shard/expire.py",
        "    end_attempt(name, outcome, draft)\n",
        "",
        ("lost_workers",),
    ),
    # --- the life of a job -----------------------------------------------------------------------------------------------
    Bug(
        "one-try-too-many",
        "a job is tried once more than its policy says",
        "domain/retry.py",
        "        if relative_attempt > self.retry_count:\n",
        "        if relative_attempt > self.retry_count + 1:\n",
        ("lost_workers", "concurrency_limits"),
    ),
    Bug(
        "cancelled-tried-again",
        "a job that was to be cancelled is tried again when it fails",
        "shard/outcome.py",
        "    if job.cancelled_ms is not None:\n        cancel_job(name, draft)\n        return\n\n    retry_ms",
        "    retry_ms",
        ("cancelled_holders", "mixed", "expedite"),
    ),
    Bug(
        "running-deleted",
        "a job can be deleted while it runs",
        "shard/delete.py",
        "    if not job.status.is_terminal:\n        raise JobInProgress(name.job_id)\n",
        "",
        ("mixed", "cancelled_holders"),
    ),
    Bug(
        "succeeded-restarted",
        "a job that succeeded can be restarted",
        "shard/restart.py",
        '    if job.status is JobStatus.SUCCEEDED:\n        raise refusal("restart", name, job, "job already succeeded")\n',
        "",
        ("mixed", "cancelled_holders"),
    ),
    Bug(
        "import-counts-wrong",
        "the attempt after an import has the number of the last one",
        "shard/import_jobs.py",
        "        number = len(job.attempts) + 1\n",
        "        number = len(job.attempts) or 1\n",
        ("imports",),
    ),
    Bug(
        "enqueued-twice",
        "a job that is there already can be enqueued again",
        "shard/enqueue.py",
        "        raise AlreadyExists(job.job_id)\n",
        "        pass\n",
        ("lossy_network", "mixed"),
    ),
    Bug(
        "ready-expedited",
        "a job that waits for no time can be expedited",
        "shard/expedite.py",
        "        case _:\n            return False\n",
        "        case _:\n            return True\n",
        ("expedite",),
    ),
    Bug(
        "nobody-wakes-the-future",
        "nothing of the future ever starts",
        "shard/due.py",
        "    due = due_jobs(TIMERS, draft)\n    for name, job in zip(due, require_chains",
        "    due = due_jobs(TIMERS, draft)[:0]\n    for name, job in zip(due, require_chains",
        ("expedite",),
    ),
    Bug(
        "forgotten-too-soon",
        "ended jobs are forgotten before their time",
        "shard/delete.py",
        "        if int(key[0]) <= draft.now_ms\n",
        "        if int(key[0]) <= draft.now_ms + 2_000\n",
        ("updates",),
    ),
    # --- floating limits and rates ---------------------------------------------------------------------------------------
    Bug(
        "refresh-lost-with-its-worker",
        "a refresh whose worker vanished stays under way for ever",
        "projections/concurrency.py",
        "def refresh_expired(event: RefreshExpired, _: None, view: View) -> None:\n"
        "    _refloat(event, view, refresh=None)\n",
        "def refresh_expired(event: RefreshExpired, _: None, view: View) -> None:\n    _refloat(event, view)\n",
        ("floating_limits",),
    ),
    Bug(
        "new-maximum-ignored",
        "what workers find out changes nothing",
        "projections/concurrency.py",
        "        maximum=event.new_max_concurrency,\n        refreshed_ms",
        "        refreshed_ms",
        ("floating_limits",),
    ),
    Bug(
        "maximum-not-looked-for",
        "nobody is asked for a maximum that is old",
        "broker/timers.py",
        "    schedule_due_refreshes,\n",
        "",
        ("floating_limits",),
    ),
    Bug(
        "bucket-never-fills",
        "hits are not counted",
        "projections/rates.py",
        "    if event.is_local:\n        _fill(event",
        "    if event.is_local and not event.allowed:\n        _fill(event",
        ("rate_limits",),
    ),
    Bug(
        "bucket-forgets-its-line",
        "nobody looks at a bucket when its time has come",
        "broker/timers.py",
        "    open_buckets,\n",
        "",
        ("rate_limits",),
    ),
    Bug(
        "late-answer-counts",
        "an answer of the limiter counts wherever the job has come to meanwhile",
        "shard/rates.py",
        "    if chain is None or chain.place is not Place.CHECKING or not _is_about(question, chain):\n",
        "    if chain is None:\n",
        ("outside_limiter",),
    ),
    Bug(
        "limiter-silent-lets-pass",
        "while the limiter does not answer everybody passes",
        "broker/rate_checks.py",
        "        return Reply(question=question, error=str(error))\n",
        "        return Reply(question=question, allowed=True, error=str(error))\n",
        ("outside_limiter",),
    ),
)
