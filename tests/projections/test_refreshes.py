from __future__ import annotations

import pytest

from silo.errors import Corrupt
from silo.events.catalogue import LimitCreated, RefreshExpired, RefreshLeased, RefreshScheduled
from silo.projections.leases import EXPIRIES, LEASES, LeaseRow
from silo.projections.refreshes import REFRESHES, RefreshRow
from tests.builders import LATER, NOW, fact
from tests.story import Story


def test_a_refresh_waits_for_a_worker_of_its_group():
    story = Story().given(fact(LimitCreated), fact(RefreshScheduled))

    assert story.table(REFRESHES) == {("group", NOW, 2): RefreshRow("acme", "queue", "task-1")}


def test_refreshes_of_a_group_are_in_the_order_in_which_they_were_scheduled():
    # Two tenants may name a limit alike, and be due in the same millisecond.
    story = Story()
    for tenant, queue in (("b", "queue"), ("a", "queue"), ("a", "other")):
        about = {"tenant": tenant, "queue": queue}
        story.given(fact(LimitCreated, **about), fact(RefreshScheduled, task_id=f"{tenant} {queue}", **about))

    assert [row.task_id for row in story.table(REFRESHES).values()] == ["b queue", "a queue", "a other"]


def test_a_refresh_that_is_leased_waits_no_more_and_has_a_lease():
    story = Story().given(fact(LimitCreated), fact(RefreshScheduled)).at(NOW + 5)
    story.given(fact(RefreshLeased, expires_ms=LATER))

    assert not story.table(REFRESHES)
    assert story.table(LEASES) == {("task-1",): LeaseRow("acme", "", "queue", "worker", LATER)}
    story.given(fact(RefreshExpired))
    assert not story.table(LEASES)
    assert not story.table(EXPIRIES)


def test_what_was_not_scheduled_cannot_be_leased():
    with pytest.raises(Corrupt, match="event 2 leases a refresh of queue, which has none"):
        Story().given(fact(LimitCreated), fact(RefreshLeased))
