"""A made-up event with three versions: (size) became (size, colour), which became (size, colour, weight)."""

from __future__ import annotations

import pytest

from silo.events import codec
from silo.events.catalogue import JobDeleted, ShardCreated
from silo.events.packing import to_bytes
from silo.events.upcasts import upcast

TAG = 99
STEPS = {
    (TAG, 1): lambda fields: [*fields, "red"],
    (TAG, 2): lambda fields: [*fields, fields[0] * 10],
}


@pytest.mark.parametrize(
    ("version", "fields"),
    [(1, [5]), (2, [5, "red"]), (3, [5, "red", 50])],
    ids=["oldest", "older", "today's"],
)
def test_a_fact_of_any_age_arrives_in_todays_shape(version, fields):
    # A60
    assert upcast(TAG, version, 3, fields, STEPS) == [5, "red", 50]


def test_a_fact_from_the_future_is_refused():
    with pytest.raises(ValueError, match=r"^version 4 is newer than this program, which knows 3$"):
        upcast(TAG, 4, 3, [5, "red", 50, "?"], STEPS)


def test_a_missing_step_is_told():
    with pytest.raises(ValueError, match=r"^there is no upcaster from version 2$"):
        upcast(TAG, 1, 3, [5], {(TAG, 1): STEPS[(TAG, 1)]})


def test_the_steps_of_one_type_say_nothing_about_another():
    with pytest.raises(ValueError, match="no upcaster from version 1"):
        upcast(TAG + 1, 1, 2, [5], STEPS)


def test_the_codec_upcasts_what_it_reads(monkeypatch):
    # Version 1 had the name in two halves.
    monkeypatch.setattr(ShardCreated, "VERSION", 2)
    record = to_bytes([[7, "actor", "", [[ShardCreated.TAG, 1, "left", "right"]]]])
    steps = {(ShardCreated.TAG, 1): lambda fields: ["-".join(fields)]}

    (event,) = codec.decode(3, record, upcasts=steps)
    assert event == ShardCreated(shard_id="left-right")
    assert (event.seq, event.time_ms, event.actor) == (3, 7, "actor")


def test_an_old_fact_of_a_job_keeps_its_place_in_the_jobs_history(monkeypatch):
    monkeypatch.setattr(JobDeleted, "VERSION", 2)
    record = to_bytes([[7, "actor", "", [[JobDeleted.TAG, 1, 41, "acme/j1"]]]])

    (event,) = codec.decode(42, record, upcasts={(JobDeleted.TAG, 1): lambda fields: fields[0].split("/")})
    assert event == JobDeleted(tenant="acme", job_id="j1")
    assert event.prev == 41
