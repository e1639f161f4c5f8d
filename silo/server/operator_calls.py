"""The calls of those who keep the cluster going: what is where, what is inside, and what can be done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from silo.domain.ids import parse_shard_id
from silo.errors import CallFailed, Denied, Invalid, NotFound, SiloError, WrongState
from silo.pb import silo_pb2 as pb
from silo.projections.counters import NOTHING, CountRow
from silo.server import cpu_profile
from silo.server.cluster_info import DEFAULT_RING, Cluster, cluster_info
from silo.server.interceptors import Context
from silo.server.shards import OpenShard, Shards
from silo.shard.reading import get_counts

CLEANUP_STATUS = "CompactionDone"
"""What a shard says of itself that no split has left anything in."""

NOT_WITH_THIS_BACKEND = "not supported by this backend"


class OperatorCalls:
    """Mixed into the service.

    Attributes:
        reset_shard: wipes one shard and opens it again; None if the server is not in dev mode.
        profiling: held while a profile is made.
    """

    shards: Shards
    cluster: Cluster
    reset_shard: Callable[[OpenShard], Awaitable[None]] | None
    profiling: asyncio.Lock

    # --- the cluster -----------------------------------------------------------------------------------------------------

    async def GetClusterInfo(
        self, request: pb.GetClusterInfoRequest, context: Context
    ) -> pb.GetClusterInfoResponse:
        return cluster_info(self.cluster)

    async def GetNodeInfo(self, request: pb.GetNodeInfoRequest, context: Context) -> pb.GetNodeInfoResponse:
        return pb.GetNodeInfoResponse(
            node_id=self.cluster.this.id,
            owned_shards=[await self._shard_info(shard) for shard in self.shards],
            placement_rings=self.cluster.this.rings,
        )

    async def _shard_info(self, opened: OpenShard) -> pb.OwnedShardInfo:
        counts = await _counts(opened)
        known = self.cluster.shards.find(opened.id)
        return pb.OwnedShardInfo(
            shard_id=opened.id,
            total_jobs=counts.total,
            completed_jobs=counts.completed,
            cleanup_status=CLEANUP_STATUS,
            created_at_ms=known.created_at_ms if known else 0,
        )

    async def ResetShards(self, request: pb.ResetShardsRequest, context: Context) -> pb.ResetShardsResponse:
        if self.reset_shard is None:
            raise Denied("ResetShards is only available in dev mode")
        shards = list(self.shards)
        for shard in shards:
            try:
                await self.reset_shard(shard)
            except SiloError as error:
                raise CallFailed(f"Failed to reset shard {shard.id}: {error}") from error
        return pb.ResetShardsResponse(shards_reset=len(shards))

    # --- splits and owners -----------------------------------------------------------------------------------------------

    async def RequestSplit(
        self, request: pb.RequestSplitRequest, context: Context
    ) -> pb.RequestSplitResponse:
        shard_id = parse_shard_id(request.shard_id)
        point = request.split_point
        if not point:
            raise Invalid("split_point is required")
        owner = self.cluster.owner_of(shard_id)
        if owner is None or owner.id != self.cluster.this.id:
            raise WrongState("this node does not own the shard")
        shard = self.cluster.shards.find(shard_id)
        if shard is None:
            raise NotFound("shard not found")
        # At the start of the range there is nothing to the left of the point.
        if not shard.range.contains(point) or point == shard.range.start:
            raise Invalid(
                f"invalid split: invalid split point: split point '{point}' is not within "
                f"shard range {shard.range}"
            )
        raise CallFailed(f"split request failed: {NOT_WITH_THIS_BACKEND}")

    async def GetSplitStatus(
        self, request: pb.GetSplitStatusRequest, context: Context
    ) -> pb.GetSplitStatusResponse:
        parse_shard_id(request.shard_id)
        return pb.GetSplitStatusResponse(in_progress=False)

    async def ConfigureShard(
        self, request: pb.ConfigureShardRequest, context: Context
    ) -> pb.ConfigureShardResponse:
        shard_id = parse_shard_id(request.shard)
        ring = "" if request.placement_ring == DEFAULT_RING else request.placement_ring
        if ring and not request.allow_unpopulated_ring:
            self._check_ring_has_members(ring)
        if self.cluster.shards.find(shard_id) is None:
            raise CallFailed(f"shard not found: {shard_id}")
        if ring:
            raise CallFailed(f"placement ring '{ring}' cannot be stored: {NOT_WITH_THIS_BACKEND}")
        # Every shard is in the default ring already, and stays there.
        return pb.ConfigureShardResponse(previous_ring="", current_ring="")

    def _check_ring_has_members(self, ring: str) -> None:
        advertised = sorted({name for node in self.cluster.members for name in node.rings or (DEFAULT_RING,)})
        if ring not in advertised:
            raise WrongState(
                f"placement ring '{ring}' has no members: no current cluster member advertises it "
                f"(members advertise: {', '.join(advertised) or '(none)'}), so the shard would have no eligible owner; "
                "set allow_unpopulated_ring to pin it anyway"
            )

    async def ForceReleaseShard(
        self, request: pb.ForceReleaseShardRequest, context: Context
    ) -> pb.ForceReleaseShardResponse:
        parse_shard_id(request.shard)
        # A cluster of one node has no leases of shards, so there is nothing to release.
        return pb.ForceReleaseShardResponse(released=True)

    # --- storage ---------------------------------------------------------------------------------------------------------

    async def CompactShard(
        self, request: pb.CompactShardRequest, context: Context
    ) -> pb.CompactShardResponse:
        shard = self.shards.open_here(request.shard)
        try:
            await shard.database.compact()
        except SiloError as error:
            raise CallFailed(f"compaction failed: {error}") from error
        return pb.CompactShardResponse(status=f"full compaction submitted for shard {request.shard}")

    async def FlushShard(self, request: pb.FlushShardRequest, context: Context) -> pb.FlushShardResponse:
        shard = self.shards.open_here(request.shard)
        try:
            # First the rows that are in memory alone, so that the flush has them.
            await shard.checkpoint()
            await shard.database.flush()
        except SiloError as error:
            raise CallFailed(f"flush failed: {error}") from error
        return pb.FlushShardResponse(status=f"flushed shard {request.shard}")

    async def GetShardStorageInfo(
        self, request: pb.GetShardStorageInfoRequest, context: Context
    ) -> pb.GetShardStorageInfoResponse:
        shard = self.shards.open_here(request.shard)
        try:
            info = await shard.database.storage_info()
        except SiloError as error:
            raise CallFailed(f"failed to read LSM state: {error}") from error
        return pb.GetShardStorageInfoResponse(
            l0_sst_count=info.l0_sst_count,
            total_l0_size=info.total_l0_size,
            sorted_run_count=len(info.sorted_runs),
            total_sorted_run_size=sum(run.estimated_size for run in info.sorted_runs),
            sorted_runs=[
                pb.SortedRunInfo(id=run.id, sst_count=run.sst_count, estimated_size=run.estimated_size)
                for run in info.sorted_runs
            ],
        )

    # --- what goes on inside ---------------------------------------------------------------------------------------------

    async def CpuProfile(self, request: pb.CpuProfileRequest, context: Context) -> pb.CpuProfileResponse:
        seconds, frequency = cpu_profile.within_bounds(request.duration_seconds, request.frequency)
        # Two at once would watch each other.
        async with self.profiling:
            profile = await cpu_profile.record(seconds=seconds, frequency=frequency)
        return pb.CpuProfileResponse(
            profile_data=profile.pprof, duration_seconds=seconds, samples=profile.looks
        )

    async def HeapProfile(self, request: pb.HeapProfileRequest, context: Context) -> pb.HeapProfileResponse:
        raise WrongState("heap profiling is not enabled in the allocator")

    async def DumpTasks(self, request: pb.DumpTasksRequest, context: Context) -> pb.DumpTasksResponse:
        tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
        return pb.DumpTasksResponse(dump="\n".join(map(_stack, tasks)), task_count=len(tasks))


def _stack(task: asyncio.Task[Any]) -> str:
    """A task by its name, and the calls in which it waits, the outermost first."""
    return "\n".join([task.get_name(), *_calls(task.get_coro())])


def _calls(coroutine: Any) -> Iterator[str]:
    # Not `Task.print_stack`, which shows only the outermost call of a task that waits.
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None:
            yield f"  {coroutine.__qualname__} at {frame.f_code.co_filename}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None)


async def _counts(opened: OpenShard) -> CountRow:
    try:
        return await opened.shard.execute(get_counts, "")
    except SiloError:
        # A shard that cannot be read now is no reason not to hear of the others.
        return NOTHING
