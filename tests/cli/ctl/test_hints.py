from __future__ import annotations

import pytest
from grpc import StatusCode

from silo.cli.ctl.hints import way_out


def hint(code, details="", *, named_by="", has_token=False):
    return way_out(code, details, address="silo-1:7450", named_by=named_by, has_token=has_token)


@pytest.mark.parametrize(
    ("code", "details", "words"),
    [
        pytest.param(
            StatusCode.UNAVAILABLE,
            "failed to connect to all addresses; last error: ...: Connection refused",
            "no server answers at silo-1:7450: start one with `silo serve`",
            id="nobody listens",
        ),
        pytest.param(
            StatusCode.UNAVAILABLE,
            "errors resolving silo-1:7450: [...Domain name not found]",
            "no server answers at silo-1:7450",
            id="no such machine",
        ),
        pytest.param(
            StatusCode.UNAVAILABLE,
            "shard not ready: acquisition in progress",
            "try again in a moment",
            id="not yet",
        ),
        pytest.param(
            StatusCode.FAILED_PRECONDITION,
            "tenant 'it''s a b' is not within shard 1 range [-∞, +∞); refresh topology and retry",
            """`siloctl tenant locate 'it'"'"''"'"'s a b'` tells which shard""",
            id="another shard's tenant",
        ),
    ],
)
def test_an_error_has_a_way_out(code, details, words):
    assert words in hint(code, details)


def test_an_address_that_a_node_gave_is_looked_for_there():
    said = hint(StatusCode.UNAVAILABLE, "failed to connect to all addresses", named_by="localhost:7450")

    assert "the address that localhost:7450 gives" in said
    assert "coordination.advertised_grpc_addr" in said


def test_a_token_is_missing_or_wrong():
    assert "wants a token" in hint(StatusCode.UNAUTHENTICATED)
    assert "is not the server's" in hint(StatusCode.UNAUTHENTICATED, has_token=True)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (StatusCode.NOT_FOUND, "job not found"),
        (StatusCode.FAILED_PRECONDITION, "job is already cancelled"),
        (StatusCode.INTERNAL, "shard 1 has stopped: ..."),
    ],
)
def test_an_error_that_says_it_all_has_no_hint(code, details):
    assert hint(code, details) == ""
