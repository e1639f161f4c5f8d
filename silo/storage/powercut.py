"""What a power cut leaves behind, and how it is cleared away before SlateDB sees it.

fsync.py keeps a record beside the database: the manifest that is durable with all its files, and the number
up to which the WAL objects are durable.  Whatever is newer may be whole, torn, empty or missing, in any
combination, and SlateDB refuses to open a database whose newest manifest or WAL object is torn.  So, if the
machine was started anew since the record was written:

- Manifests and compaction states after the recorded ones are set aside.  Nothing is lost by that: the log
  after the recorded manifest is complete, as it is deleted only after the next record.
- WAL objects after the recorded number are read in order up to the first that is torn or missing; this one
  and all after it are set aside.  An acknowledged write cannot be among them, as the log is fsynced in order
  before a write is acknowledged.  Objects that the manifest has no need of do not count: where the manifests
  are in a bucket, SlateDB deletes such objects itself, in any order and also after the recorded number.

After a mere crash of the process nothing of this happens: the files are as they were written.

Each opening of the database has a record of its own, named by its epoch, and the one with the highest epoch counts.  So
a process that was fenced, does not know it yet and writes its record late cannot undo what its successor has recorded.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from silo.storage.ffi import generated

_log = logging.getLogger(__name__)

RECORD = "silo.durable"
"""A record is called `silo.durable.<epoch>`; without an epoch, as version 0.1.0 wrote it, it is older than all others."""


def boot_id() -> str:
    """Another text after each start of the machine; "" where there is none, and then no power cut is ever
    noticed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@attrs.frozen(kw_only=True)
class Record:
    """What was durable when it was written."""

    manifest_id: int | None
    """None if the manifests are not on this disk."""
    compactions_id: int | None
    wal_id: int
    boot_id: str = attrs.field(factory=boot_id)


def write(home: Path, epoch: int, record: Record) -> None:
    """Replace the record of this opening, durably and at once, and remove those of earlier ones."""
    path = home / f"{RECORD}.{epoch}"
    draft = path.with_name(f"{path.name}.new")
    with open(draft, "w") as file:
        json.dump(attrs.asdict(record), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    handle = os.open(home, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for earlier, outdated in _records(home):
        if earlier < epoch:
            outdated.unlink(missing_ok=True)


def read(home: Path) -> Record | None:
    """The record that counts.  None if there is none: the database is new, or was never written with fsync."""
    newest = max(_records(home), default=None)
    return None if newest is None else Record(**json.loads(newest[1].read_text()))


def forget(home: Path) -> None:
    """From now on nobody keeps the promises of the records: the database is used without fsync, or is a new one."""
    for _, path in _records(home):
        path.unlink(missing_ok=True)


def _records(home: Path) -> list[tuple[int, Path]]:
    """All records with their epochs, in no order."""
    named = ((path.name.removeprefix(RECORD).removeprefix("."), path) for path in home.glob(f"{RECORD}*"))
    return [(int(epoch or 0), path) for epoch, path in named if epoch.isdigit() or not epoch]


async def clear_away(home: Path, wal: Path, admin: Any, log_reader: Any) -> None:
    """Set aside what a power cut may have torn, if there was one.  `admin` reads the manifests, `log_reader`
    the WAL objects in `wal`."""
    record = read(home)
    if record is None or record.boot_id == boot_id():
        return
    for kind, last in (("manifest", record.manifest_id), ("compactions", record.compactions_id)):
        if last is not None:
            _set_aside(path for number, path in _numbered(home / kind, kind) if number > last)
    manifest = await admin.read_manifest(None)
    superfluous = manifest.replay_after_wal_id if manifest else 0
    torn = await _first_torn(wal, max(record.wal_id, superfluous), log_reader)
    _set_aside(path for number, path in _numbered(wal, "sst") if torn is not None and number >= torn)


async def _first_torn(wal: Path, last: int, log_reader: Any) -> int | None:
    """The number of the first WAL object after `last` that is not whole."""
    expected = last
    for number, path in _numbered(wal, "sst"):
        if number <= last:
            continue
        expected += 1
        # SlateDB takes an empty object for a fence; but each opening records the number of its own.
        if number != expected or path.stat().st_size == 0:
            return expected
        try:
            await (await log_reader.iterator(number)).next()
        except generated.Error.Data:
            return number
    return None


def _set_aside(paths: Iterable[Path]) -> None:
    for path in paths:
        _log.warning("set aside %s: it was not yet durable when the machine stopped", path)
        aside = path.parent.parent / "torn"
        aside.mkdir(exist_ok=True)
        os.replace(path, aside / path.name)


def _numbered(directory: Path, suffix: str) -> list[tuple[int, Path]]:
    """The files called <number>.<suffix>, by number."""
    files = [path for path in directory.glob(f"*.{suffix}") if path.stem.isdigit()]
    return sorted((int(path.stem), path) for path in files)
