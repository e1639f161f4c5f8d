"""Ranges tile the hash line, and say so when they do not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.cluster.ranges import HashRange, initial, why_not_tiling
from silo.errors import Invalid

hashes = st.integers(0, (1 << 64) - 1).map("{:016x}".format)
EIGHTH = "2000000000000000"
HALF = "8000000000000000"


@pytest.mark.parametrize(
    ("count", "bounds"),
    [
        (1, []),
        (2, ["8000000000000000"]),
        (3, ["5555555555555555", "aaaaaaaaaaaaaaaa"]),
        (8, [f"{digit}000000000000000" for digit in "2468ace"]),
    ],
)
def test_the_first_ranges_cut_the_line_in_equal_parts(count: int, bounds: list[str]) -> None:
    parts = initial(count)

    assert [part.start for part in parts] == ["", *bounds]
    assert [part.end for part in parts] == [*bounds, ""]


@given(st.integers(1, 200), hashes)
def test_each_hash_lies_in_exactly_one_of_the_first_ranges(count: int, tenant_hash: str) -> None:
    parts = initial(count)

    assert why_not_tiling(parts) is None
    assert sum(part.contains(tenant_hash) for part in parts) == 1


@given(st.sets(hashes.filter(lambda bound: bound > "0" * 16), max_size=20), hashes)
def test_ranges_that_tile_cover_each_hash_exactly_once(cuts: set[str], tenant_hash: str) -> None:
    bounds = ["", *sorted(cuts), ""]
    parts = [HashRange(start, end) for start, end in pairwise(bounds)]

    assert why_not_tiling(parts) is None
    assert sum(part.contains(tenant_hash) for part in parts) == 1


@given(st.sets(hashes.filter(lambda bound: bound > "0" * 16), min_size=1, max_size=20), st.data())
def test_a_range_taken_from_a_tiling_leaves_a_gap_that_is_named(cuts: set[str], data: st.DataObject) -> None:
    bounds = ["", *sorted(cuts), ""]
    parts = [HashRange(start, end) for start, end in pairwise(bounds)]
    del parts[data.draw(st.integers(0, len(parts) - 1))]

    assert why_not_tiling(parts) is not None


@pytest.mark.parametrize(
    ("ranges", "flaw"),
    [
        pytest.param([], "there are no ranges", id="none"),
        pytest.param([HashRange(HALF, "")], f"nothing covers the hashes below {HALF}", id="a gap in front"),
        pytest.param([HashRange("", HALF)], f"nothing covers the hashes from {HALF}", id="a gap behind"),
        pytest.param(
            [HashRange("", EIGHTH), HashRange(HALF, "")],
            f"[-∞, {EIGHTH}) is followed by [{HALF}, +∞)",
            id="a gap between",
        ),
        pytest.param(
            [HashRange("", HALF), HashRange(EIGHTH, "")],
            f"[-∞, {HALF}) is followed by [{EIGHTH}, +∞)",
            id="an overlap",
        ),
        pytest.param([HashRange(), HashRange()], "[-∞, +∞) is followed by [-∞, +∞)", id="everything twice"),
    ],
)
def test_ranges_that_do_not_tile_say_where(ranges: list[HashRange], flaw: str) -> None:
    assert why_not_tiling(ranges) == flaw


def test_a_range_holds_its_start_and_not_its_end() -> None:
    part = HashRange(EIGHTH, HALF)

    assert part.contains(EIGHTH)
    assert part.contains("7fffffffffffffff")
    assert not part.contains(HALF)
    assert not part.contains("1fffffffffffffff")


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        ("", "", "[-∞, +∞)"),
        ("", HALF, "[-∞, 8000000000000000)"),
        (HALF, "", "[8000000000000000, +∞)"),
        (EIGHTH, HALF, "[2000000000000000, 8000000000000000)"),
    ],
)
def test_a_range_is_shown_with_infinities_for_open_sides(start: str, end: str, shown: str) -> None:
    assert str(HashRange(start, end)) == shown


@pytest.mark.parametrize(
    ("start", "end", "midpoint"),
    [
        ("", "", "7fffffffffffffff"),
        ("", HALF, "4000000000000000"),
        (HALF, "", "bfffffffffffffff"),
        ("8000000000000000", "8000000000000001", None),
        ("8000000000000000", "8000000000000002", "8000000000000001"),
        ("fffffffffffffffe", "", None),
    ],
)
def test_the_midpoint_halves_a_range_unless_it_is_too_narrow(
    start: str, end: str, midpoint: str | None
) -> None:
    assert HashRange(start, end).midpoint() == midpoint


@given(hashes, hashes)
def test_a_midpoint_always_cuts_a_range_in_two(a: str, b: str) -> None:
    start, end = sorted([a, b])
    middle = HashRange(start, end).midpoint() if start < end else None

    assert middle is None or start < middle < end


@pytest.mark.parametrize(
    "bound", ["8", "800000000000000", "80000000000000000", "ABCDEF0000000000", "8000000000000000\n", "g" * 16]
)
def test_a_malformed_bound_is_refused(bound: str) -> None:
    with pytest.raises(Invalid, match="invalid hash bound"):
        HashRange(bound, "")


@pytest.mark.parametrize(("start", "end"), [(HALF, EIGHTH), (HALF, HALF), ("", "0" * 16)])
def test_a_range_that_holds_nothing_is_refused(start: str, end: str) -> None:
    with pytest.raises(Invalid, match="empty hash range"):
        HashRange(start, end)
