"""Does the generated code speak pb.gubernator exactly?"""

from __future__ import annotations

import pytest

from silo.pb import gubernator_pb2
from tests.conformance.described import describe, file_of

TABLE = {
    "enum Algorithm": {0: "TOKEN_BUCKET", 1: "LEAKY_BUCKET"},
    "enum Behavior": {
        0: "BATCHING",
        1: "NO_BATCHING",
        2: "GLOBAL",
        4: "DURATION_IS_GREGORIAN",
        8: "RESET_REMAINING",
        16: "MULTI_REGION",
        32: "DRAIN_OVER_LIMIT",
    },
    "enum Status": {0: "UNDER_LIMIT", 1: "OVER_LIMIT"},
    "message RateLimitReq": {
        1: "name string",
        2: "unique_key string",
        3: "hits int64",
        4: "limit int64",
        5: "duration int64",
        6: "algorithm Algorithm",
        7: "behavior int32",
        8: "burst int64",
        9: "metadata map",
        10: "created_at int64",
    },
    "message RateLimitResp": {
        1: "status Status",
        2: "limit int64",
        3: "remaining int64",
        4: "reset_time int64",
        5: "error string",
        6: "metadata map",
    },
    "message GetRateLimitsReq": {1: "requests rep RateLimitReq"},
    "message GetRateLimitsResp": {1: "responses rep RateLimitResp"},
    "message HealthCheckReq": {},
    "message HealthCheckResp": {1: "status string", 2: "message string", 3: "peer_count int32"},
    "service V1": {
        "GetRateLimits": "GetRateLimitsReq returns GetRateLimitsResp",
        "HealthCheck": "HealthCheckReq returns HealthCheckResp",
    },
}

FILE = file_of(gubernator_pb2.DESCRIPTOR)
GENERATED = describe(FILE)


@pytest.mark.parametrize("name", sorted(GENERATED.keys() | TABLE.keys()))
def test_generated_code_says_what_the_table_says(name):
    assert GENERATED.get(name) == TABLE.get(name)


def test_the_methods_are_found_under_their_full_names():
    [service] = gubernator_pb2.DESCRIPTOR.services_by_name.values()

    assert service.full_name == "pb.gubernator.V1"
    assert FILE.syntax == "proto3"
    assert not FILE.dependency
    assert not FILE.HasField("options")
