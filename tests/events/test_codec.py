from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import Corrupt
from silo.events.catalogue import EVENTS, AttemptFailed, Event, JobEnqueued, JobEvent, ShardCreated
from silo.events.codec import decode, encode, job_names
from silo.events.packing import from_bytes, to_bytes
from tests.builders import NOW, fact, stamped
from tests.events.strategies import events_of, logs


def everything(event: Event) -> tuple:
    """All of a fact, its stamp included, which does not count when facts are compared."""
    return (type(event), *(getattr(event, field.name) for field in attrs.fields(type(event))))


@given(logs())
def test_what_was_encoded_is_decoded_stamp_and_all(events):
    decoded = decode(events[0].seq, encode(events))

    assert [everything(event) for event in decoded] == [everything(event) for event in events]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_type_of_fact_comes_back_as_itself(kind):
    @given(events_of(kind))
    def comes_back(event):
        (decoded,) = decode(1, encode([stamped(event)]))
        assert everything(decoded) == everything(event)
        for field in attrs.fields(kind):
            assert type(getattr(decoded, field.name)) is type(getattr(event, field.name))

    comes_back()


@given(logs())
def test_the_jobs_of_a_record_are_told_without_decoding_it(events):
    about = [(event.seq, event.tenant, event.job_id) for event in events if isinstance(event, JobEvent)]

    assert list(job_names(events[0].seq, encode(events))) == about


def test_the_jobs_of_a_record_of_an_older_version_are_told_too():
    record = to_bytes([[NOW, "ann", "Method", [[JobEnqueued.TAG, 99, 0, "x"]]]])

    with pytest.raises(Corrupt, match="event 5 cannot be decoded"):
        list(job_names(5, record))


@given(logs())
def test_the_same_facts_are_the_same_bytes(events):
    assert encode(decode(events[0].seq, encode(events))) == encode(events)


def test_facts_of_one_command_share_their_stamp():
    one = [stamped(fact(JobEnqueued), seq=seq) for seq in (1, 2, 3)]
    alone = len(encode(one[:1]))

    actor = len("actor") + len("Method")
    assert len(encode(one)) < 3 * alone - 2 * actor


# --- what cannot be understood --------------------------------------------------------------------------------


def a_record(*packed: list, time_ms: int = NOW) -> bytes:
    return to_bytes([[time_ms, "actor", "Method", list(packed)]])


GOOD = [ShardCreated.TAG, 1, "shard"]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        pytest.param(b"", "event 7 cannot be decoded", id="nothing"),
        pytest.param(b"garbage", "event 7 cannot be decoded", id="garbage"),
        pytest.param(b"\xc1", "event 7 cannot be decoded", id="what MessagePack never writes"),
        pytest.param(to_bytes([]), "event 7 cannot be decoded", id="no command"),
        pytest.param(to_bytes({}), "event 7 cannot be decoded", id="no list of commands"),
        pytest.param(to_bytes(None), "event 7 cannot be decoded", id="nil"),
        pytest.param(a_record(), "event 7 cannot be decoded", id="no event"),
        pytest.param(a_record(GOOD)[:-1], "event 7 cannot be decoded", id="cut off"),
        pytest.param(a_record(GOOD) + b"\x00", "event 7 cannot be decoded", id="too long"),
        pytest.param(a_record([9999, 1, "x"]), "event 7 .* type 9999 is unknown", id="an unknown type"),
        pytest.param(a_record(GOOD, [9999, 1]), "event 8 .* type 9999 is unknown", id="the second of two"),
        pytest.param(
            a_record([ShardCreated.TAG, 99, "x"]),
            "event 7 .* version 99 is newer than this program, which knows 1",
            id="a version of the future",
        ),
        pytest.param(
            a_record([ShardCreated.TAG, 0, "x"]), "event 7 .* no upcaster from version 0", id="version 0"
        ),
        pytest.param(
            a_record([ShardCreated.TAG, 1]), "event 7 .* has 1 fields, but 0 are stored", id="short"
        ),
        pytest.param(a_record([ShardCreated.TAG, 1, "x", 1]), "event 7 .* but 2 are stored", id="long"),
        pytest.param(a_record([ShardCreated.TAG, 1, 5]), "event 7 .* expected str, found int", id="mistyped"),
        pytest.param(a_record([]), "event 7 cannot be decoded", id="an empty event"),
        pytest.param(
            a_record([AttemptFailed.TAG, 1]), "event 7 cannot be decoded", id="an event without prev"
        ),
    ],
)
def test_what_cannot_be_understood_is_named_and_never_skipped(record, text):
    with pytest.raises(Corrupt, match=text):
        decode(7, record)


@given(st.binary())
def test_no_bytes_make_the_decoder_fail_in_another_way(record):
    try:
        events = decode(1, record)
    except Corrupt:
        return
    assert events


@given(logs(), st.data())
def test_a_damaged_record_is_understood_or_refused(events, data):
    record = bytearray(encode(events))
    record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode(events[0].seq, bytes(record))
    except Corrupt:
        return
    assert [event.seq for event in decoded] == list(range(events[0].seq, events[0].seq + len(decoded)))
    assert from_bytes(bytes(record))
