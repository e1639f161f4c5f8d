"""Rate limits: a chain asks whether it may pass, of a bucket inside the shard or of an outside service.  See `gates.py`."""

from __future__ import annotations

import attrs

from silo.domain.jobs import JobStatus
from silo.domain.limits import RateLimit
from silo.events.catalogue import JobFailed, RateCheckDue, RateChecked, RateWaited
from silo.projections.jobs import JOBS, Chain, Place
from silo.projections.rates import BUCKET_LINES, BUCKETS, BucketRow, bucket_key, line_key
from silo.projections.view import View
from silo.ratelimit.buckets import Answer, ask, error_retry_ms, is_exhausted, passes_at_ms, retry_ms
from silo.shard.draft import Draft
from silo.shard.jobs import JobName

RATE_LIMIT_EXHAUSTED = "RATE_LIMIT_EXHAUSTED"


def ask_bucket(name: JobName, chain: Chain, limit: RateLimit, draft: Draft) -> None:
    """Ask the bucket of the rate limit that a chain has come to, and decide what follows."""
    row = draft.view.get(BUCKETS, bucket_key(name.tenant, limit))
    is_patient = not limit.retry.max_retries
    if is_patient and row is not None and _are_others_before(name.tenant, limit, chain, row, draft.view):
        _wait_for_bucket(name, chain, row.timer_ms, draft)
        return
    answer = ask(row.bucket if row is not None else None, limit, draft.now_ms)
    passes_ms = passes_at_ms(answer.bucket, limit, draft.now_ms)
    if answer.allowed:
        _checked(name, chain, answer, None, draft)
    elif is_exhausted(limit.retry, chain.refused):
        _checked(name, chain, answer, None, draft)
        _give_up(name, draft)
    elif is_patient and passes_ms is not None:
        if chain.place is not Place.THROTTLED:
            _checked(name, chain, answer, None, draft)
            _wait_for_bucket(name, chain, passes_ms, draft)
    else:
        _checked(name, chain, answer, _again_ms(limit, chain, answer.reset_ms, draft), draft)


def _are_others_before(tenant: str, limit: RateLimit, chain: Chain, row: BucketRow, view: View) -> bool:
    """Whether somebody stands in the line of a bucket before a chain that is in it, or comes to it."""
    if not row.waiting:
        return False
    ((first, _),) = view.first(BUCKET_LINES, bucket_key(tenant, limit), 1)
    return first < line_key(tenant, limit, chain)


def _checked(name: JobName, chain: Chain, answer: Answer, again_ms: int | None, draft: Draft) -> None:
    draft.emit(
        RateChecked(
            tenant=name.tenant,
            job_id=name.job_id,
            task_id=chain.task_id,
            gate=chain.gate,
            allowed=answer.allowed,
            remaining=answer.remaining,
            reset_ms=answer.reset_ms,
            error=answer.reason,
            retry_ms=again_ms,
            is_local=True,
            bucket=answer.bucket,
        )
    )


def _wait_for_bucket(name: JobName, chain: Chain, passes_ms: int, draft: Draft) -> None:
    draft.emit(
        RateWaited(
            tenant=name.tenant,
            job_id=name.job_id,
            task_id=chain.task_id,
            gate=chain.gate,
            passes_ms=passes_ms,
        )
    )


def _again_ms(limit: RateLimit, chain: Chain, reset_ms: int, draft: Draft) -> int:
    """When a check that was over the limit is tried again: later than now, or the clock would stand still over it."""
    again_ms = retry_ms(limit.retry, tries=chain.refused, reset_ms=reset_ms, now_ms=draft.now_ms)
    return max(again_ms, draft.now_ms + 1)


def _give_up(name: JobName, draft: Draft) -> None:
    forget_ms = draft.rules.forget_ms(JobStatus.FAILED, draft.now_ms)
    draft.emit(
        JobFailed(
            tenant=name.tenant, job_id=name.job_id, error_code=RATE_LIMIT_EXHAUSTED, forget_ms=forget_ms
        )
    )


# --- rates, decided by an outside service --------------------------------------------------------------------------------


def ask_limiter(name: JobName, chain: Chain, draft: Draft) -> None:
    """Have the outside service asked about the gate that a chain has come to."""
    draft.emit(RateCheckDue(tenant=name.tenant, job_id=name.job_id, task_id=chain.task_id, gate=chain.gate))


@attrs.frozen(kw_only=True)
class Question:
    """What the outside service is to be asked, and for whom."""

    name: JobName
    task_id: str
    gate: int
    tries: int
    limit: RateLimit


@attrs.frozen(kw_only=True)
class Reply:
    """What it said.  `error` says why it said nothing, else it is empty."""

    question: Question
    allowed: bool = False
    remaining: int = 0
    reset_ms: int = 0
    error: str = ""


def note_reply(reply: Reply, draft: Draft) -> bool:
    """Let the chain on, put its check off, or give the job up.  Returns whether the chain goes on.

    A reply to a question that is not open changes nothing; the job may be gone by then.
    """
    question, limit = reply.question, reply.question.limit
    job = draft.view.get(JOBS, (question.name.tenant, question.name.job_id))
    chain = job.chain if job is not None else None
    # SILO-RATE-1: an answer counts for the chain, the gate and the try that it was asked for.
    if chain is None or chain.place is not Place.CHECKING or not _is_about(question, chain):
        return False
    exhausted = not reply.allowed and not reply.error and is_exhausted(limit.retry, chain.refused)
    again_ms = None
    if reply.error:
        again_ms = max(error_retry_ms(limit.retry, tries=chain.tries, now_ms=draft.now_ms), draft.now_ms + 1)
    elif not reply.allowed and not exhausted:
        again_ms = _again_ms(limit, chain, reply.reset_ms, draft)
    draft.emit(
        RateChecked(
            tenant=question.name.tenant,
            job_id=question.name.job_id,
            task_id=chain.task_id,
            gate=chain.gate,
            allowed=reply.allowed,
            remaining=reply.remaining,
            reset_ms=reply.reset_ms,
            error=reply.error,
            retry_ms=again_ms,
            is_local=False,
            bucket=None,
        )
    )
    if exhausted:
        _give_up(question.name, draft)
    return reply.allowed


def _is_about(question: Question, chain: Chain) -> bool:
    return (question.task_id, question.gate, question.tries) == (chain.task_id, chain.gate, chain.tries)
