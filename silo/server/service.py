"""silo.v1: every call, one method each, in four families.

    job_calls.py       Enqueue, GetJob, GetJobResult, DeleteJob, CancelJob, DropTenantHolders, RestartJob, ExpediteJob,
                       ImportJobs
    worker_calls.py    LeaseTask, LeaseTasks, ReportOutcome, ReportRefreshOutcome, Heartbeat
    query_calls.py     Query, QueryArrow
    operator_calls.py  GetClusterInfo, GetNodeInfo, ResetShards, splits, storage, profiles

A method finds the shard, converts the request, executes a command, and answers.  Errors pass through it; interceptors.py
names them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from silo.pb import silo_pb2 as pb
from silo.server.cluster_info import Cluster
from silo.server.interceptors import answering, streaming
from silo.server.job_calls import JobCalls
from silo.server.operator_calls import OperatorCalls
from silo.server.query_calls import QueryCalls, Statements
from silo.server.shards import OpenShard, Shards
from silo.server.worker_calls import WorkerCalls

SERVICE = pb.DESCRIPTOR.services_by_name["Silo"]


class Silo(JobCalls, WorkerCalls, QueryCalls, OperatorCalls):
    """The service of one node."""

    def __init__(
        self,
        shards: Shards,
        cluster: Cluster,
        statements: Statements,
        *,
        reset_shard: Callable[[OpenShard], Awaitable[None]] | None,
    ) -> None:
        self.shards = shards
        self.cluster = cluster
        self.statements = statements
        self.reset_shard = reset_shard
        self.profiling = asyncio.Lock()


def handlers(service: ServiceDescriptor, methods: object) -> grpc.GenericRpcHandler:
    """The methods of an object as gRPC wants them: one for each rpc of the proto, so none can be forgotten."""
    return grpc.method_handlers_generic_handler(
        service.full_name, {rpc.name: _handler(rpc, getattr(methods, rpc.name)) for rpc in service.methods}
    )


def _handler(rpc: MethodDescriptor, method: Any) -> Any:
    request: Any = GetMessageClass(rpc.input_type)
    reply: Any = GetMessageClass(rpc.output_type)
    if rpc.client_streaming:
        return grpc.stream_stream_rpc_method_handler(
            streaming(method), request.FromString, reply.SerializeToString
        )
    if rpc.server_streaming:
        return grpc.unary_stream_rpc_method_handler(
            streaming(method), request.FromString, reply.SerializeToString
        )
    return grpc.unary_unary_rpc_method_handler(answering(method), request.FromString, reply.SerializeToString)
