from __future__ import annotations

import pytest

from silo.domain.jobs import JobStatus
from silo.events.catalogue import JobDeleted, JobEnqueued, JobForgotten
from silo.projections.counters import COUNTS, WHOLE_SHARD, CountRow
from tests.builders import (
    cancelled_by_client,
    cancelled_by_worker,
    fact,
    failed,
    pending,
    running,
    succeeded,
    waiting_for_retry,
)
from tests.story import Story


@pytest.mark.parametrize(
    ("life", "status"),
    [
        (pending, JobStatus.SCHEDULED),
        (running, JobStatus.RUNNING),
        (succeeded, JobStatus.SUCCEEDED),
        (failed, JobStatus.FAILED),
        (cancelled_by_client, JobStatus.CANCELLED),
        (cancelled_by_worker, JobStatus.CANCELLED),
        (waiting_for_retry, JobStatus.SCHEDULED),
    ],
)
def test_a_job_counts_once_under_its_status(life, status):
    story = Story().given(*life())

    expected = CountRow(tuple(int(one is status) for one in JobStatus))
    assert story.table(COUNTS) == {("",): expected, ("acme",): expected}
    assert (expected.total, expected.completed) == (1, int(status.is_terminal))


@pytest.mark.parametrize("gone", [JobDeleted, JobForgotten])
def test_a_job_that_is_gone_counts_no_more_and_an_empty_tenant_takes_no_room(gone):
    story = Story().given(*succeeded(), fact(JobEnqueued, tenant="other"), fact(gone))

    assert story.row(COUNTS, "acme") is None
    assert story.row(COUNTS, WHOLE_SHARD).by_status == (1, 0, 0, 0, 0)
