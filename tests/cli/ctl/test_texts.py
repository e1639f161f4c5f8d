from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.cli.ctl.texts import as_json, moment, table, unpacked


@pytest.fixture
def in_kolkata(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_moment_is_told_in_local_time_and_as_it_is(in_kolkata):
    assert moment(1_795_647_520_868) == "2026-11-26T04:28:40.868+05:30 (1795647520868 ms)"
    assert moment(-1) == "1970-01-01T05:29:59.999+05:30 (-1 ms)"


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_moment_beyond_the_calendar_is_told_as_it_is(ms):
    assert f"{ms} ms" in moment(ms)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param({"a": [1, None, True, "ü", 1.5]}, {"a": [1, None, True, "ü", 1.5]}, id="what JSON has"),
        pytest.param({1: "x", None: "y", b"k": "z"}, {"1": "x", "null": "y", "6b": "z"}, id="keys are texts"),
        pytest.param(b"\x01\xff", "01ff", id="bytes are hex"),
        pytest.param(float("nan"), "nan", id="no number"),
        pytest.param(datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00", id="a time"),
        pytest.param([msgpack.ExtType(0, b"\x00")], [None], id="undefined of JavaScript"),
        pytest.param(msgpack.ExtType(7, b"\xab"), "ab", id="an extension that nobody knows"),
    ],
)
def test_messagepack_is_shown_as_json(value, shown):
    data = msgpack.packb(value, datetime=True)

    assert unpacked(data) == shown
    assert json.loads(as_json(data)) == shown


@given(st.binary(min_size=1, max_size=60))
def test_bytes_are_shown_whatever_they_are(data):
    said = as_json(data)
    try:
        assert json.loads(said) == unpacked(data)
    except ValueError:
        assert said == data.hex()


@pytest.mark.parametrize(
    "data", [b"\x91" * 900 + b"\xc0", b"\x91" * 100_000 + b"\xc0", b"\x81\x90\x01", b"\xc1"]
)
def test_bytes_that_json_cannot_say_are_hex(data):
    assert as_json(data) == data.hex()


def test_no_bytes_are_no_text():
    assert as_json(b"") == ""


def test_a_table_is_as_wide_as_its_texts():
    assert table(["A", "Long"], [["1234", "x"]]) == "A     Long\n----  ----\n1234  x"
