"""Why can this server not listen on an address?  gRPC does not say, so a plain socket is asked."""

from __future__ import annotations

import errno
import socket

from silo.settings import host_and_port

ANOTHER_ADDRESS = "choose another address with --grpc-addr or server.grpc_addr"


def why_not(address: str) -> str:
    """A sentence for the operator, with the way out.

    Args:
        address: as in `127.0.0.1:7450`; gRPC could not listen there.
    """
    return f"cannot listen on {address}: {_reason(_probe(address), *host_and_port(address))}"


def _probe(address: str) -> OSError | None:
    """What a plain socket meets there; None if it can listen."""
    host, port = host_and_port(address)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As gRPC does: connections that ended a moment ago keep nobody from listening.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        return error
    return None


def _reason(error: OSError | None, host: str, port: int) -> str:
    if error is None:
        return "whoever had it has just let go of it; start again"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is taken, most likely by another server; stop that one, or {ANOTHER_ADDRESS}"
        case errno.EADDRNOTAVAIL:
            return (
                f"this machine has no address {host}; {ANOTHER_ADDRESS}: "
                "127.0.0.1 for callers on this machine, 0.0.0.0 for all"
            )
        case errno.EACCES | errno.EPERM:
            return (
                f"this user may not use port {port}, as low ports (below 1024, as a rule) are for privileged programs; "
                f"{ANOTHER_ADDRESS}, or give the program that right (CAP_NET_BIND_SERVICE)"
            )
        case errno.EAFNOSUPPORT:
            return f"this machine does not speak IPv6; {ANOTHER_ADDRESS}, an IPv4 one"
        case _:
            return f"{error.strerror}; {ANOTHER_ADDRESS}"
