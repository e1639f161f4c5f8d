from __future__ import annotations

import inspect

import grpc
import pytest

from silo import errors
from silo.errors import (
    AlreadyExists,
    Corrupt,
    Fenced,
    JobInProgress,
    JobNotFound,
    LeaseNotFound,
    Refused,
    ShardNotFound,
    ShardNotReady,
    SiloError,
    WrongState,
)
from silo.server.statuses import STATUSES, details_of, in_words, status_of, trailers_of

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SiloError)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_reaches_a_client_as_internal_by_neglect(kind):
    families = {SiloError, Refused}
    assert kind in families or any(above in STATUSES for above in kind.__mro__)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(JobNotFound(), "NOT_FOUND", id="no such job"),
        pytest.param(LeaseNotFound(), "NOT_FOUND", id="no such lease"),
        pytest.param(ShardNotFound(), "NOT_FOUND", id="shard is elsewhere"),
        pytest.param(AlreadyExists("j"), "ALREADY_EXISTS", id="id is taken"),
        pytest.param(WrongState("no"), "FAILED_PRECONDITION", id="state rules it out"),
        pytest.param(JobInProgress("j"), "INTERNAL", id="job has not ended"),
        pytest.param(ShardNotReady("no"), "UNAVAILABLE", id="shard opens"),
        pytest.param(Fenced("no"), "UNAVAILABLE", id="shard was taken over"),
        pytest.param(Corrupt("no"), "INTERNAL", id="bytes cannot be read"),
    ],
)
def test_an_error_has_the_status_of_its_family(error, code):
    assert status_of(error) is grpc.StatusCode[code]


def test_a_client_is_sent_on_to_the_owner_as_far_as_he_is_known():
    assert trailers_of(ShardNotFound(owner_addr="h:1", owner_node="n")) == (
        ("x-silo-shard-owner-addr", "h:1"),
        ("x-silo-shard-owner-node", "n"),
    )
    assert trailers_of(ShardNotFound()) == ()
    assert trailers_of(JobNotFound()) == ()


def test_an_internal_error_never_looks_like_a_broken_connection():
    assert "RST_STREAM" not in details_of(Corrupt("block RST_STREAM is torn"))


def test_a_status_in_words_is_what_operators_know():
    assert (
        in_words(grpc.StatusCode.NOT_FOUND, "job not found") == 'status: NotFound, message: "job not found"'
    )
