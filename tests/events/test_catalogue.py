from __future__ import annotations

import attrs
import pytest

from silo.events import catalogue
from silo.events.catalogue import EVENTS, Event, JobEvent

TAGS = {
    "ShardCreated": 1,
    "JobEnqueued": 10,
    "JobImported": 11,
    "JobReimported": 12,
    "CancellationRequested": 13,
    "JobFailed": 14,
    "JobCancelled": 15,
    "JobRestarted": 16,
    "JobExpedited": 17,
    "JobDeleted": 18,
    "JobForgotten": 19,
    "JobErased": 20,
    "ChainStarted": 30,
    "ChainDue": 31,
    "SlotGranted": 32,
    "SlotWaited": 33,
    "RateCheckDue": 34,
    "RateChecked": 35,
    "RateWaited": 36,
    "HoldersDropped": 37,
    "TaskLeased": 40,
    "LeaseRenewed": 41,
    "LeaseExpired": 42,
    "AttemptSucceeded": 43,
    "AttemptFailed": 44,
    "AttemptCancelled": 45,
    "AttemptImported": 46,
    "LimitCreated": 60,
    "RefreshScheduled": 61,
    "RefreshLeased": 62,
    "RefreshRenewed": 63,
    "RefreshSucceeded": 64,
    "RefreshFailed": 65,
    "RefreshExpired": 66,
    "BucketWaited": 70,
    "BucketForgotten": 71,
    "ErasureRequested": 80,
    "ErasureFinished": 81,
    "CursorMoved": 82,
    "CursorDeleted": 83,
    "LogCut": 84,
}
"""What logs are full of.  Lines are added here; none is ever changed or removed."""


def test_a_tag_means_the_same_for_ever():
    assert {kind.__name__: kind.TAG for kind in EVENTS} == TAGS


def test_no_two_types_share_a_tag():
    assert len({kind.TAG for kind in EVENTS}) == len(EVENTS)


def test_every_fact_of_the_module_is_in_the_list():
    defined = {
        value
        for value in vars(catalogue).values()
        # What has no tag is only what others have in common.
        if isinstance(value, type) and issubclass(value, Event) and value.TAG
    }
    assert defined == set(EVENTS)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_a_fact_says_in_words_what_it_means(kind):
    assert kind.__doc__
    assert kind.VERSION >= 1


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_the_stamp_is_not_given_by_whoever_emits_a_fact(kind):
    stamp = {field.name for field in attrs.fields(kind) if not field.init}
    expected = {"seq", "time_ms", "actor", "method"} | ({"prev"} if issubclass(kind, JobEvent) else set())
    assert stamp == expected
