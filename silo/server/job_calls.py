"""The calls of those who have work done: jobs are enqueued, looked at, cancelled, restarted, deleted, imported."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from silo.errors import SiloError, WrongState
from silo.pb import silo_pb2 as pb
from silo.server import convert
from silo.server.callers import client
from silo.server.interceptors import Context
from silo.server.shards import Shards
from silo.server.statuses import details_of, in_words, status_of
from silo.shard.cancel import cancel
from silo.shard.delete import delete
from silo.shard.draft import Caller
from silo.shard.enqueue import enqueue
from silo.shard.expedite import expedite
from silo.shard.holders import drop_tenant_holders
from silo.shard.import_jobs import Imported, ImportJob, NotImported, import_jobs, refuse_running
from silo.shard.jobs import JobName
from silo.shard.reading import GetJob, get_job, get_result
from silo.shard.restart import restart
from silo.shard.shard import Shard

IMPORTS_PER_COMMAND_MAX = 200
"""A command holds up all others of its shard while it is decided, so a large import is done in pieces."""


class JobCalls:
    """Mixed into the service, which has the shards."""

    shards: Shards

    async def Enqueue(self, request: pb.EnqueueRequest, context: Context) -> pb.EnqueueResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        job = convert.new_job(request, tenant)
        caller = client("Enqueue", context)
        job_id = await shard.execute(enqueue, job, caller=caller, size=request.ByteSize())
        return pb.EnqueueResponse(id=job_id)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        query = GetJob(name=JobName(tenant, request.id), include_attempts=request.include_attempts)
        job = await shard.execute(get_job, query)
        return convert.job_response(request.id, job)

    async def GetJobResult(
        self, request: pb.GetJobResultRequest, context: Context
    ) -> pb.GetJobResultResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        result = await shard.execute(get_result, JobName(tenant, request.id))
        return convert.result_response(request.id, result)

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        await shard.execute(delete, JobName(tenant, request.id), caller=client("DeleteJob", context))
        return pb.DeleteJobResponse()

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        name = JobName(tenant, request.id)
        cancelled_ms = await shard.execute(cancel, name, caller=client("CancelJob", context))
        self.shards.cancellations.tell(shard.shard_id, name, cancelled_ms)
        return pb.CancelJobResponse()

    async def RestartJob(self, request: pb.RestartJobRequest, context: Context) -> pb.RestartJobResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        await shard.execute(restart, JobName(tenant, request.id), caller=client("RestartJob", context))
        return pb.RestartJobResponse()

    async def ExpediteJob(self, request: pb.ExpediteJobRequest, context: Context) -> pb.ExpediteJobResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        await shard.execute(expedite, JobName(tenant, request.id), caller=client("ExpediteJob", context))
        return pb.ExpediteJobResponse()

    async def DropTenantHolders(
        self, request: pb.DropTenantHoldersRequest, context: Context
    ) -> pb.DropTenantHoldersResponse:
        shard, tenant = self.shards.for_tenant(request.shard, request.tenant)
        dropped = await drop_tenant_holders(shard, tenant, client("DropTenantHolders", context))
        return pb.DropTenantHoldersResponse(holders_dropped=dropped)

    async def ImportJobs(self, request: pb.ImportJobsRequest, context: Context) -> pb.ImportJobsResponse:
        batch = ImportBatch(self.shards, request.jobs)
        await batch.refuse_running()
        await batch.take_in(client("ImportJobs", context))
        return pb.ImportJobsResponse(results=batch.results)


@attrs.frozen
class _Entry:
    """One job of an import that is well-formed, its place in the request, and its size there in bytes."""

    place: int
    job: ImportJob
    size: int


class ImportBatch:
    """One call of ImportJobs.  An entry that fails takes no other with it; its error stands in its place in `results`."""

    def __init__(self, shards: Shards, requests: Sequence[pb.ImportJobRequest]) -> None:
        self.results = [pb.ImportJobResult(id=request.id) for request in requests]
        self._groups: dict[tuple[str, str], tuple[Shard, list[_Entry]]] = {}
        for place, request in enumerate(requests):
            try:
                shard, tenant = shards.for_tenant(request.shard, request.tenant)
                job = convert.imported_job(request, tenant, now_ms=shard.now_ms())
            except SiloError as error:
                self._fail(place, in_words(status_of(error), details_of(error)))
            else:
                group = self._groups.setdefault((shard.shard_id, tenant), (shard, []))
                group[1].append(_Entry(place, job, request.ByteSize()))

    async def refuse_running(self) -> None:
        """Refuse the whole call, before anything is written, if one of its jobs is running.  Raises WrongState."""
        for shard, entries in self._groups.values():
            for piece in _pieces(entries):
                try:
                    jobs = [entry.job for entry in piece]
                    await shard.execute(refuse_running, jobs, size=_size(piece))
                except WrongState:
                    raise
                except SiloError:
                    # The group will fail by itself, and leave the others alone.
                    break

    async def take_in(self, caller: Caller) -> None:
        """Import what is well-formed, group by group, in the order of the request within a group.

        A job that has begun to run since `refuse_running` fails by itself: others of the call are imported already.
        """
        for shard, entries in self._groups.values():
            for piece in _pieces(entries):
                await self._take_in(shard, piece, caller)

    async def _take_in(self, shard: Shard, piece: Sequence[_Entry], caller: Caller) -> None:
        jobs = [entry.job for entry in piece]
        try:
            outcomes = await shard.execute(import_jobs, jobs, caller=caller, size=_size(piece))
        except SiloError as error:
            for entry in piece:
                self.results[entry.place].id = ""
                self._fail(entry.place, in_words(status_of(error), details_of(error)))
            return
        for entry, outcome in zip(piece, outcomes, strict=True):
            match outcome:
                case Imported(status):
                    self.results[entry.place].success = True
                    self.results[entry.place].status = convert.JOB_STATUSES[status]
                case NotImported(error_text):
                    self._fail(entry.place, error_text)

    def _fail(self, place: int, text: str) -> None:
        self.results[place].error = text
        self.results[place].status = pb.JOB_STATUS_FAILED


def _size(entries: Sequence[_Entry]) -> int:
    return sum(entry.size for entry in entries)


def _pieces(entries: Sequence[_Entry]) -> list[Sequence[_Entry]]:
    size = IMPORTS_PER_COMMAND_MAX
    return [entries[first : first + size] for first in range(0, len(entries), size)]
