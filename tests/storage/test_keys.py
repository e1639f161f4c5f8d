from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from silo.errors import Corrupt
from silo.storage.keys import Part, decode, encode, prefix_end

# Few letters, so that equal parts, prefixes and escapes are common; and those at the edges of UTF-8's lengths.
texts = (
    st.text(st.sampled_from("\x00\x01\x02a\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"))
    | st.text()
)
raws = st.binary() | st.lists(st.sampled_from((0, 1, 2, 255))).map(bytes)
parts = st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | raws | texts
tuples = st.lists(parts, max_size=4).map(tuple)


def order(parts: tuple[Part, ...]) -> list[tuple[int, Part]]:
    """Tuples of mixed types in the order that keys.py promises: None, int, bytes, str."""
    ranks = {type(None): 0, int: 1, bytes: 2, str: 3}
    return [(ranks[type(part)], 0 if part is None else part) for part in parts]


@given(tuples, tuples)
@example(("a",), ("a\x00",))
@example(("a", "b"), ("a\x01",))
def test_keys_sort_as_their_tuples(a, b):
    assert (encode(a) < encode(b)) == (order(a) < order(b))


@given(tuples)
def test_what_is_encoded_decodes(a):
    assert decode(encode(a)) == a


@given(tuples, tuples)
@example(("a",), ("a\x00", 1))
def test_a_key_is_a_prefix_exactly_of_its_extensions(a, b):
    assert encode(b).startswith(encode(a)) == (b[: len(a)] == a)


@given(st.binary(min_size=1).filter(lambda prefix: set(prefix) != {0xFF}), st.binary(), st.binary())
def test_the_end_of_a_prefix_is_the_least_key_above_all_that_start_with_it(prefix, tail, other):
    end = prefix_end(prefix)
    assert prefix + tail < end
    assert other.startswith(prefix) or not prefix <= other < end


def test_there_is_no_end_above_the_highest_prefix():
    with pytest.raises(ValueError, match="no key is greater"):
        prefix_end(b"\xff\xff")


@pytest.mark.parametrize("part", [True, 1.5, ["a"]])
def test_other_types_are_refused(part):
    with pytest.raises(TypeError, match=type(part).__name__):
        encode((part,))


@pytest.mark.parametrize("part", [1 << 63, -(1 << 63) - 1, "\ud800"])
def test_values_that_a_key_cannot_hold_are_refused(part):
    with pytest.raises(ValueError, match=r"64 bits|surrogates"):
        encode((part,))


@pytest.mark.parametrize("key", [b"\x05abc", b"\x03\x00", b"\x07", b"\x05\xff\x00"])
def test_bytes_that_are_no_key_are_corrupt(key):
    with pytest.raises(Corrupt, match=key.hex()):
        decode(key)
