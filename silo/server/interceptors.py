"""What happens around every call: who may call at all, and what becomes of an error.

Errors are named by a wrapper around each method and not by a gRPC interceptor, which would cost every call one more task
switch.  The token is looked at by an interceptor, because that comes before the message is even read; a server without a
token has none.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from grpc.aio import AbortError, ServicerContext

from silo.errors import SiloError, Unauthenticated
from silo.server.statuses import details_of, status_of, trailers_of

logger = logging.getLogger(__name__)

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Context = ServicerContext[Any, Any]

INTERNAL_ERROR = "internal error; the server's log says more"


def answering(
    method: Callable[[Request, Context], Awaitable[Reply]],
) -> Callable[[Request, Context], Awaitable[Reply]]:
    """A unary method, whose errors become statuses."""

    async def answer(request: Request, context: Context) -> Reply:
        try:
            return await method(request, context)
        except AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - here every error becomes an answer
            await _refuse(error, method.__name__, context)

    return answer


def streaming(
    method: Callable[[Request, Context], AsyncIterator[Reply]],
) -> Callable[[Request, Context], AsyncIterator[Reply]]:
    """A method that streams its replies, whose errors become statuses."""

    async def answer(request: Request, context: Context) -> AsyncIterator[Reply]:
        try:
            async for reply in method(request, context):
                yield reply
        except AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            await _refuse(error, method.__name__, context)

    return answer


async def _refuse(error: Exception, rpc: str, context: Context) -> NoReturn:
    if isinstance(error, SiloError):
        await context.abort(status_of(error), details_of(error), trailers_of(error))
    else:
        logger.error("%s met a bug", rpc, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
    raise AssertionError("abort raises")


class Auth(grpc.aio.ServerInterceptor):
    """Lets only those call `silo.*` services who bring the token.  Health and reflection are open to all."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        if not details.method.startswith("/silo."):
            return await continuation(details)
        reason = self._why_not(dict(details.invocation_metadata or ()).get("authorization"))
        return await continuation(details) if reason is None else _refusing(reason)

    def _why_not(self, header: str | bytes | None) -> str | None:
        """Why a caller with this header may not call; None if he may."""
        if header is None:
            return "missing authorization header"
        text = header.decode("latin-1") if isinstance(header, bytes) else header
        if not (text.isascii() and text.isprintable()):
            return "invalid authorization header"
        scheme, _, token = text.partition(" ")
        # In constant time, so that the time of an answer says nothing about the token.
        if scheme == "Bearer" and hmac.compare_digest(token.encode(), self._token):
            return None
        return "invalid auth token"


def _refusing(reason: str) -> Any:
    async def refuse(_: bytes, context: Context) -> bytes:
        await _refuse(Unauthenticated(reason), "auth", context)

    return grpc.unary_unary_rpc_method_handler(refuse)
