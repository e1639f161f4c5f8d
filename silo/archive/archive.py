"""The archive of one shard: which events and which images of its rows it has, and what is in them.

It is a copy of what is durable in the log, so files need no order among themselves and no transaction: one that is there is
whole and true, and whoever dies between two of them leaves nothing to be put right.  Methods block, and are called in
threads; `lock` is for whoever writes.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from silo.archive.files import (
    FORMAT,
    Image,
    Stretch,
    in_batches,
    opened,
    parse,
    reading,
    rows_of,
    write_events,
)
from silo.archive.folder import Folder
from silo.errors import Corrupt
from silo.events import codec
from silo.events.catalogue import Event
from silo.events.erasing import Targets
from silo.events.log import record_key
from silo.storage.scratch import scratch_directory

Record = tuple[bytes, bytes]
"""A key and a value of the log."""

GROUPS_KEPT = 2

logger = logging.getLogger(__name__)
BATCH_ROWS = 32_768
EVENTS_PER_RECORD = 200


@attrs.frozen
class _Group:
    """The records of one row group."""

    seqs: Sequence[int]
    records: Sequence[bytes]


class Archive:
    """The files of a shard.  Every method raises StoreFailed, and Corrupt for a file that cannot be read."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._groups: OrderedDict[tuple[Stretch, int], _Group] = OrderedDict()
        self._guard = threading.Lock()
        self._written = 0
        self.stretches: tuple[Stretch, ...] = ()
        self.images: tuple[Image, ...] = ()
        self._with_jobs: tuple[Image, ...] = ()

    # --- what there is ---------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See which files there are."""
        names = self.folder.names()
        stretches, images = parse(names)
        self._with_jobs = tuple(image for image in images if image.name_of_jobs in names)
        self.stretches, self.images = tuple(_one_after_the_other(stretches)), tuple(images)

    def look_anew(self) -> None:
        """The same, when files may have taken the place of those that were read before."""
        with self._guard:
            self._groups.clear()
            self._written += 1
        self.look()

    @property
    def last_seq(self) -> int:
        """All events up to this one are here."""
        return self.stretches[-1].last if self.stretches else 0

    @property
    def newest_seq(self) -> int:
        """The newest event that any file knows of."""
        return max(self.last_seq, self.images[-1].seq if self.images else 0)

    def image_before(self, seq: int, *, rows_format: str) -> Image | None:
        """The newest image in this format that stands for no later event."""
        usable = [image for image in self.images if image.seq <= seq]
        return next((image for image in reversed(usable) if self.has_format(image, rows_format)), None)

    def newest_with_jobs(self, seq: int, *, rows_format: str) -> Image | None:
        """The newest image that has its jobs by columns, of this format, and stands for no later event."""
        usable = [image for image in self._with_jobs if image.seq <= seq]
        found = (image for image in reversed(usable) if self._is_in_format(image.name_of_jobs, rows_format))
        return next(found, None)

    def has_format(self, image: Image, rows_format: str) -> bool:
        """Whether its rows have this format; one that cannot be read has none, as it is only a short cut."""
        return self._is_in_format(image.name, rows_format)

    def _is_in_format(self, name: str, rows_format: str) -> bool:
        try:
            metadata = self._open(name).schema_arrow.metadata or {}
        except Corrupt as error:
            logger.warning("%s; it is left aside", error)
            return False
        return bool(metadata.get(FORMAT, b"").decode() == rows_format)

    # --- reading ---------------------------------------------------------------------------------------------------------

    def records(self, first: int, end: int) -> Iterator[list[Record]]:
        """The events from `first` up to before `end`, as far as they are here, many to a record."""
        for seqs, records in self._slices(first, end):
            yield [
                (record_key(seqs[at]), codec.joined(records[at : at + EVENTS_PER_RECORD]))
                for at in range(0, len(seqs), EVENTS_PER_RECORD)
            ]

    def _slices(self, first: int, end: int) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
        """The numbers of these events, and a record for each."""
        for stretch in self._of(first, end):
            # One opened file for the walk: another may take its place.
            file = self._open(stretch.name)
            for number in _groups(file, first, end):
                group = self._group(stretch, file, number)
                begin, stop = bisect_left(group.seqs, first), bisect_left(group.seqs, end)
                if begin < stop:
                    yield group.seqs[begin:stop], group.records[begin:stop]

    def record(self, seq: int) -> Record | None:
        """One event, if it is here."""
        for _, records in self._slices(seq, seq + 1):
            return record_key(seq), records[0]
        return None

    def batches(self, first: int, end: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The same events by some of their columns."""
        names = list(dict.fromkeys(("seq", *columns)))
        for stretch in self._of(first, end):
            file = self._open(stretch.name)
            for batch in in_batches(stretch.name, file, BATCH_ROWS, names, _groups(file, first, end)):
                # They have no gaps.
                begin = max(first - batch.column(0)[0].as_py(), 0)
                stop = min(end - batch.column(0)[0].as_py(), batch.num_rows)
                if begin < stop:
                    yield batch.slice(begin, stop - begin)

    def rows(self, image: Image) -> Iterator[list[tuple[bytes, bytes]]]:
        """All rows of an image, in the order of their keys."""
        return rows_of(image.name, self._open(image.name))

    def jobs(self, image: Image, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The jobs of an image, by some columns."""
        name = image.name_of_jobs
        yield from in_batches(name, self._open(name), BATCH_ROWS, list(columns))

    def count(self, image: Image) -> int:
        """How many rows an image has."""
        return int(self._open(image.name).metadata.num_rows)

    def _of(self, first: int, end: int) -> Sequence[Stretch]:
        """The stretches that have some of these events."""
        begin = bisect_right([stretch.first for stretch in self.stretches], first) - 1
        return [
            stretch
            for stretch in self.stretches[max(begin, 0) :]
            if stretch.first < end and stretch.last >= first
        ]

    def _group(self, stretch: Stretch, file: pq.ParquetFile, number: int) -> _Group:
        with self._guard:
            if (stretch, number) in self._groups:
                self._groups.move_to_end((stretch, number))
                return self._groups[stretch, number]
            written = self._written
        with reading(stretch.name):
            table = file.read_row_group(number, columns=["seq", "record"], use_threads=False)
        group = _Group(table.column(0).to_pylist(), table.column(1).to_pylist())
        with self._guard:
            if written != self._written:
                # The file may be another one by now.
                return group
            self._groups[stretch, number] = group
            while len(self._groups) > GROUPS_KEPT:
                self._groups.popitem(last=False)
        return group

    def _open(self, name: str) -> pq.ParquetFile:
        with reading(name):
            return opened(self.folder.open(name))

    # --- writing ---------------------------------------------------------------------------------------------------------

    def add_events(self, stretch: Stretch, events: Iterable[Sequence[Event]]) -> None:
        """Take in the events that come next, or come in the place of those that were there."""
        with scratch_directory() as directory:
            file = directory / stretch.name
            write_events(file, events)
            self.add_stretch(stretch, file)

    def add_stretch(self, stretch: Stretch, file: Path) -> None:
        """Take in a file of events."""
        self.folder.put(stretch.name, file)
        self.look_anew()

    def add_image(self, image: Image, rows: Path, jobs: Path | None = None) -> None:
        """Take in the files of an image; it is there when that of the rows is."""
        if jobs is not None:
            self.folder.put(image.name_of_jobs, jobs)
        self.folder.put(image.name, rows)
        self.look()

    def drop(self, image: Image) -> None:
        self.folder.delete(image.name)
        self.folder.delete(image.name_of_jobs)
        self.look()

    def erase(self, targets: Targets) -> int:
        """Write those files anew that have data of these jobs, without it.

        Returns:
            From how many events it was taken.
        """
        erased = 0
        for stretch in self.stretches:
            if stretch.first < targets.before and self._has_any(stretch, targets):
                erased += self._erase(stretch, targets)
        return erased

    def _has_any(self, stretch: Stretch, targets: Targets) -> bool:
        return any(
            targets.without(seq, record)[1]
            for seqs, records in self._slices(stretch.first, min(targets.before, stretch.last + 1))
            for seq, record in zip(seqs, records, strict=True)
        )

    def _erase(self, stretch: Stretch, targets: Targets) -> int:
        erased = 0

        def events() -> Iterator[list[Event]]:
            nonlocal erased
            for seqs, records in self._slices(stretch.first, stretch.last + 1):
                told: list[Event] = []
                for seq, record in zip(seqs, records, strict=True):
                    without, count = targets.without(seq, record)
                    erased += count
                    told += without or codec.decode(seq, record)
                yield told

        self.add_events(stretch, events())
        return erased


def _one_after_the_other(stretches: Sequence[Stretch]) -> Iterator[Stretch]:
    """Those that follow each other from the first event on; of two that begin alike, the longer one."""
    longest = {stretch.first: stretch for stretch in stretches}
    first = 1
    while (stretch := longest.get(first)) is not None:
        yield stretch
        first = stretch.last + 1


def _groups(file: pq.ParquetFile, first: int, end: int) -> Sequence[int]:
    """The row groups that have some of these events."""
    found = (file.metadata.row_group(number).column(0).statistics for number in range(file.num_row_groups))
    return [
        number for number, seqs in enumerate(found) if seqs is None or (seqs.min < end and seqs.max >= first)
    ]
