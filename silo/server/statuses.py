"""Which error is which gRPC status?"""

from __future__ import annotations

import grpc

from silo.errors import (
    AlreadyExists,
    CallFailed,
    ConfigError,
    Corrupt,
    Denied,
    Exhausted,
    Invalid,
    JobInProgress,
    NotFound,
    NotSupported,
    ShardNotFound,
    SiloError,
    TimedOut,
    Unauthenticated,
    Unavailable,
    WrongState,
)

STATUSES: dict[type[SiloError], grpc.StatusCode] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    # Not FAILED_PRECONDITION: on that, routing clients look for the shard elsewhere and send the call again.
    JobInProgress: grpc.StatusCode.INTERNAL,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    NotSupported: grpc.StatusCode.UNIMPLEMENTED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Corrupt: grpc.StatusCode.INTERNAL,
    CallFailed: grpc.StatusCode.INTERNAL,
    ConfigError: grpc.StatusCode.INTERNAL,
}
"""An error that is not here has the status of the nearest class above it."""

OWNER_ADDR = "x-silo-shard-owner-addr"
OWNER_NODE = "x-silo-shard-owner-node"


def status_of(error: SiloError) -> grpc.StatusCode:
    """The status under which a client sees the error."""
    return next(
        (STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), grpc.StatusCode.INTERNAL
    )


def details_of(error: SiloError) -> str:
    """The sentence that goes with it."""
    # A client that reads this word in an INTERNAL answer takes it for a broken connection, and sends the call again.
    return str(error).replace("RST_STREAM", "stream reset")


def trailers_of(error: SiloError) -> tuple[tuple[str, str], ...]:
    """Trailing metadata: who owns the shard that was looked for here, as far as that is known."""
    if not isinstance(error, ShardNotFound):
        return ()
    owner = ((OWNER_ADDR, error.owner_addr), (OWNER_NODE, error.owner_node))
    return tuple((key, value) for key, value in owner if value)


def in_words(code: grpc.StatusCode, details: str) -> str:
    """A status as operators of this protocol know it: `status: NotFound, message: "job not found"`."""
    name = "".join(word.capitalize() for word in code.name.split("_"))
    return f'status: {name}, message: "{details}"'
