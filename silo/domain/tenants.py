"""Where on the hash line does a tenant lie?

Clients compute the same hash to find the shard that owns a tenant, so it is part of the wire contract: XXH64
with seed 0 over the tenant's UTF-8 bytes, rendered as exactly 16 lower-case hex digits.  As the digits are
zero padded, hashes compare as strings in the order of their numbers.
"""

from __future__ import annotations

import xxhash

DEFAULT_TENANT = "-"
"""Whose jobs they are while tenancy is off.  Stored, but never shown to a client."""


def tenant_hash(tenant: str) -> str:
    """The tenant's place on the hash line: 16 lower-case hex digits."""
    return xxhash.xxh64_hexdigest(tenant.encode())
