"""How are ids read and made?

Shard ids come from clients in any of the usual spellings of a UUID and are kept in one.  Ids that the server
makes are UUID text: version 7 for jobs, so that keys made together lie together, version 4 for tasks and
shards.

`uuid.UUID` does neither job here: it accepts spellings that other clients of the protocol refuse (hyphens
anywhere, braces that do not match), and takes several microseconds where the hot path has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from silo.errors import Invalid

_HYPHENATED = "-".join(f"[0-9a-fA-F]{{{digits}}}" for digits in (8, 4, 4, 4, 12))
_UUID = re.compile(rf"[0-9a-fA-F]{{32}}|{_HYPHENATED}|\{{{_HYPHENATED}\}}|urn:uuid:{_HYPHENATED}")
_NOT_HEX_DIGITS = re.compile(r"urn:uuid:|[{}-]")


def parse_shard_id(text: str) -> str:
    """The shard id in canonical form: lower case, hyphenated.

    Read are the hyphenated form, bare or as `{...}` or `urn:uuid:...`, and 32 hex digits, in any case.
    Raises Invalid for anything else.
    """
    if not _UUID.fullmatch(text):
        raise Invalid(f"invalid shard ID: {text}")

    return _hyphenate(_NOT_HEX_DIGITS.sub("", text).lower())


_RANDOM_BYTES_AT_ONCE = 4096
_COUNTER_MAX = 0xFFF

# What a UUID fixes beside its random bits: the version, and the two bits `10` of the variant.
_V4_RANDOM = (1 << 128) - 1 & ~(0xF << 76) & ~(0b11 << 62)
_V4_FIXED = 0x4 << 76 | 0b10 << 62
_V7_TAIL_RANDOM = (1 << 62) - 1
_V7_TAIL_FIXED = 0b10 << 62


class Ids:
    """Makes ids from a source of randomness; one source, seeded, makes the same ids again.

    `random_bytes(n)` returns n random bytes, such as `os.urandom` or `random.Random(seed).randbytes`.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._drawn = b""
        self._used = 0
        self._last_ms = -1
        self._last_ms_text = ""
        self._counter = 0

    def uuid4(self) -> str:
        """A random id."""
        number = int.from_bytes(self._draw(16)) & _V4_RANDOM | _V4_FIXED
        return _hyphenate(f"{number:032x}")

    def uuid7(self, now_ms: int) -> str:
        """An id that sorts after every other one that this object has made, by time and then by a counter.

        A clock that stands still or steps back does not break the order: the id then carries the last time
        seen, and after 4096 ids in one millisecond the next millisecond.
        """
        if now_ms > self._last_ms:
            self._start_millisecond(now_ms)
        elif self._counter < _COUNTER_MAX:
            self._counter += 1
        else:
            self._start_millisecond(self._last_ms + 1)

        tail = f"{int.from_bytes(self._draw(8)) & _V7_TAIL_RANDOM | _V7_TAIL_FIXED:016x}"
        return f"{self._last_ms_text}-7{self._counter:03x}-{tail[:4]}-{tail[4:]}"

    def _start_millisecond(self, now_ms: int) -> None:
        digits = f"{now_ms & (1 << 48) - 1:012x}"
        self._last_ms = now_ms
        self._last_ms_text = f"{digits[:8]}-{digits[8:]}"
        self._counter = 0

    def _draw(self, count: int) -> bytes:
        # Randomness is drawn in blocks, as a call to the system costs as much as all the rest of an id.
        if self._used + count > len(self._drawn):
            self._drawn = self._random_bytes(_RANDOM_BYTES_AT_ONCE)
            self._used = 0

        start = self._used
        self._used = start + count
        return self._drawn[start : self._used]


def _hyphenate(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
