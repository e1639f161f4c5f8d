"""Channels to the nodes of a cluster, and what goes along with every call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import grpc

from silo.pb.silo_ext_pb2_grpc import BatchesStub, HistoryStub, InspectionStub, WorkersStub
from silo.pb.silo_pb2_grpc import SiloStub

ADDRESS = "127.0.0.1:7450"
MESSAGE_BYTES_MAX = 128 << 20


@attrs.frozen(kw_only=True)
class Tls:
    """How to speak to brokers behind TLS.

    Attributes:
        ca: file with the certificates to trust (PEM); None: those of the system.
        certificate, key: files with the client's own certificate and its key (PEM), if the other side asks for one.
        server_name: the name that the certificate has, where that is not the address.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError if a file cannot be read."""
        ca, certificate, key = (_bytes(path) for path in (self.ca, self.certificate, self.key))
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _bytes(path: str | Path | None) -> bytes | None:
    return Path(path).read_bytes() if path is not None else None


@attrs.frozen(kw_only=True)
class Options:
    """How to connect.

    Attributes:
        addresses: `host:port` of one or more nodes; any of them tells of all others.
        token: for brokers that want one.
        tls: for brokers behind TLS; None: plain HTTP/2.
        actor: the name that the events carry which this client causes.
        keepalive_s: how often a connection without traffic is tried, in seconds.
        channel_options: of gRPC, beyond ours.
    """

    addresses: tuple[str, ...]
    token: str | None = attrs.field(default=None, repr=False)
    tls: Tls | None = None
    actor: str | None = None
    keepalive_s: float = 20.0
    channel_options: Sequence[tuple[str, Any]] = ()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes along with every call."""
        entries = [("authorization", f"Bearer {self.token}")] if self.token is not None else []
        if self.actor is not None:
            entries.append(("x-silo-actor", self.actor))
        return tuple(entries)


def addresses_of(address: str | Sequence[str] | None) -> tuple[str, ...]:
    """The addresses in a text such as `a:7450,b:7450` or in a list; None: of $SILO_ADDRESS, or of this machine.

    Raises:
        ValueError: there is none, or one is not `host:port`.
    """
    if address is None:
        address = os.environ.get("SILO_ADDRESS") or ADDRESS
    parts = address.split(",") if isinstance(address, str) else address
    found = tuple(part.strip() for part in parts if part.strip())
    if not found:
        raise ValueError("a client needs the address of a broker, such as 127.0.0.1:7450")
    for part in found:
        if not part.startswith("unix:") and not part.rpartition(":")[2].isdigit():
            raise ValueError(f"{part!r} is not the address of a broker; it looks like 127.0.0.1:7450")
    return found


class Node:
    """One node: a channel, and the services on it."""

    def __init__(self, address: str, options: Options) -> None:
        self.address = address
        arguments = [
            # A broker that was killed is back within a second or two; gRPC's own habit is to look again ever more rarely.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.keepalive_time_ms", round(options.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            *options.channel_options,
        ]
        if options.tls is None:
            self.channel = grpc.aio.insecure_channel(address, options=arguments)
        else:
            if options.tls.server_name is not None:
                arguments.append(("grpc.ssl_target_name_override", options.tls.server_name))
            self.channel = grpc.aio.secure_channel(address, options.tls.credentials(), options=arguments)
        self.services: dict[str, Any] = {
            "Silo": SiloStub(self.channel),
            "Batches": BatchesStub(self.channel),
            "History": HistoryStub(self.channel),
            "Inspection": InspectionStub(self.channel),
            "Workers": WorkersStub(self.channel),
        }


class Nodes:
    """The nodes that somebody has called so far.  Of one event loop, as gRPC's channels are."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._nodes: dict[str, Node] = {}

    def __getitem__(self, address: str) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self.options)
        return node

    async def close(self) -> None:
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.channel.close()
