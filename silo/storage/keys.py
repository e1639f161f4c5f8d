"""Keys that sort as the tuples they were made from.

A part of a key is None, an int (signed, 64 bits), bytes or a str; tuples compare part by part, a shorter
tuple before its extensions, and parts of different types in the order in which they are named here.  Each
part starts with a byte that tells its type:

    02                                   None
    03  eight bytes, big-endian, + 2^63  int
    04  the bytes           00           bytes
    05  the text in UTF-8   00           str

Inside bytes and text, 00 is written 01 01 and 01 is written 01 02.  So 00 only ever ends a part, and this has
two consequences.  The order is kept: the end sorts before every continuation, and the two escapes sort as
what they stand for, before 02.  And the key of a tuple is a prefix of another key exactly if the tuple is a
prefix of the other tuple; the commoner escape 00 -> 00 FF does not give that, as the key of ("a",) would
start the key of ("a\\0",). (UTF-8 sorts as the code points do, which is how Python compares text.)
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct, error

from silo.errors import Corrupt

Part = None | int | bytes | str

_NONE, _INT, _BYTES, _STR = 2, 3, 4, 5
_BIAS = 1 << 63
_pack_int = Struct(">BQ").pack
_unpack_int = Struct(">Q").unpack_from


def encode(parts: Iterable[Part]) -> bytes:
    """Raises ValueError for an int beyond 64 bits or text with a lone surrogate, TypeError for another type
    of part."""
    key = b""
    for part in parts:
        if type(part) is str:
            # Neither 00 nor 01 is printable, so most text need not be looked through.
            raw = part.encode() if part.isprintable() else _escaped(part.encode())
            key += b"\x05" + raw + b"\x00"
        elif type(part) is int:
            try:
                key += _pack_int(_INT, part + _BIAS)
            except error:
                raise ValueError(f"{part} does not fit a signed integer of 64 bits") from None
        elif type(part) is bytes:
            key += b"\x04" + _escaped(part) + b"\x00"
        elif part is None:
            key += b"\x02"
        else:
            # Not isinstance: True or an enum would come back from `decode` as something else.
            raise TypeError(f"a key is made of None, int, bytes and str, not {type(part).__name__}")
    return key


def decode(key: bytes) -> tuple[Part, ...]:
    """The parts of which `key` was made.  Raises Corrupt if it was not made by `encode`."""
    parts: list[Part] = []
    at = 0
    try:
        while at < len(key):
            tag, at = key[at], at + 1
            if tag == _INT:
                parts.append(_unpack_int(key, at)[0] - _BIAS)
                at += 8
            elif tag in (_BYTES, _STR):
                end = key.index(0, at)
                raw = _plain(key[at:end])
                parts.append(raw.decode() if tag == _STR else raw)
                at = end + 1
            elif tag == _NONE:
                parts.append(None)
            else:
                raise ValueError(f"no part starts with {tag:02x}")
    except (ValueError, error) as reason:
        raise Corrupt(f"key {key.hex()} cannot be decoded: {reason}") from None
    return tuple(parts)


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key that is greater than every key with this prefix."""
    kept = prefix.rstrip(b"\xff")
    if not kept:
        raise ValueError("no key is greater than every key with this prefix")
    return kept[:-1] + bytes((kept[-1] + 1,))


def _escaped(raw: bytes) -> bytes:
    if b"\x00" in raw or b"\x01" in raw:
        return raw.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    return raw


def _plain(raw: bytes) -> bytes:
    return raw.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
