"""A tenant's hash is the one that every client of the protocol computes."""

from __future__ import annotations

import pytest

from silo.domain.tenants import DEFAULT_TENANT, tenant_hash


@pytest.mark.parametrize(
    ("tenant", "expected"),
    [
        ("", "ef46db3751d8e999"),
        ("-", "7a162ebe4ce6fc55"),
        ("tenant-a", "24cbcbec76c2694a"),
        ("tenant-b", "d2320a2aacf4fb75"),
        ("customer-123", "0bb632d435317a69"),
        ("env-1", "c9e27457ebe2c8a1"),
        ("env-10000468093", "a30d853ca15b32d6"),
        ("日本", "80c2e40b8486afab"),
        ("x" * 64, "a97161d5402f516e"),
    ],
)
def test_the_hash_is_xxh64_as_sixteen_lower_case_hex_digits(tenant: str, expected: str) -> None:
    assert tenant_hash(tenant) == expected


def test_jobs_without_a_tenant_all_lie_at_one_place() -> None:
    assert tenant_hash(DEFAULT_TENANT) == "7a162ebe4ce6fc55"
