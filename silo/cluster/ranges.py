"""Which part of the hash line is a shard's?

A range is `[start, end)` over the tenants' hashes.  Bounds are 16 lower-case hex digits, so that they
compare as strings in the order of their numbers; "" is no bound on that side.  The ranges of a cluster's
shards tile the line: each hash lies in exactly one of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import attrs

from silo.errors import Invalid

_LINE = 1 << 64
_BOUND = re.compile(r"[0-9a-f]{16}")


@attrs.frozen(repr=False)
class HashRange:
    """The hashes from `start` up to, not including, `end`; "" leaves that side open.

    Making one raises Invalid if a bound is malformed or nothing lies between the two.
    """

    start: str = ""
    end: str = ""

    def __attrs_post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound and not _BOUND.fullmatch(bound):
                raise Invalid(f"invalid hash bound '{bound}': expected 16 lower-case hex digits")
        if self.end and self.end <= (self.start or _hex(0)):
            raise Invalid(f"empty hash range {self}")

    def contains(self, tenant_hash: str) -> bool:
        """Whether the hash (16 lower-case hex digits) lies in this range."""
        return self.start <= tenant_hash and (not self.end or tenant_hash < self.end)

    def midpoint(self) -> str | None:
        """The bound at which to cut the range in halves; None if it is too narrow."""
        # An open end counts as the last hash, not as one past it: that is what siloctl has always proposed.
        first = int(self.start or "0", 16)
        last = int(self.end, 16) if self.end else _LINE - 1
        if last <= first + 1:
            return None
        return _hex(first + (last - first) // 2)

    def __str__(self) -> str:
        return f"[{self.start or '-∞'}, {self.end or '+∞'})"

    __repr__ = __str__


def initial(count: int) -> list[HashRange]:
    """The hash line in `count` equal parts, in order."""
    inner = [_hex(part * _LINE // count) for part in range(1, count)]
    return [HashRange(start, end) for start, end in zip(["", *inner], [*inner, ""], strict=True)]


def why_not_tiling(ranges: Sequence[HashRange]) -> str | None:
    """Where the ranges, in this order, first leave a gap or overlap; None if they tile the hash line."""
    if not ranges:
        return "there are no ranges"
    if ranges[0].start:
        return f"nothing covers the hashes below {ranges[0].start}"
    for left, right in pairwise(ranges):
        # "" equals "" but is the line's end in one range and its beginning in the next.
        if not left.end or left.end != right.start:
            return f"{left} is followed by {right}"
    if ranges[-1].end:
        return f"nothing covers the hashes from {ranges[-1].end}"
    return None


def _hex(place: int) -> str:
    return f"{place:016x}"
