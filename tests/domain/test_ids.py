"""Shard ids are read in every usual spelling; made ids are valid, ordered and repeatable."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.domain.ids import Ids, parse_shard_id
from silo.errors import Invalid

CANONICAL = "67e55044-10b1-426f-9247-bb680e5fe0c8"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("67e55044-10b1-426f-9247-bb680e5fe0c8", id="hyphenated"),
        pytest.param("67E55044-10B1-426F-9247-BB680E5FE0C8", id="upper case"),
        pytest.param("67e5504410b1426f9247bb680e5fe0c8", id="32 digits"),
        pytest.param("67E5504410b1426f9247BB680e5fe0c8", id="32 digits of either case"),
        pytest.param("{67e55044-10b1-426f-9247-bb680e5fe0c8}", id="in braces"),
        pytest.param("{67E55044-10B1-426F-9247-BB680E5FE0C8}", id="in braces, upper case"),
        pytest.param("urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8", id="as a URN"),
        pytest.param("urn:uuid:67E55044-10B1-426F-9247-BB680E5FE0C8", id="as a URN, upper case"),
    ],
)
def test_every_spelling_of_a_shard_id_names_the_same_shard(text: str) -> None:
    assert parse_shard_id(text) == CANONICAL


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("3", id="a number"),
        pytest.param("67e55044-10b1-426f-9247-bb680e5fe0c", id="a digit short"),
        pytest.param("67e55044-10b1-426f-9247-bb680e5fe0c8\n", id="a line end behind it"),
        pytest.param(" 67e55044-10b1-426f-9247-bb680e5fe0c8", id="a blank before it"),
        pytest.param("67e5504410b1-426f-9247-bb680e5fe0c8", id="a hyphen missing"),
        pytest.param("{67e5504410b1426f9247bb680e5fe0c8}", id="32 digits in braces"),
        pytest.param("{67e55044-10b1-426f-9247-bb680e5fe0c8", id="a brace missing"),
        pytest.param("67e55044-10b1-426f-9247-bb680e5fe0cg", id="not a hex digit"),
        pytest.param("٦" * 32, id="digits that are not ASCII"),
    ],
)
def test_any_other_text_is_refused_as_it_was_sent(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_shard_id(text)

    assert str(refusal.value) == f"invalid shard ID: {text}"


@given(st.uuids())
def test_a_canonical_id_is_read_as_itself(value: uuid.UUID) -> None:
    assert parse_shard_id(str(value)) == str(value)


def seeded(seed: int = 1) -> Ids:
    return Ids(random.Random(seed).randbytes)


def test_a_random_id_is_a_version_4_uuid_in_canonical_form() -> None:
    for made in (uuid.UUID(text) for text in map(parse_shard_id, _many(seeded()))):
        assert (made.version, made.variant) == (4, uuid.RFC_4122)


def test_a_time_ordered_id_is_a_version_7_uuid_that_carries_its_time() -> None:
    made = uuid.UUID(seeded().uuid7(1_700_000_000_123))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_700_000_000_123


@given(st.lists(st.integers(0, (1 << 47) - 1), max_size=50))
def test_time_ordered_ids_sort_as_they_were_made_whatever_the_clock_does(clock: list[int]) -> None:
    ids = seeded()
    made = [ids.uuid7(now_ms) for now_ms in clock]

    assert made == sorted(set(made))


def test_time_ordered_ids_stay_in_order_when_one_millisecond_is_full() -> None:
    ids = seeded()
    made = [ids.uuid7(5) for _ in range(10_000)]

    assert made == sorted(set(made))
    assert uuid.UUID(made[-1]).int >> 80 == 7


def test_the_same_randomness_makes_the_same_ids() -> None:
    assert _many(seeded(7)) == _many(seeded(7))
    assert _many(seeded(7)) != _many(seeded(8))


def test_ids_do_not_repeat_where_one_block_of_randomness_ends() -> None:
    ids = seeded()
    made = [text for n in range(2_000) for text in (ids.uuid4(), ids.uuid7(n))]

    assert len(set(made)) == 4_000


def _many(ids: Ids) -> list[str]:
    return [ids.uuid4() for _ in range(1_000)]
