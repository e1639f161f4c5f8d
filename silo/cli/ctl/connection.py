"""What all commands share: where to connect, as whom, and in which form to answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click
import grpc
from click.core import ParameterSource
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from silo.cli.ctl.hints import FIND_SHARDS, way_out
from silo.cluster.ranges import HashRange
from silo.domain.tenants import DEFAULT_TENANT, tenant_hash
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.server.statuses import in_words

SERVICE = pb.DESCRIPTOR.services_by_name["Silo"]
HISTORY = ext.DESCRIPTOR.services_by_name["History"]
MESSAGE_BYTES_MAX = 128 << 20

Function = TypeVar("Function", bound=Callable[..., Any])


class Failed(click.ClickException):
    """The command could not be carried out: `Error: <text>` on standard error, below it the way out; exit code 1."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(f"{text}\nHint: {hint}" if hint else text)


class Target:
    """The global flags, as given before or after the command."""

    def __init__(self) -> None:
        self.address = "http://localhost:7450"
        self.tenant: str | None = None
        self.json = False
        self.auth_token: str | None = None

    def show(self, values: Mapping[str, Any], text: str) -> None:
        """Answer: the values if JSON was asked for, else the text."""
        click.echo(json.dumps(values, indent=2, ensure_ascii=False) if self.json else text)

    def connect(self) -> Connection:
        """A connection to the node that the flags name."""
        scheme, separator, rest = self.address.rpartition("://")
        if separator and scheme != "http":
            raise Failed(
                f"address {self.address}: a Silo server speaks plain HTTP/2; give http://host:port or host:port"
            )
        return Connection(rest.rstrip("/"), self)


def _kept(context: click.Context, option: click.Parameter, value: Any) -> None:
    # A flag may stand before the command, behind it, or in both places; what is not given does not undo what is.
    if value in (None, False):
        return
    name, target = str(option.name), context.find_root().ensure_object(Target)
    # The variable is looked at in both places, too, and counts less than a flag in either.
    if context.get_parameter_source(name) is not ParameterSource.ENVIRONMENT or not getattr(target, name):
        setattr(target, name, value)


def global_flags(function: Function) -> Function:
    """Make a command or a group take the global flags."""
    for flag in (
        click.option(
            "--auth-token", envvar="SILO_AUTH_TOKEN", help="Token that the server asks for.", **_KEPT
        ),
        click.option("--json", is_flag=True, help="Answer in JSON.", **_KEPT),
        click.option("-t", "--tenant", help="Tenant that the job belongs to.", **_KEPT),
        click.option(
            "-a", "--address", help="Any node of the cluster; default http://localhost:7450.", **_KEPT
        ),
    ):
        function = flag(function)
    return function


_KEPT: dict[str, Any] = {"expose_value": False, "callback": _kept}

pass_target = click.make_pass_decorator(Target, ensure=True)


class Connection:
    """Calls to one node.  `named_by` is the node that gave the address, "" if the operator did."""

    def __init__(self, address: str, target: Target, *, named_by: str = "") -> None:
        self.address = address
        self._named_by = named_by
        self._target = target
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        self._channel = grpc.insecure_channel(address, options=options)

    def call(self, rpc: str, request: Message, *, service: ServiceDescriptor = SERVICE) -> Any:
        """The reply.  Raises Failed with the server's status."""
        try:
            return self._method(service, rpc)(request, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failed(error) from error

    def stream(self, rpc: str, request: Message, *, service: ServiceDescriptor) -> Iterator[Any]:
        """The replies of a call that streams them.  Raises Failed with the server's status."""
        try:
            yield from self._method(service, rpc)(request, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failed(error) from error

    def _method(self, service: ServiceDescriptor, rpc: str) -> Any:
        method = service.methods_by_name[rpc]
        reply: Any = GetMessageClass(method.output_type)
        connect = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        return connect(
            f"/{service.full_name}/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    @property
    def _metadata(self) -> list[tuple[str, str]]:
        token = self._target.auth_token
        return [("authorization", f"Bearer {token}")] if token else []

    def _failed(self, error: Any) -> Failed:
        code, details = error.code(), error.details() or ""
        has_token = bool(self._target.auth_token)
        hint = way_out(code, details, address=self.address, named_by=self._named_by, has_token=has_token)
        return Failed(in_words(code, details), hint=hint)

    def cluster(self) -> pb.GetClusterInfoResponse:
        """The cluster as this node knows it."""
        info: pb.GetClusterInfoResponse = self.call("GetClusterInfo", pb.GetClusterInfoRequest())
        return info

    def owner_of(self, shard: str, *, or_this: bool = False) -> Connection:
        """A connection to the node that has the shard.

        Raises Failed if there is no such shard or nobody has it; with `or_this` this node will then do.
        """
        info = self.cluster()
        owner = find_shard(info, shard)
        if not owner.grpc_addr and not or_this:
            raise Failed(_nobody_has(owner, info))
        if owner.grpc_addr in ("", info.this_grpc_addr):
            return self
        return Connection(owner.grpc_addr, self._target, named_by=self.address)


def place_of(target: Target, shard: str | None) -> tuple[Connection, str]:
    """The node that has a shard, and the shard's id; the default is the one of the tenant.  Raises Failed."""
    node = target.connect()
    shard_id = shard or shard_of_tenant(node.cluster(), target.tenant or DEFAULT_TENANT).shard_id
    return node.owner_of(shard_id), shard_id


def shard_of_tenant(info: pb.GetClusterInfoResponse, tenant: str) -> pb.ShardOwner:
    """The shard that a tenant's jobs are on.  Raises Failed."""
    place = tenant_hash(tenant)
    for owner in info.shard_owners:
        if HashRange(owner.range_start, owner.range_end).contains(place):
            return owner
    raise Failed(f"no shard covers the hash {place} of tenant '{tenant}'")


def find_shard(info: pb.GetClusterInfoResponse, shard: str) -> pb.ShardOwner:
    """The shard with exactly this id.  Raises Failed."""
    for owner in info.shard_owners:
        if owner.shard_id == shard:
            return owner
    raise Failed(f"shard '{shard}' not found in cluster", hint=FIND_SHARDS)


def _nobody_has(owner: pb.ShardOwner, info: pb.GetClusterInfoResponse) -> str:
    rings = sorted({ring for member in info.members for ring in member.placement_rings or ("default",)})
    return (
        f"shard `{owner.shard_id}` has no owner; its placement ring `{owner.placement_ring or 'default'}` has no members "
        f"(members advertise: `{', '.join(rings) or '(none)'}`)"
    )


def range_text(owner: pb.ShardOwner) -> str:
    """A shard's part of the hash line."""
    return f"[{owner.range_start or '-∞'}, {owner.range_end or '+∞'})"
