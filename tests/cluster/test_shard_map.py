"""Each tenant has exactly one owner, and a stored map is read back or refused."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.cluster.ranges import HashRange
from silo.cluster.shard_map import MappedShard, ShardMap
from silo.domain.ids import Ids
from silo.domain.tenants import DEFAULT_TENANT, tenant_hash
from silo.errors import Corrupt

HALF = "8000000000000000"


def a_map(count: int = 8, seed: int = 1) -> ShardMap:
    return ShardMap.initial(count, created_at_ms=1_000, new_id=Ids(random.Random(seed).randbytes).uuid4)


def test_a_first_map_has_the_shards_asked_for_in_the_order_of_their_ranges() -> None:
    shards = a_map(3).shards

    assert [str(shard.range) for shard in shards] == [
        "[-∞, 5555555555555555)",
        "[5555555555555555, aaaaaaaaaaaaaaaa)",
        "[aaaaaaaaaaaaaaaa, +∞)",
    ]
    assert len({shard.id for shard in shards}) == 3
    assert {shard.created_at_ms for shard in shards} == {1_000}


def test_jobs_without_a_tenant_belong_to_the_shard_that_holds_their_hash() -> None:
    shards = a_map(8)

    assert shards.owner_of(tenant_hash(DEFAULT_TENANT)) == shards.shards[3]


@given(st.integers(1, 50), st.text(max_size=20))
def test_the_owner_of_a_tenant_is_the_one_shard_whose_range_holds_it(count: int, tenant: str) -> None:
    shards = a_map(count)
    place = tenant_hash(tenant)

    assert [shards.owner_of(place)] == [shard for shard in shards.shards if shard.range.contains(place)]


def test_a_bound_belongs_to_the_shard_that_starts_there() -> None:
    shards = a_map(2)

    assert shards.owner_of(HALF) == shards.shards[1]
    assert shards.owner_of("7fffffffffffffff") == shards.shards[0]


def test_a_shard_is_found_by_its_id() -> None:
    shards = a_map()

    assert shards.find(shards.shards[5].id) == shards.shards[5]
    assert shards.find("67e55044-10b1-426f-9247-bb680e5fe0c8") is None


@pytest.mark.parametrize(
    ("ranges", "flaw"),
    [
        pytest.param([], "there are no ranges", id="no shards"),
        pytest.param([HashRange("", HALF)], "nothing covers the hashes from 8000000000000000", id="a gap"),
        pytest.param([HashRange(HALF, ""), HashRange("", HALF)], "below 8000000000000000", id="out of order"),
    ],
)
def test_a_map_that_leaves_tenants_without_an_owner_cannot_be_made(
    ranges: list[HashRange], flaw: str
) -> None:
    ids = map(str, itertools.count())

    with pytest.raises(Corrupt, match=re.escape(flaw)):
        ShardMap(tuple(MappedShard(next(ids), part, 0) for part in ranges))


def test_a_map_that_names_a_shard_twice_cannot_be_made() -> None:
    with pytest.raises(Corrupt, match="a shard id occurs twice"):
        ShardMap((MappedShard("a", HashRange("", HALF), 0), MappedShard("a", HashRange(HALF, ""), 0)))


@given(st.integers(1, 50), st.integers(0, 1_000))
def test_a_stored_map_is_read_back_as_it_was(count: int, seed: int) -> None:
    shards = a_map(count, seed)

    assert ShardMap.from_json(shards.to_json()) == shards


def test_a_stored_map_is_json_with_a_shard_a_line() -> None:
    stored = a_map(2).to_json()

    assert [shard["start"] for shard in json.loads(stored)["shards"]] == ["", HALF]
    assert len([line for line in stored.splitlines() if b'"start"' in line]) == 2


def _without_format(document: dict[str, Any]) -> None:
    del document["format"]


def _of_the_future(document: dict[str, Any]) -> None:
    document["format"] = 2


def _with_a_bad_id(document: dict[str, Any]) -> None:
    document["shards"][0]["id"] = "first"


def _with_a_bad_bound(document: dict[str, Any]) -> None:
    document["shards"][0]["end"] = "8"


def _with_a_number_for_a_bound(document: dict[str, Any]) -> None:
    document["shards"][0]["end"] = 8


def _with_a_shard_less(document: dict[str, Any]) -> None:
    del document["shards"][0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_format, "KeyError: 'format'"),
        (_of_the_future, "format 2 was written by another version"),
        (_with_a_bad_id, "invalid shard ID: first"),
        (_with_a_bad_bound, "invalid hash bound '8'"),
        (_with_a_number_for_a_bound, "TypeError"),
        (_with_a_shard_less, "nothing covers the hashes below"),
    ],
)
def test_a_damaged_map_is_refused_with_the_damage(
    damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = json.loads(a_map(2).to_json())
    damage(document)

    with pytest.raises(Corrupt, match=re.escape(message)):
        ShardMap.from_json(json.dumps(document).encode())


@pytest.mark.parametrize("stored", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_what_is_no_map_at_all_is_refused(stored: bytes) -> None:
    with pytest.raises(Corrupt, match="shard map"):
        ShardMap.from_json(stored)
