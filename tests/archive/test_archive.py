"""Files of events and rows: what is put in comes out, on a disk and in a bucket, for us and for others."""

from __future__ import annotations

import duckdb
import pytest
from obstore.store import MemoryStore

from silo.archive import archive as archive_module
from silo.archive import files
from silo.archive.archive import Archive
from silo.archive.files import Image, Stretch, parse, write_rows
from silo.archive.folder import Folder, InBucket, OnDisk, folder_of
from silo.errors import Corrupt, StoreFailed
from silo.events import codec
from silo.events.catalogue import ERASED, ChainStarted, Event, JobEnqueued
from silo.events.erasing import Target, Targets
from silo.events.log import first_seq_of, record_key
from silo.storage.stores import StoreSpec
from tests.builders import fact, stamped

FORMAT = "rows of today"


@pytest.fixture(params=["on a disk", "in a bucket"])
def folder(request, tmp_path) -> Folder:
    return (
        OnDisk(tmp_path / "archive", fsync=True)
        if request.param == "on a disk"
        else InBucket(MemoryStore(), "memory:///p", {})
    )


@pytest.fixture(autouse=True)
def _groups_are_small(monkeypatch):
    monkeypatch.setattr(files, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(archive_module, "BATCH_ROWS", 3)
    monkeypatch.setattr(archive_module, "EVENTS_PER_RECORD", 3)
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 3)


def some_events(first: int, last: int) -> list[Event]:
    kinds = (JobEnqueued, ChainStarted)
    return [
        stamped(fact(kinds[seq % 2], job_id=f"j{seq}"), seq=seq, time_ms=1_000 + seq)
        for seq in range(first, last + 1)
    ]


def an_archive(folder: Folder, *lasts: int) -> Archive:
    archive, first = Archive(folder), 1
    for last in lasts:
        events = some_events(first, last)
        archive.add_events(Stretch(first, last), [events[:2], events[2:]])
        first = last + 1
    return archive


def seqs(archive: Archive, first: int, end: int) -> list[int]:
    records = [(key, record) for page in archive.records(first, end) for key, record in page]
    events: list[Event] = []
    for key, record in records:
        told = codec.decode(first_seq_of(key), record)
        assert len(told) <= 3
        events += told
    assert events == some_events(events[0].seq, events[-1].seq) if events else True
    return [event.seq for event in events]


def test_events_come_out_as_they_went_in(folder):
    archive = an_archive(folder, 10, 13, 30)
    assert (archive.last_seq, len(archive.stretches)) == (30, 3)
    for first, end in ((1, 31), (1, 2), (10, 12), (11, 14), (5, 5), (29, 99), (31, 40), (3, 29)):
        assert seqs(archive, first, end) == list(range(first, min(end, 31)))
        columns = [row["seq"] for batch in archive.batches(first, end, ["type"]) for row in batch.to_pylist()]
        assert columns == list(range(first, min(end, 31)))
    assert archive.record(13)[0] == record_key(13)
    assert archive.record(31) is None
    again = Archive(folder)
    again.look()
    assert again.stretches == archive.stretches


def test_large_events_are_grouped_by_their_size(folder, monkeypatch):
    monkeypatch.setattr(files, "BYTES_PER_GROUP", 150)
    archive = an_archive(folder, 8)
    file = archive._open(Stretch(1, 8).name)
    assert 3 <= file.num_row_groups <= 8
    assert seqs(archive, 1, 9) == list(range(1, 9))


def test_rows_come_out_as_they_went_in_and_say_their_format(folder, tmp_path):
    archive = an_archive(folder, 3)
    rows = [(bytes((16, number)), bytes(number)) for number in range(11)]
    write_rows(tmp_path / "new", [rows[:5], rows[5:]], rows_format=FORMAT)
    archive.add_image(Image(3, 1_003), tmp_path / "new")
    write_rows(tmp_path / "old", [rows[:1]], rows_format="of old")
    archive.add_image(Image(2, 1_002), tmp_path / "old")
    assert [image.seq for image in archive.images] == [2, 3]
    assert [row for page in archive.rows(Image(3, 1_003)) for row in page] == rows
    assert archive.count(Image(3, 1_003)) == 11
    assert archive.image_before(9, rows_format=FORMAT) == Image(3, 1_003)
    assert archive.image_before(2, rows_format=FORMAT) is None
    assert archive.image_before(2, rows_format="of old") == Image(2, 1_002)
    archive.drop(Image(3, 1_003))
    archive.drop(Image(3, 1_003))
    assert [image.seq for image in archive.images] == [2]


def test_data_is_erased_and_files_without_any_of_it_are_left_alone(folder, monkeypatch):
    archive = an_archive(folder, 6, 12)
    assert seqs(archive, 1, 13)
    put: list[str] = []
    real = type(folder).put
    monkeypatch.setattr(
        type(folder), "put", lambda self, name, file: (put.append(name), real(self, name, file))[1]
    )

    targets = Targets([Target("acme", "j4", 7), Target("acme", "j8", 8), Target("else", None, 12)])
    assert archive.erase(targets) == 1
    assert put == [Stretch(1, 6).name]
    found = [
        event.payload
        for page in archive.records(1, 13)
        for _, record in page
        for event in codec.decode(1, record)
        if isinstance(event, JobEnqueued)
    ]
    assert [number for number, payload in enumerate(found) if payload == ERASED] == [1]
    columns = [row for batch in archive.batches(1, 13, ["seq", "data"]) for row in batch.to_pylist()]
    data = {row["seq"]: row["data"] for row in columns}
    assert data[4] != data[2] == data[6] == data[8]


