"""The client for programs without an event loop: the same calls, which return when they are answered.

An event loop in a thread of its own does the work, for all threads that use the client.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from silo.client import client as face
from silo.client.connection import Tls
from silo.client.errors import ClientError
from silo.client.payloads import Codec
from silo.client.routing import Shard
from silo.client.tracing import with_context
from silo.client.values import (
    PRIORITY,
    Event,
    Explanation,
    JobState,
    Limit,
    NewJob,
    Parameter,
    Retry,
    Rows,
    Status,
)

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own.  It starts with the first call, and ends with `close` or the program."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait for it.  An interrupt (Ctrl-C) cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread.  Safe to call twice."""
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class Client:
    """A connection to a broker, for any number of threads.

    Arguments and errors are those of `AsyncClient`.
    """

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        *,
        tenant: str | None = None,
        token: str | None = None,
        tls: Tls | bool = False,
        actor: str | None = None,
        codec: Codec = face.MESSAGE_PACK,
        timeout_s: float = face.TIMEOUT_S,
        try_s: float = face.TRY_S,
        gather_s: float = face.GATHER_S,
        keepalive_s: float = 20.0,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._client = face.AsyncClient(
            address,
            tenant=tenant,
            token=token,
            tls=tls,
            actor=actor,
            codec=codec,
            timeout_s=timeout_s,
            try_s=try_s,
            gather_s=gather_s,
            keepalive_s=keepalive_s,
            channel_options=channel_options,
        )
        self._thread = LoopThread("silo client")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the thread.  Safe to call twice."""
        self._thread.run(self._client.close())
        self._thread.close()

    def enqueue(
        self,
        task_group: str,
        payload: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - it is the job's id, here as everywhere
        tenant: str | None = None,
        priority: int = PRIORITY,
        start_at: datetime | None = None,
        delay_s: float | None = None,
        retry: Retry | None = None,
        limits: Sequence[Limit] = (),
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Job:
        """See `AsyncClient.enqueue`."""
        # Here, not in the other thread: it takes the context along in which the caller is.
        made = self._client.enqueue(
            task_group,
            payload,
            id=id,
            tenant=tenant,
            priority=priority,
            start_at=start_at,
            delay_s=delay_s,
            retry=retry,
            limits=limits,
            metadata=with_context(metadata or {}),
            timeout_s=timeout_s,
        )
        return self._job(self._thread.run(made))

    def enqueue_many(
        self, jobs: Iterable[NewJob], *, timeout_s: float | None = None
    ) -> list[Job | ClientError]:
        """See `AsyncClient.enqueue_many`."""
        made = self._thread.run(self._client.enqueue_many(jobs, timeout_s=timeout_s))
        return [one if isinstance(one, ClientError) else self._job(one) for one in made]

    def job(self, id: str, *, tenant: str | None = None) -> Job:  # noqa: A002 - as above
        """See `AsyncClient.job`."""
        return self._job(self._client.job(id, tenant=tenant))

    def _job(self, job: face.Job) -> Job:
        return Job(job, self._thread)

    def query(
        self,
        sql: str,
        *parameters: Parameter,
        tenant: str | None = None,
        shard: str | None = None,
        timeout_s: float | None = None,
    ) -> Rows:
        """See `AsyncClient.query`."""
        return self._thread.run(
            self._client.query(sql, *parameters, tenant=tenant, shard=shard, timeout_s=timeout_s)
        )

    def query_arrow(
        self,
        sql: str,
        *parameters: Parameter,
        tenant: str | None = None,
        shard: str | None = None,
        timeout_s: float | None = None,
    ) -> pa.Table:
        """See `AsyncClient.query_arrow`."""
        return self._thread.run(
            self._client.query_arrow(sql, *parameters, tenant=tenant, shard=shard, timeout_s=timeout_s)
        )

    def shards(self) -> tuple[Shard, ...]:
        """See `AsyncClient.shards`."""
        return self._thread.run(self._client.shards())

    def subscribe(
        self,
        *,
        from_seq: int | None = None,
        cursor: str = "",
        types: Sequence[str] = (),
        job_id: str | None = None,
        tenant: str | None = None,
        shard: str | None = None,
    ) -> Iterator[Event]:
        """See `AsyncClient.subscribe`.  Leaving the loop over it ends the call."""
        events = self._client.subscribe(
            from_seq=from_seq, cursor=cursor, types=types, job_id=job_id, tenant=tenant, shard=shard
        )
        try:
            while (event := self._thread.run(_next(events))) is not None:
                yield event
        finally:
            self._thread.run(_end(events))


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


async def _end(events: Any) -> None:
    await events.aclose()


class Job:
    """One job of a broker; see `silo.client.client.Job`, whose methods these are.

    Attributes:
        id: its id.
        tenant: whose it is; None if the broker has no tenants.
    """

    def __init__(self, job: face.Job, thread: LoopThread) -> None:
        self.id = job.id
        self.tenant = job.tenant
        self._job = job
        self._thread = thread

    def __repr__(self) -> str:
        return repr(self._job)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self._job == other._job

    def __hash__(self) -> int:
        return hash(self._job)

    def get(self, *, attempts: bool = False) -> JobState:
        """All that the broker knows of it; with `attempts` each of those, too."""
        return self._thread.run(self._job.get(attempts=attempts))

    def status(self) -> Status:
        """Where it stands."""
        return self._thread.run(self._job.status())

    def result(self) -> Any:
        """What it returned.  Raises NotFinished, JobFailed, JobCancelled."""
        return self._thread.run(self._job.result())

    def wait(self, timeout_s: float | None = None) -> Any:
        """Wait until it has ended, and return what it returned.  Raises TimedOut, JobFailed, JobCancelled."""
        return self._thread.run(self._job.wait(timeout_s))

    def cancel(self) -> None:
        """Ask for its end."""
        self._thread.run(self._job.cancel())

    def restart(self) -> None:
        """Let it run again from its first attempt."""
        self._thread.run(self._job.restart())

    def expedite(self) -> None:
        """Let it start now instead of at its time."""
        self._thread.run(self._job.expedite())

    def delete(self) -> None:
        """Delete it with all that it left."""
        self._thread.run(self._job.delete())

    def history(self, most: int | None = None) -> list[Event]:
        """What happened to it, the oldest first."""
        return self._thread.run(self._job.history(most))

    def explain(self) -> Explanation:
        """Why it is not running."""
        return self._thread.run(self._job.explain())
