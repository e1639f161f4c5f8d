from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.domain.jobs import JobStatus
from silo.errors import Corrupt
from silo.events.catalogue import JobDeleted
from silo.projections.attempts import ATTEMPTS
from silo.projections.counters import COUNTS
from silo.projections.fold import TABLES
from silo.projections.jobs import JOBS, Place
from silo.projections.leases import LEASES
from silo.projections.tasks import READY
from silo.projections.view import Table, existing
from tests.builders import a_policy, fact, stamped, waiting_for_retry
from tests.story import Story

TAGS = {
    "jobs": 0x10,
    "jobs_by_status": 0x11,
    "jobs_by_metadata": 0x12,
    "attempts": 0x18,
    "payloads": 0x19,
    "ready": 0x20,
    "timers": 0x21,
    "forgetting": 0x22,
    "leases": 0x30,
    "lease_expiries": 0x31,
    "counts": 0x40,
    "queues": 0x50,
    "holders": 0x51,
    "waiters": 0x52,
    "unsettled": 0x53,
    "refreshes_due": 0x54,
    "refreshes": 0x55,
    "buckets": 0x58,
    "bucket_lines": 0x59,
    "bucket_timers": 0x5A,
    "rate_checks": 0x5B,
    "cursors": 0x60,
    "erasures": 0x61,
    "log_cuts": 0x62,
}


@attrs.define
class Pair:
    name: str
    size: int | None


PAIRS = Table("pairs", tag=0x77, row=Pair)


@given(st.builds(Pair, st.text(), st.none() | st.integers(-(1 << 63), (1 << 63) - 1)))
def test_a_row_comes_back_from_its_bytes(row):
    assert PAIRS.decode(PAIRS.encode(row)) == row


@given(st.binary())
def test_rows_that_are_bytes_are_passed_through(raw):
    table = Table("raw", tag=0x78, row=bytes)

    assert table.encode(raw) == raw
    assert table.decode(raw) == raw


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x91\x01", b"\x92\x01\x01"])
def test_bytes_that_are_no_row_are_noticed(raw):
    with pytest.raises((ValueError, TypeError)):
        PAIRS.decode(raw)


def test_every_row_of_a_busy_shard_comes_back_from_its_bytes_as_itself():
    story = Story().given(*waiting_for_retry(retry_policy=a_policy(), metadata=(("a", "b"),)))
    for table in (JOBS, COUNTS, READY, LEASES, ATTEMPTS):
        for row in story.table(table).values():
            assert table.decode(table.encode(row)) == row

    row = JOBS.decode(JOBS.encode(story.job()))
    assert row.status is JobStatus.SCHEDULED
    assert row.chain.place is Place.TIMER
    assert row.spec == story.job().spec


def test_a_key_belongs_to_a_queue():
    assert READY.queue(("group", 1, 2, 3)) == ("group",)
    assert Table("one", tag=0x79, row=bytes, front=0).queue((5, "x")) == ()


def test_a_tag_means_the_same_for_ever_and_stays_clear_of_the_log_and_the_notes():
    assert {table.name: table.tag for table in TABLES} == TAGS
    assert len({table.tag for table in TABLES}) == len(TABLES)
    assert all(2 < table.tag < 0xFF for table in TABLES)


def test_what_an_event_takes_for_granted_exists_or_log_and_rows_contradict_each_other():
    event = stamped(fact(JobDeleted), seq=7)

    text = r"^event 7 \(JobDeleted\) needs jobs \('acme', 'j1'\), which does not exist$"
    with pytest.raises(Corrupt, match=text):
        Story().when(lambda _, draft: existing(draft.view, JOBS, ("acme", "j1"), event))
