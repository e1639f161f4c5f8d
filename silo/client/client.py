"""A client of a broker, async.  `Client` in sync.py is the same for programs without an event loop.

enqueuing.py    gathers what is enqueued within a millisecond into one call
calls.py        sends each call to the node that has its shard, and again while nobody can say what became of it
connection.py   the channels
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from silo.client.calls import Calls, Place
from silo.client.connection import Options, Tls, addresses_of
from silo.client.enqueuing import Enqueuer
from silo.client.errors import (
    AlreadyCancelled,
    BrokerUnavailable,
    ClientError,
    Code,
    JobCancelled,
    JobFailed,
    NotFinished,
    TimedOut,
)
from silo.client.payloads import Codec, MessagePack
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
    parameter,
)
from silo.domain.ids import Ids
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb

if TYPE_CHECKING:
    import pyarrow as pa

MESSAGE_PACK = MessagePack()

TIMEOUT_S = 30.0
TRY_S = 10.0
GATHER_S = 0.001

LOOK_AGAIN_S = (0.01, 1.0)
"""How soon `Job.wait` looks again, at first and at last."""


@attrs.frozen
class _Loop:
    """What belongs to one event loop, as gRPC's channels do."""

    calls: Calls
    enqueuer: Enqueuer


class AsyncClient:
    """A connection to a broker.  Safe for many threads and event loops: each loop has channels of its own.

    Args:
        address: `host:port` of a node, or several, as a list or with commas; any of them tells of all others.  None: what
            the environment variable SILO_ADDRESS says, or 127.0.0.1:7450.
        tenant: whose jobs these are, unless a call says otherwise; None for a broker without tenants.
        token: for a broker that wants one.
        tls: for a broker behind TLS.  True: with the certificates that this system trusts.
        actor: the name that the events carry which this client causes.
        codec: how payloads, results and error data become bytes.
        timeout_s: how long a call may take with all its tries, in seconds.
        try_s: how long one try of a call may take.
        gather_s: how long an enqueue waits for others to go with it, in seconds; 0: not at all.
        keepalive_s: how often a connection without traffic is tried, in seconds.
        channel_options: of gRPC, beyond ours.

    Raises:
        ValueError: an address is none.

    Every method that calls the broker raises `ClientError`.
    """

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        *,
        tenant: str | None = None,
        token: str | None = None,
        tls: Tls | bool = False,
        actor: str | None = None,
        codec: Codec = MESSAGE_PACK,
        timeout_s: float = TIMEOUT_S,
        try_s: float = TRY_S,
        gather_s: float = GATHER_S,
        keepalive_s: float = 20.0,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.options = Options(
            addresses=addresses_of(address),
            token=token,
            tls=Tls() if tls is True else tls or None,
            actor=actor,
            keepalive_s=keepalive_s,
            channel_options=tuple(channel_options),
        )
        self.tenant = tenant
        self.codec = codec
        self._timeout_s = timeout_s
        self._try_s = try_s
        self._gather_s = gather_s
        self._ids = Ids(os.urandom)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what has gathered, and close the connections of this event loop."""
        mine = self._loops.pop(asyncio.get_running_loop(), None)
        if mine is not None:
            await mine.enqueuer.close()
            await mine.calls.close()

    @property
    def calls(self) -> Calls:
        """For calls that have no method here: any of any service, routed and sent again as all others."""
        return self._here.calls

    @property
    def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            calls = Calls(self.options, timeout_s=self._timeout_s, try_s=self._try_s)
            here = self._loops[loop] = _Loop(calls, Enqueuer(calls, gather_s=self._gather_s))
        return here

    # --- jobs ------------------------------------------------------------------------------------------------------------

    async def enqueue(
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
        """Hand over a job.  When this returns, the job is durable.

        Calls made within a millisecond of each other go to the broker together; each is answered by itself.

        Args:
            task_group: which workers do it; at most 64 characters.
            payload: what they get; whatever the codec takes.
            id: free text, unique for the tenant; None: a new one.
            priority: 0, the most urgent, to 99.
            start_at, delay_s: not before this time, or so many seconds from now.
            retry: what happens when an attempt fails; None: the job fails.
            limits: what it has to wait for before it runs, one after the other.
            metadata: up to 16 pairs of texts, by which jobs can be found in SQL.

        Raises:
            JobExists: the tenant has a job with this id.
            InvalidRequest: the broker's text says what is wrong.
        """
        job = NewJob(
            task_group=task_group,
            payload=payload,
            id=id,
            tenant=tenant,
            priority=priority,
            start_at=start_at,
            delay_s=delay_s,
            retry=retry,
            limits=limits,
            metadata=metadata or {},
        )
        request = self._request(job)
        job_id = await self._here.enqueuer.enqueue(request, timeout_s=timeout_s)
        return Job(self, job_id, request.tenant or None)

    async def enqueue_many(
        self, jobs: Iterable[NewJob], *, timeout_s: float | None = None
    ) -> list[Job | ClientError]:
        """Hand over many jobs, in as few calls as they fit into.

        Returns:
            For each, in the order of `jobs`, the job or why it was not taken in: one that is refused takes no other with it.

        Raises:
            ClientError: a whole call failed; some of the jobs may be in.  With ids of their own they can be sent again.
        """
        requests = [self._request(job) for job in jobs]
        answers = await self._here.enqueuer.enqueue_all(requests, timeout_s=timeout_s)
        return [
            answer if isinstance(answer, ClientError) else Job(self, answer, request.tenant or None)
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _request(self, job: NewJob) -> pb.EnqueueRequest:
        now_ms = time.time_ns() // 1_000_000
        return attrs.evolve(job, metadata=with_context(job.metadata)).message(
            self.codec,
            # With an id of its own a call that is sent twice makes one job, not two.
            job_id=job.id if job.id is not None else self._ids.uuid7(now_ms),
            tenant=self._tenant(job.tenant),
            now_ms=now_ms,
        )

    def job(self, id: str, *, tenant: str | None = None) -> Job:  # noqa: A002 - as above
        """A handle of a job that exists already, or not: nobody is asked."""
        return Job(self, id, self._tenant(tenant))

    def _tenant(self, tenant: str | None) -> str | None:
        return tenant if tenant is not None else self.tenant

    # --- SQL -------------------------------------------------------------------------------------------------------------

    async def query(
        self,
        sql: str,
        *parameters: Parameter,
        tenant: str | None = None,
        shard: str | None = None,
        timeout_s: float | None = None,
    ) -> Rows:
        """Run a statement in the tenant's shard, or in another one.  docs/sql.md has the tables.

        Args:
            parameters: for $1, $2 and so on.
            shard: a shard's id, see `shards`; None: the tenant's.
        """
        request = pb.QueryRequest(
            sql=sql, tenant=self._tenant(tenant), parameters=[parameter(value) for value in parameters]
        )
        reply = await self.calls.call(
            "Silo", "Query", request, self._place(tenant, shard), timeout_s=timeout_s, retry_timeouts=False
        )
        return Rows(
            columns=tuple(column.name for column in reply.columns),
            rows=tuple(MESSAGE_PACK.decode(row.msgpack) for row in reply.rows),
        )

    async def query_arrow(
        self,
        sql: str,
        *parameters: Parameter,
        tenant: str | None = None,
        shard: str | None = None,
        timeout_s: float | None = None,
    ) -> pa.Table:
        """The same as `query`, as an Arrow table: for large results, and for pandas and Polars."""
        # Only here, as it takes half a second.
        import pyarrow as pa  # noqa: PLC0415

        request = pb.QueryArrowRequest(
            sql=sql, tenant=self._tenant(tenant), parameters=[parameter(value) for value in parameters]
        )
        place = self._place(tenant, shard)
        # Each message is a stream of its own, the first one with the schema though it may have no rows.
        tables = [
            pa.ipc.open_stream(message.ipc_data).read_all()
            async for message in self.calls.stream("Silo", "QueryArrow", request, place, timeout_s=timeout_s)
        ]
        return pa.concat_tables(tables)

    def _place(self, tenant: str | None, shard: str | None) -> Place:
        return Place(tenant=self._tenant(tenant), shard_id=shard)

    async def shards(self) -> tuple[Shard, ...]:
        """All shards, and where they are."""
        return (await self.calls.topology()).shards

    # --- the log ---------------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        *,
        from_seq: int | None = None,
        cursor: str = "",
        types: Sequence[str] = (),
        job_id: str | None = None,
        tenant: str | None = None,
        shard: str | None = None,
    ) -> AsyncIterator[Event]:
        """What happens in a shard, as it happens.

        Args:
            from_seq: where to begin: first comes what is there already; None: behind the cursor, or only what comes from
                now on.
            cursor: a name under which the broker keeps the place.  It is moved when you come back for more, so after a crash
                the last few events come again.
            types: only events of these types, as docs/events.md names them.
            job_id: only those of one job.
        """
        tenant = self._tenant(tenant)
        event_filter = ext.EventFilter(tenant=tenant, job_id=job_id, types=types)
        request = ext.SubscribeRequest(from_seq=from_seq, filter=event_filter, cursor=cursor)
        place, is_first = self._place(tenant, shard), True
        async for batch in self.calls.stream("History", "Subscribe", request, place):
            for event in batch.events:
                yield Event.of(event)
            # The first batch says where this begins.  To move for the sake of a move would go on for ever.
            if cursor and (is_first or any(event.type != "CursorMoved" for event in batch.events)):
                move = ext.MoveCursorRequest(name=cursor, seq=batch.seq)
                await self.calls.call("History", "MoveCursor", move, place)
            is_first = False


class Job:
    """One job of a broker.

    Attributes:
        id: its id.
        tenant: whose it is; None if the broker has no tenants.
    """

    def __init__(self, client: AsyncClient, id: str, tenant: str | None) -> None:  # noqa: A002 - as above
        self.id = id
        self.tenant = tenant
        self._client = client

    def __repr__(self) -> str:
        return f"Job({self.id!r})" if self.tenant is None else f"Job({self.id!r}, tenant={self.tenant!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (self.id, self.tenant) == (other.id, other.tenant)

    def __hash__(self) -> int:
        return hash((self.id, self.tenant))

    async def _call(
        self,
        service: str,
        rpc: str,
        request: Any,
        *,
        means_done: Callable[[ClientError], bool] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        request.id = self.id
        if self.tenant is not None:
            request.tenant = self.tenant
        place = Place(self.tenant)
        return await self._client.calls.call(
            service, rpc, request, place, means_done=means_done, timeout_s=timeout_s
        )

    async def get(self, *, attempts: bool = False) -> JobState:
        """All that the broker knows of it; with `attempts` each of those, too.  Raises JobNotFound."""
        reply = await self._call("Silo", "GetJob", pb.GetJobRequest(include_attempts=attempts))
        return JobState.of(reply, self._client.codec)

    async def status(self) -> Status:
        """Where it stands.  Raises JobNotFound."""
        return (await self.get()).status

    async def result(self) -> Any:
        """What it returned.

        Raises:
            NotFinished: it has not ended.
            JobFailed: it has failed for good.
            JobCancelled: it was cancelled.
            JobNotFound: there is no such job.
        """
        reply = await self._call("Silo", "GetJobResult", pb.GetJobResultRequest())
        return self._ended(reply)

    def _ended(self, reply: pb.GetJobResultResponse) -> Any:
        codec = self._client.codec
        match reply.WhichOneof("result"):
            case "success_data":
                return codec.decode(reply.success_data.msgpack)
            case "failure":
                raise JobFailed(
                    self.id, reply.failure.error_code, codec.decode(reply.failure.error_data.msgpack)
                )
            case _:
                raise JobCancelled(self.id)

    async def wait(self, timeout_s: float | None = None) -> Any:
        """Wait until it has ended, and return what it returned.

        A broker that is away meanwhile is waited for as well, as long as a call may take.

        Args:
            timeout_s: how long to wait, in seconds; None: as long as it takes.

        Raises:
            TimedOut: it has not ended in time; it goes on.
            JobFailed, JobCancelled, JobNotFound: as `result` does.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s if timeout_s is not None else None
        pause_s, longest_s = LOOK_AGAIN_S
        while True:
            left_s = deadline - loop.time() if deadline is not None else None
            try:
                request = pb.GetJobResultRequest()
                within_s = max(left_s, 0.001) if left_s is not None and left_s < TIMEOUT_S else None
                reply = await self._call("Silo", "GetJobResult", request, timeout_s=within_s)
            except NotFinished:
                pass
            except BrokerUnavailable:
                if deadline is None or loop.time() < deadline:
                    raise
            else:
                return self._ended(reply)
            if deadline is not None and loop.time() + pause_s > deadline:
                pause_s = max(deadline - loop.time(), 0)
                if not pause_s:
                    text = f"job {self.id} has not ended within {timeout_s:g} s"
                    raise TimedOut(text, Code.DEADLINE_EXCEEDED)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1) if deadline is None else pause_s)
            pause_s = min(max(pause_s, LOOK_AGAIN_S[0]) * 1.5, longest_s)

    async def cancel(self) -> None:
        """Ask for its end: at once if nobody has it, else by its worker.

        Raises:
            WrongState: it has ended.
            AlreadyCancelled: it was asked before.
        """
        await self._call(
            "Silo",
            "CancelJob",
            pb.CancelJobRequest(),
            means_done=lambda error: isinstance(error, AlreadyCancelled),
        )

    async def restart(self) -> None:
        """Let it run again from its first attempt.  Raises WrongState unless it has failed or was cancelled."""
        await self._call("Silo", "RestartJob", pb.RestartJobRequest())

    async def expedite(self) -> None:
        """Let it start now instead of at its time.  Raises WrongState if nothing of it waits for a time."""
        await self._call("Silo", "ExpediteJob", pb.ExpediteJobRequest())

    async def delete(self) -> None:
        """Delete it with all that it left.  Raises JobInProgress if it has not ended."""
        await self._call("Silo", "DeleteJob", pb.DeleteJobRequest())

    async def history(self, most: int | None = None) -> list[Event]:
        """What happened to it, the oldest first; with `most` only the newest so many."""
        request = ext.GetJobHistoryRequest(most=most or 0)
        return [Event.of(event) for event in (await self._call("History", "GetJobHistory", request)).events]

    async def explain(self) -> Explanation:
        """Why it is not running: where it stands, behind whom, what has to happen next."""
        return Explanation.of(await self._call("Inspection", "ExplainJob", ext.ExplainJobRequest()))
