from __future__ import annotations

import contextlib
from enum import IntEnum

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from silo.events.packing import from_bytes, packer, replacer, to_bytes, unpacker


class Colour(IntEnum):
    RED = 0
    BLUE = 1


@attrs.frozen(kw_only=True)
class Inner:
    size: int
    factor: float


@attrs.define(kw_only=True)
class Outer:
    stamp: int = attrs.field(init=False, default=7, eq=False)
    name: str
    raw: bytes
    flag: bool
    colour: Colour
    inner: Inner | None
    pairs: tuple[tuple[str, str], ...]
    maybe: int | None


@attrs.frozen
class One:
    name: str


@attrs.frozen
class Nothing:
    pass


@attrs.frozen
class Row:
    first: int
    second: str
    third: Inner | None


int64 = st.integers(-(1 << 63), (1 << 64) - 1)
inners = st.builds(Inner, size=int64, factor=st.floats(allow_nan=False))
outers = st.builds(
    Outer,
    name=st.text(),
    raw=st.binary(),
    flag=st.booleans(),
    colour=st.sampled_from(Colour),
    inner=st.none() | inners,
    pairs=st.lists(st.tuples(st.text(), st.text())).map(tuple),
    maybe=st.none() | int64,
)


@given(outers)
def test_what_was_packed_comes_back(value):
    found = unpacker(Outer)(from_bytes(to_bytes(packer(Outer)(value))))

    assert found == value
    assert type(found.colour) is Colour


@pytest.mark.parametrize("value", [One("x"), Nothing()])
def test_small_classes_come_back_too(value):
    assert unpacker(type(value))(from_bytes(to_bytes(packer(type(value))(value)))) == value


AN_OUTER = Outer(
    name="n", raw=b"r", flag=True, colour=Colour.BLUE, inner=None, pairs=(("a", "b"),), maybe=None
)


def test_fields_are_packed_in_their_order_and_without_their_names():
    packed = from_bytes(to_bytes(packer(Outer)(AN_OUTER)))
    assert packed == ["n", b"r", True, 1, None, [["a", "b"]], None]


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        pytest.param(0, b"n", id="bytes for text"),
        pytest.param(1, "r", id="text for bytes"),
        pytest.param(2, 1, id="a number for yes or no"),
        pytest.param(3, 9, id="a number that is none of an enumeration"),
        pytest.param(4, [1], id="too few fields within"),
        pytest.param(4, [1, 2.0, 3], id="too many fields within"),
        pytest.param(4, ["1", 2.0], id="text for a number within"),
        pytest.param(6, True, id="yes or no for a number"),
        pytest.param(6, "1", id="text for a number"),
    ],
)
def test_damage_is_noticed_and_nothing_is_coerced(place, wrong):
    packed = list(packer(Outer)(AN_OUTER))
    packed[place] = wrong

    with pytest.raises((ValueError, TypeError)):
        unpacker(Outer)(packed)


@pytest.mark.parametrize("change", [lambda packed: packed[:-1], lambda packed: [*packed, 1]])
def test_a_changed_shape_without_a_new_version_is_noticed(change):
    with pytest.raises(ValueError, match=r"^Outer has 7 fields, but \d are stored$"):
        unpacker(Outer)(change(list(packer(Outer)(AN_OUTER))))


@given(st.builds(Row, int64, st.text(), st.none() | inners), int64, st.text())
def test_a_replacer_changes_what_it_is_told_to_and_nothing_else(row, first, second):
    replace = replacer(Row)

    assert replace(row, first=first) == attrs.evolve(row, first=first)
    assert replace(row, second=second, third=None) == attrs.evolve(row, second=second, third=None)
    assert replace(row) == row
    assert replace(row) is not row


@given(st.binary())
@example(b"\x81\x90\x00").via("a map with a list for a key")
def test_what_is_not_packed_is_a_value_error(raw):
    with contextlib.suppress(ValueError):
        from_bytes(raw)
