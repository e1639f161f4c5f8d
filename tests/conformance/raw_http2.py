"""HTTP/2 by hand, for what no gRPC client would send: pings without pause, and headers that are no text.

Frames are three bytes of length, a type, flags and four bytes of stream id.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WAIT_S = 10


class Connection:
    """A connection, on which one thing is done after the other."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self._socket.sendall(PREFACE)
        self._send(SETTINGS, 0, 0, b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ping(self, payload: bytes) -> None:
        """Send a ping and wait for its answer."""
        self._send(PING, 0, 0, payload)
        assert self._wait_for(PING, ACK) == payload

    def answer_headers(self, path: str, headers: dict[bytes, bytes]) -> bytes:
        """Call a method with an empty message, and return the header block of the answer as it is on the wire."""
        needed = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": path.encode(),
            b":authority": b"localhost",
            b"content-type": b"application/grpc",
            b"te": b"trailers",
        }
        block = b"".join(_literal(name, value) for name, value in {**needed, **headers}.items())
        self._send(HEADERS, END_HEADERS, 1, block)
        self._send(DATA, END_STREAM, 1, bytes(5))
        return self._wait_for(HEADERS, END_STREAM)

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
        self._socket.sendall(head + payload)

    def _wait_for(self, kind: int, flag: int) -> bytes:
        """The payload of the next frame of this kind with this flag."""
        while True:
            head = self._read(9)
            found, flags = head[3], head[4]
            payload = self._read(int.from_bytes(head[:3], "big"))
            assert found != GOAWAY, f"the server hangs up: {payload[8:]!r}"
            if found == kind and flags & flag:
                return payload
            if found == SETTINGS and not flags & ACK:
                self._send(SETTINGS, ACK, 0, b"")

    def _read(self, count: int) -> bytes:
        read = b""
        while len(read) < count:
            more = self._socket.recv(count - len(read))
            assert more, "the server has closed the connection"
            read += more
        return read


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that is neither indexed nor compressed (HPACK 6.2.2); each part is shorter than 127 bytes."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
