from __future__ import annotations

import pytest

from silo.domain.jobs import LEASE_MS
from silo.events.catalogue import AttemptCancelled, AttemptFailed, AttemptSucceeded, LeaseRenewed
from silo.projections.leases import EXPIRIES, LEASES, LeaseRow
from tests.builders import NOW, fact, running
from tests.story import Story

EXPIRY = NOW + LEASE_MS


def test_a_lease_is_found_by_its_task_and_in_the_order_of_expiry():
    story = Story().given(*running())

    assert story.table(LEASES) == {("task-1",): LeaseRow("acme", "j1", None, "worker", EXPIRY)}
    assert list(story.table(EXPIRIES)) == [(EXPIRY, "task-1")]


@pytest.mark.parametrize("expires_ms", [EXPIRY + 1, EXPIRY])
def test_a_renewed_lease_is_in_the_order_once(expires_ms):
    story = Story().given(*running(), fact(LeaseRenewed, expires_ms=expires_ms))

    assert story.row(LEASES, "task-1").expires_ms == expires_ms
    assert list(story.table(EXPIRIES)) == [(expires_ms, "task-1")]


@pytest.mark.parametrize("kind", [AttemptSucceeded, AttemptFailed, AttemptCancelled])
def test_the_end_of_an_attempt_ends_its_lease(kind):
    story = Story().given(*running(), fact(LeaseRenewed, expires_ms=EXPIRY + 9), fact(kind))

    assert not story.table(LEASES)
    assert not story.table(EXPIRIES)
