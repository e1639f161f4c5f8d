"""What a server was asked and what it acknowledged, and whether what it says now agrees with that.

A call whose reply was lost may have been carried out or not: what was *asked* may be found, what was *acknowledged* must be.
"""

from __future__ import annotations

from typing import Any

import attrs

from silo.pb import silo_pb2 as pb

TERMINAL = {pb.JOB_STATUS_SUCCEEDED, pb.JOB_STATUS_FAILED, pb.JOB_STATUS_CANCELLED}

Outcome = tuple[str, bytes]
"""`success` with its result, `failure` with its error data, or `cancelled` with nothing."""


@attrs.define
class Task:
    """One attempt that was leased, as far as its worker knows."""

    id: str
    shard: str
    tenant: str
    job_id: str
    attempt: int
    outcome: Outcome | None = None
    """What was reported; acknowledged or not."""
    acknowledged: bool = False


@attrs.define
class Job:
    tenant: str
    id: str
    shard: str
    payload: bytes
    enqueued: bool = False
    """Acknowledged; until then it may be there or not."""
    cancel_asked: bool = False
    cancelled: bool = False
    tasks: list[Task] = attrs.Factory(list)
    ended: bool = False
    """Acknowledged to have ended, so that nobody will lease it again."""


@attrs.define
class Ledger:
    """Everything that was asked on one data directory, through all restarts."""

    jobs: dict[tuple[str, str], Job] = attrs.Factory(dict)
    acknowledged: int = 0

    def new_job(self, job: Job) -> Job:
        self.jobs[job.tenant, job.id] = job
        return job

    def leased(self, message: Any) -> Task:
        """A worker has been given a task: of a job that was asked for, with a payload that was sent, and never twice."""
        job = self.jobs[message.tenant_id, message.job_id]
        assert message.payload.msgpack == job.payload
        assert message.id not in {task.id for task in job.tasks}, f"{message.id} was leased twice"
        known = {task.attempt for task in job.tasks}
        assert message.attempt_number > max(known, default=0), (
            f"{job} has attempt {message.attempt_number} again"
        )
        assert not job.ended, f"{job} has ended and is leased again"
        task = Task(message.id, message.shard, message.tenant_id, message.job_id, message.attempt_number)
        job.tasks.append(task)
        return task

    def open_tasks(self) -> list[Task]:
        """Tasks whose worker has no answer to its report yet."""
        return [
            task
            for job in self.jobs.values()
            for task in job.tasks
            if not task.acknowledged and not job.ended
        ]

    def check(self, job: Job, found: Any) -> None:
        """Compare with the server's answer to GetJob, attempts included; None if there is no such job."""
        if found is None:
            assert not job.enqueued, f"{job} was acknowledged and is lost"
            assert not job.tasks, f"{job} was leased and is lost"
            return
        told = f"\nasked: {job}\nfound: {found}"
        assert found.payload.msgpack == job.payload, told
        self._check_attempts(job, found, told)
        self._check_status(job, found, told)

    def _check_attempts(self, job: Job, found: Any, told: str) -> None:
        attempts = {attempt.attempt_number: attempt for attempt in found.attempts}
        assert list(attempts) == list(range(1, len(found.attempts) + 1)), told
        assert len({attempt.task_id for attempt in found.attempts}) == len(attempts), told
        live = [attempt for attempt in found.attempts if attempt.status == pb.ATTEMPT_STATUS_RUNNING]
        assert len(live) == (found.status == pb.JOB_STATUS_RUNNING), f"live leases: {len(live)}{told}"
        assert not live or live[0].attempt_number == len(attempts), told

        tasks = {task.id: task for task in job.tasks}
        for task in job.tasks:
            assert task.attempt in attempts, told
            assert attempts[task.attempt].task_id == task.id, told
        for attempt in found.attempts:
            self._check_attempt(attempt, tasks.get(attempt.task_id), told)

    def _check_attempt(self, attempt: Any, task: Task | None, told: str) -> None:
        """`task` is None for an attempt whose lease was never told: it runs until its lease expires."""
        outcome = task.outcome if task is not None else None
        match attempt.status:
            case pb.ATTEMPT_STATUS_RUNNING:
                assert task is None or not task.acknowledged, f"a report was acknowledged and is lost{told}"
            case pb.ATTEMPT_STATUS_SUCCEEDED:
                assert outcome == ("success", attempt.result.msgpack), told
            case pb.ATTEMPT_STATUS_FAILED if attempt.error_code == "WORKER_CRASHED":
                assert task is None or not task.acknowledged, told
            case pb.ATTEMPT_STATUS_FAILED:
                assert outcome == ("failure", attempt.error_data.msgpack), told
            case pb.ATTEMPT_STATUS_CANCELLED:
                # By its worker, or as its lease expired after CancelJob.
                assert outcome == ("cancelled", b"") or task is None or not task.acknowledged, told

    def _check_status(self, job: Job, found: Any, told: str) -> None:
        last = found.attempts[-1] if found.attempts else None
        match found.status:
            case pb.JOB_STATUS_SUCCEEDED:
                assert last.status == pb.ATTEMPT_STATUS_SUCCEEDED, told
                assert found.result.msgpack == last.result.msgpack, told
            case pb.JOB_STATUS_FAILED:
                assert last.status == pb.ATTEMPT_STATUS_FAILED, told
                assert not job.cancelled, told
            case pb.JOB_STATUS_CANCELLED:
                given_up = last is not None and last.status == pb.ATTEMPT_STATUS_CANCELLED
                assert job.cancel_asked or given_up, told
            case pb.JOB_STATUS_SCHEDULED:
                assert not job.cancelled, f"a cancellation was acknowledged and is lost{told}"
                assert last is None or last.status == pb.ATTEMPT_STATUS_FAILED, told
        for task in job.tasks:
            if task.acknowledged and task.outcome is not None and task.outcome[0] != "failure":
                assert found.status in TERMINAL, f"the end was acknowledged and is lost{told}"
