"""What the clock says of rate limits: checks that are due, and buckets that have room again or have expired."""

from __future__ import annotations

import attrs

from silo.events.catalogue import BucketForgotten, BucketWaited
from silo.projections.jobs import Chain, JobRow, Place
from silo.projections.rates import (
    BUCKET_LINES,
    BUCKET_TIMERS,
    BUCKETS,
    CHECKS,
    LOOKED_AT_AFTER_MS,
    BucketRow,
    rate_limit,
)
from silo.projections.tasks import JobRef
from silo.projections.view import Key
from silo.ratelimit.buckets import passes_at_ms
from silo.shard.draft import Draft
from silo.shard.due import due_jobs, due_keys
from silo.shard.gates import walk
from silo.shard.jobs import JobName, require_chains, require_jobs, rows, the_job
from silo.shard.rates import Question, ask_bucket, ask_limiter

LET_IN_PER_BUCKET_MAX = 50
"""In one command, so that a wide bucket does not keep the others waiting."""


# --- checks with a time of their own ---------------------------------------------------------------------------------------


def check_due(_: None, draft: Draft) -> int:
    """Ask the buckets of which a check is due.  Returns how many it asked; there may be more.

    Not for checks that an outside service answers: those are asked by whoever reads `open_questions`.
    """
    if draft.rules.asks_limiter:
        return 0
    due = due_jobs(CHECKS, draft)
    for name, job in zip(due, require_chains(due, draft.view), strict=True):
        assert job.chain is not None
        ask_bucket(name, job.chain, rate_limit(job, job.chain.gate), draft)
        walk(name, draft)
    return len(due)


@attrs.frozen
class OpenQuestions:
    """What an outside service is to be asked now, the longest due first, and when there will be something more to ask."""

    due: list[Question]
    next_ms: int | None


def open_questions(most: int, draft: Draft) -> OpenQuestions:
    """The questions that are open, up to so many."""
    front = draft.view.first(CHECKS, (), most)
    due = [JobName(ref.tenant, ref.job_id) for key, ref in front if int(key[0]) <= draft.now_ms]
    return OpenQuestions(
        due=[_question(name, job) for name, job in zip(due, require_jobs(due, draft.view), strict=True)],
        next_ms=int(front[len(due)][0][0]) if len(due) < len(front) else None,
    )


def _question(name: JobName, job: JobRow) -> Question:
    chain = job.chain
    assert chain is not None
    return Question(
        name=name,
        task_id=chain.task_id,
        gate=chain.gate,
        tries=chain.tries,
        limit=rate_limit(job, chain.gate),
    )


# --- buckets ---------------------------------------------------------------------------------------------------------------


def open_buckets(_: None, draft: Draft) -> int:
    """Look at the buckets of which the time has come: let in the first of their lines, or forget them.

    Returns how many it looked at; there may be more.
    """
    due = [key[1:] for key, _ in due_keys(BUCKET_TIMERS, draft)]
    buckets = rows(draft.view, BUCKETS, due)
    fronts = [ref for key, row in zip(due, buckets, strict=True) for _, ref in _front(key, row, draft)]
    require_chains([JobName(ref.tenant, ref.job_id) for ref in fronts], draft.view)
    for key in due:
        _look_at(key, draft)
    return len(due)


def _front(key: Key, row: BucketRow, draft: Draft) -> list[tuple[Key, JobRef]]:
    most = min(row.waiting, LET_IN_PER_BUCKET_MAX)
    return list(draft.view.first(BUCKET_LINES, key, most)) if most else []


def _look_at(key: Key, draft: Draft) -> None:
    for _ in range(LET_IN_PER_BUCKET_MAX):
        row = rows(draft.view, BUCKETS, [key])[0]
        if not row.waiting:
            _keep_or_forget(key, row, draft)
            return
        ((_, ref),) = draft.view.first(BUCKET_LINES, key, 1)
        if not _ask_for_first(key, JobName(ref.tenant, ref.job_id), draft):
            return


def _ask_for_first(key: Key, name: JobName, draft: Draft) -> bool:
    """Ask for the first in the line of a bucket.  Returns whether it is in the line no more."""
    job = the_job(name, draft.view)
    assert job.chain is not None
    limit = rate_limit(job, job.chain.gate)
    if draft.rules.asks_limiter:
        ask_limiter(name, job.chain, draft)
    else:
        ask_bucket(name, job.chain, limit, draft)
    walk(name, draft)
    if not _is_in_line(name, job.chain, draft):
        return True
    bucket = rows(draft.view, BUCKETS, [key])[0].bucket
    passes_ms = passes_at_ms(bucket, limit, draft.now_ms)
    # One that can never pass has left the line: see `ask_bucket`.
    assert passes_ms is not None
    _wait(key, passes_ms, draft)
    return False


def _is_in_line(name: JobName, before: Chain, draft: Draft) -> bool:
    chain = the_job(name, draft.view).chain
    return chain is not None and chain.place is Place.THROTTLED and chain.gate == before.gate


def _keep_or_forget(key: Key, row: BucketRow, draft: Draft) -> None:
    if row.bucket is None or row.bucket.expires_ms <= draft.now_ms:
        tenant, name, unique_key = map(str, key)
        draft.emit(BucketForgotten(tenant=tenant, name=name, unique_key=unique_key))
    else:
        _wait(key, max(row.bucket.expires_ms, draft.now_ms + LOOKED_AT_AFTER_MS), draft)


def _wait(key: Key, until_ms: int, draft: Draft) -> None:
    tenant, name, unique_key = map(str, key)
    draft.emit(BucketWaited(tenant=tenant, name=name, unique_key=unique_key, until_ms=until_ms))
