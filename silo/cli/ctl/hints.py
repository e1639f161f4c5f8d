"""What can be done about an answer: the way out, which stands below the error."""

from __future__ import annotations

import re
import shlex

import grpc

FIND_SHARDS = (
    "`siloctl cluster info` lists the shards, `siloctl tenant locate TENANT` finds a tenant's "
    "(`siloctl tenant locate -` while tenancy is off)"
)

_ELSEWHERE = re.compile(r"tenant '(.*)' is not within shard ")
_NOBODY = re.compile(r"failed to connect|resolution failed|errors resolving", re.IGNORECASE)


def way_out(code: grpc.StatusCode, details: str, *, address: str, named_by: str, has_token: bool) -> str:
    """What the operator can try; "" if there is nothing to add.

    Args:
        details: the sentence that the server sent with the status.
        address: where the call went.
        named_by: the node that gave this address; "" if the operator did.
        has_token: whether a token was sent along.
    """
    match code:
        case grpc.StatusCode.UNAUTHENTICATED if has_token:
            return "the token in --auth-token or SILO_AUTH_TOKEN is not the server's, which is in its server.auth_token"
        case grpc.StatusCode.UNAUTHENTICATED:
            return "this server wants a token: give it with --auth-token, or in the variable SILO_AUTH_TOKEN"
        case grpc.StatusCode.UNAVAILABLE if _NOBODY.search(details):
            return _nobody(address, named_by)
        case grpc.StatusCode.UNAVAILABLE:
            return "try again in a moment; if it lasts, the server's log says why"
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.INVALID_ARGUMENT:
            return _tenant(details)
        case _:
            return ""


def _nobody(address: str, named_by: str) -> str:
    if named_by:
        return (
            f"no server answers at {address}, the address that {named_by} gives for the shard's node; "
            "if it should be another one, set coordination.advertised_grpc_addr there"
        )
    return f"no server answers at {address}: start one with `silo serve`, or name another with --address HOST:PORT"


def _tenant(details: str) -> str:
    if "tenancy is disabled" in details:
        return "this server has no tenants (its tenancy.enabled is false): leave out --tenant"
    if details == "tenant id required":
        return "this server has tenants: name the job's with --tenant"
    if found := _ELSEWHERE.match(details):
        return f"`siloctl tenant locate {shlex.quote(found[1])}` tells which shard the tenant belongs to"
    return ""