def test_what_a_broker_left_that_died_does_no_harm(folder):
    archive = an_archive(folder, 5)
    archive.add_events(Stretch(1, 3), [some_events(1, 3)])
    archive.add_events(Stretch(6, 9), [some_events(6, 9)])
    archive.add_events(Stretch(7, 8), [some_events(7, 8)])
    assert archive.stretches == (Stretch(1, 5), Stretch(6, 9))
    assert seqs(archive, 1, 99) == list(range(1, 10))


def test_behind_a_gap_there_is_nothing(folder):
    archive = an_archive(folder, 5)
    archive.add_events(Stretch(8, 9), [some_events(8, 9)])
    assert archive.last_seq == 5


def test_other_files_are_left_alone():
    assert parse(["events-1-2.parquet", "README", "rows-00000000000000000003-7.parquet.draft"]) == ([], [])


def test_a_file_that_is_gone_or_damaged_is_named(tmp_path):
    archive = an_archive(OnDisk(tmp_path, fsync=False), 5)
    name = Stretch(1, 5).name
    (tmp_path / name).write_bytes(b"no parquet")
    with pytest.raises(Corrupt, match=f"archive file {name} cannot be read: "):
        archive.record(1)
    (tmp_path / name).unlink()
    with pytest.raises(Corrupt, match=f"archive file {name} cannot be read: .*No such file"):
        archive.record(1)


def test_a_disk_that_fails_is_named_and_nothing_half_written_stays(tmp_path):
    (tmp_path / "archive").write_text("a file where a directory should be")
    with pytest.raises(StoreFailed, match=r"archive .*/archive/events-.*: "):
        an_archive(OnDisk(tmp_path / "archive", fsync=False), 5)
    with pytest.raises(StoreFailed, match="Not a directory"):
        Archive(OnDisk(tmp_path / "archive", fsync=False)).look()


def test_damage_in_the_middle_of_a_file_is_named(tmp_path):
    archive = an_archive(OnDisk(tmp_path, fsync=False), 40)
    file = tmp_path / Stretch(1, 40).name
    content = bytearray(file.read_bytes())
    for at in range(4, len(content) // 2):
        content[at] ^= 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(Corrupt, match="archive file events-"):
        list(archive.records(1, 41))
    with pytest.raises(Corrupt, match="archive file events-"):
        list(archive.batches(1, 41, ["type", "data"]))


def test_a_damaged_image_is_left_aside(tmp_path):
    folder = OnDisk(tmp_path / "archive", fsync=False)
    archive = an_archive(folder, 3)
    write_rows(tmp_path / "rows", [[(b"\x10", b"")]], rows_format=FORMAT)
    for seq in (1, 2):
        archive.add_image(Image(seq, seq), tmp_path / "rows")
    (tmp_path / "archive" / Image(2, 2).name).write_bytes(b"no parquet")
    assert archive.image_before(9, rows_format=FORMAT) == Image(1, 1)


def test_a_batch_lies_within_a_row_group(folder):
    archive = an_archive(folder, 40)
    assert max(batch.num_rows for batch in archive.batches(1, 41, ["type"])) <= 4


def test_others_read_the_same_files(tmp_path):
    an_archive(OnDisk(tmp_path, fsync=False), 10, 30)
    told = duckdb.sql(
        f"SELECT type, count(*), min(seq), max(time_ms) FROM '{tmp_path}/events-*.parquet' GROUP BY type ORDER BY type"
    ).fetchall()
    assert told == [("ChainStarted", 15, 1, 1_029), ("JobEnqueued", 15, 2, 1_030)]
    [(data,)] = duckdb.sql(
        f"SELECT json_extract_string(data, '$.spec[1]') FROM '{tmp_path}/events-*.parquet' WHERE seq = 2"
    ).fetchall()
    assert data == "group"


def test_an_archive_is_beside_the_database(tmp_path):
    folder = folder_of(StoreSpec(backend="fs", path=f"{tmp_path}/%shard%/db"), "one")
    assert isinstance(folder, OnDisk)
    (tmp_path / "one" / "db").mkdir(parents=True)
    an_archive(folder, 2)
    assert (tmp_path / "one" / "db" / "archive" / Stretch(1, 2).name).exists()
    bucket = folder_of(
        StoreSpec(backend="s3", path="s3://bucket/silo/%shard%", options={"region": "eu"}), "one"
    )
    assert isinstance(bucket, InBucket)
    assert bucket.described() == {"url": "s3://bucket/silo/one/archive", "options": {"region": "eu"}}
    assert folder_of(StoreSpec.in_memory(), "one") is None
