"""The services that any gRPC server has beside its own: health and reflection."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

REFLECTION = "grpc.reflection.v1.ServerReflection"
OLD_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


class Health:
    """grpc.health.v1: SERVING from the moment that the server listens, until it begins to stop."""

    def __init__(self, server: grpc.aio.Server, services: tuple[str, ...]) -> None:
        self._servicer = health.aio.HealthServicer()
        self._services = services
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def serving(self) -> None:
        for name in ("", *self._services):
            await self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stopping(self) -> None:
        await self._servicer.enter_graceful_shutdown()


def add_reflection(server: grpc.aio.Server, services: tuple[str, ...]) -> None:
    """Let callers ask what services there are.

    The library knows only v1alpha, clients of today ask for v1.  The two have the same messages under different names, so
    the same methods answer both.
    """
    names = (*services, health.SERVICE_NAME, REFLECTION, OLD_REFLECTION)
    servicer: Any = reflection.aio.ReflectionServicer(names)
    answer = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": answer})
            for name in (REFLECTION, OLD_REFLECTION)
        )
    )
