from __future__ import annotations

import errno
import os
import socket

import pytest

from silo.server.listening import _reason, why_not


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
def test_a_port_that_is_taken_is_told_and_one_that_is_free_again(family, host):
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert why_not(address) == (
            f"cannot listen on {address}: port {port} is taken, most likely by another server; "
            "stop that one, or choose another address with --grpc-addr or server.grpc_addr"
        )
    assert why_not(address).endswith("start again")


def test_an_address_of_another_machine_is_told():
    # An address for documentation, which no machine has.
    said = why_not("192.0.2.1:7450")
    assert said.startswith("cannot listen on 192.0.2.1:7450: this machine has no address 192.0.2.1; ")
    assert "0.0.0.0" in said


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.EACCES, "this user may not use port 80, as low ports", id="a low port"),
        pytest.param(errno.EAFNOSUPPORT, "this machine does not speak IPv6", id="no IPv6"),
        pytest.param(errno.EMFILE, os.strerror(errno.EMFILE), id="anything else in the system's words"),
    ],
)
def test_other_reasons_are_told_apart(number, words):
    said = _reason(OSError(number, os.strerror(number)), "::1", 80)
    assert said.startswith(words)
    assert "--grpc-addr" in said
