"""Old records are read for ever: one record for each type and version of event, and beside it how it reads.

A `.bin` file is a log record as some release wrote it, and is never made again.  Its `.txt` file is the event in today's
shape.  It changes only when a new version of the type is introduced, by just what the upcaster adds.  For a new type or
version, write the missing pair with

    python -m tests.events.test_golden

which touches no file that exists.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import pytest

from silo.domain.jobs import AttemptStatus, JobStatus
from silo.domain.limits import Algorithm
from silo.events.catalogue import EVENTS, Event
from silo.events.codec import decode, encode
from silo.events.packing import from_bytes
from silo.ratelimit.buckets import Bucket
from tests.builders import a_floating_limit, a_limit, a_policy, a_rate_limit, a_spec, fact, stamped

GOLDEN = Path(__file__).parent / "golden"
FIRST_SEQ = 1_234

SAMPLE = {
    "tenant": "acme",
    "job_id": "grüße-1",
    "shard_id": "018f2f6e-0000-7000-8000-000000000001",
    "spec": a_spec(
        priority=42,
        task_group="mails",
        enqueue_time_ms=1_700_000_000_000,
        retry_policy=a_policy(randomize_interval=True, backoff_factor=1.5),
        metadata=(("colour", "blau"), ("empty", "")),
        limits=(
            a_limit(7, "customer-1"),
            a_rate_limit(100, behavior=20, algorithm=Algorithm.LEAKY_BUCKET),
            a_floating_limit(3, "provider", metadata=(("region", "süd"),)),
        ),
    ),
    "payload": b"\x00payload\xff",
    "retry_policy": a_policy(retry_count=9),
    "status": {"AttemptImported": AttemptStatus.FAILED, "JobImported": JobStatus.CANCELLED},
    "changed_ms": 1_700_000_000_001,
    "forget_ms": 1_700_000_086_400,
    "start_ms": -1,
    "virtual_start_ms": (1 << 63) - 1,
    "error_data": b"\x00\xff",
    "bucket": Bucket(since_ms=1_700_000_000_000, expires_ms=1_700_000_060_000, hits=3, part=1, parts=7),
    "retry_ms": 1_700_000_000_100,
    "metadata": (("region", "süd"),),
    "queues": ("a", "b"),
}


def name_of(kind: type[Event]) -> str:
    return f"{kind.__name__}.v{kind.VERSION}"


def reading(value: Any, indent: str = "") -> str:
    """A value in words, a field a line."""
    if attrs.has(type(value)):
        # The stamp first: what an event has beside its own fields.
        named = sorted(attrs.fields(type(value)), key=lambda field: field.init)
        fields = [(field.name, getattr(value, field.name)) for field in named]
        lines = [f"{indent}  {name}: {reading(part, indent + '  ')}" for name, part in fields]
        return "\n".join([type(value).__name__, *lines])
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    return ascii(value)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda path: path.stem)
def test_an_old_record_reads_as_it_always_did(path):
    # A60
    (event,) = decode(FIRST_SEQ, path.read_bytes())

    assert reading(event) + "\n" == path.with_suffix(".txt").read_text()


@pytest.mark.parametrize("kind", EVENTS, ids=name_of)
def test_every_type_and_version_has_its_record(kind):
    """Without one, see the top of this file."""
    assert (GOLDEN / f"{name_of(kind)}.bin").exists()
    for version in range(1, kind.VERSION):
        assert (GOLDEN / f"{kind.__name__}.v{version}.bin").exists()


@pytest.mark.parametrize("kind", EVENTS, ids=name_of)
def test_todays_records_are_written_as_they_always_were(kind):
    assert encode([a_sample(kind)]) == (GOLDEN / f"{name_of(kind)}.bin").read_bytes()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda path: path.stem)
def test_a_record_is_of_the_type_and_version_that_its_name_says(path):
    ((_, _, _, ((tag, version, *_),)),) = from_bytes(path.read_bytes())
    (kind,) = (kind for kind in EVENTS if tag == kind.TAG)

    assert path.stem == f"{kind.__name__}.v{version}"


def a_sample(kind: type[Event]) -> Event:
    fields = {field.name for field in attrs.fields(kind) if field.init}
    but = {name: value for name, value in SAMPLE.items() if name in fields}
    if "status" in but:
        but["status"] = SAMPLE["status"].get(kind.__name__, JobStatus.SUCCEEDED)
    return stamped(fact(kind, **but), seq=FIRST_SEQ, time_ms=1_700_000_000_002, prev=1_200)


def write_missing() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for kind in EVENTS:
        path = GOLDEN / f"{name_of(kind)}.bin"
        if not path.exists():
            path.write_bytes(encode([a_sample(kind)]))
            path.with_suffix(".txt").write_text(reading(a_sample(kind)) + "\n")


if __name__ == "__main__":
    write_missing()
