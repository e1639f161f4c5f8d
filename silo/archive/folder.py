"""Where the files of an archive are: in a directory beside the shard's database, or under its prefix in a bucket.

All of it blocks, and is called in threads.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from silo.errors import StoreFailed
from silo.storage.objects import first_line, object_store
from silo.storage.stores import StoreSpec
from silo.storage.template import PathTemplate, filled_in

ARCHIVE = "archive"

FILES_KEPT = 2
"""Files of a bucket are read as a whole; so many stay in memory, as they are read in pieces."""


class Folder(Protocol):
    """Files that appear as a whole or not at all.  Every method raises StoreFailed."""

    def described(self) -> dict[str, Any]:
        """For another process, which makes the same folder of it by `folder_from`."""
        ...

    def names(self) -> list[str]: ...

    def open(self, name: str) -> Path | IO[bytes]:
        """What pyarrow can read a file from.  Raises OSError, too, at the latest when that is read."""
        ...

    def put(self, name: str, file: Path) -> None:
        """Take in a local file under this name, for good when this returns; it replaces one that has the name."""
        ...

    def delete(self, name: str) -> None:
        """A file that is not there has been deleted."""
        ...


def folder_of(spec: StoreSpec, shard: str) -> Folder | None:
    """The folder of a shard; None if its database is in memory.  Raises ConfigError."""
    template = PathTemplate.parse(spec.backend, spec.path)
    own = filled_in(template.own, shard).strip("/")
    if template.kind == "memory":
        return None
    if not template.is_remote:
        return OnDisk(Path(os.path.abspath(template.common), own, ARCHIVE), fsync=spec.fsync)
    path = f"{template.common}{own}/{ARCHIVE}".strip("/")
    return bucket(f"{template.bucket.rstrip('/')}/{path}", spec.options)


def folder_from(described: Mapping[str, Any]) -> Folder:
    """The folder that described itself so."""
    if "url" in described:
        return bucket(described["url"], described["options"])
    return OnDisk(Path(described["directory"]), fsync=described["fsync"])


def bucket(url: str, options: Mapping[str, str]) -> InBucket:
    """The folder at a URL.  Raises ConfigError."""
    return InBucket(object_store(url, options, "[database]"), url, options)


class OnDisk:
    """A directory, made when the first file comes."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        self._directory = directory
        self._fsync = fsync

    def described(self) -> dict[str, Any]:
        return {"directory": str(self._directory), "fsync": self._fsync}

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._directory.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed(self._directory, error) from error

    def open(self, name: str) -> Path | IO[bytes]:
        return self._directory / name

    def put(self, name: str, file: Path) -> None:
        draft = self._directory / f"{name}.draft"
        try:
            self._directory.mkdir(exist_ok=True)
            with file.open("rb") as source, draft.open("wb") as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
                target.flush()
                if self._fsync:
                    os.fsync(target.fileno())
            draft.replace(self._directory / name)
            self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise _failed(self._directory / name, error) from error

    def delete(self, name: str) -> None:
        try:
            (self._directory / name).unlink(missing_ok=True)
        except OSError as error:
            raise _failed(self._directory / name, error) from error

    def _sync(self) -> None:
        """Make the names safe: of the files, and of the directory itself."""
        if not self._fsync:
            return
        for directory in (self._directory, self._directory.parent):
            opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


class InBucket:
    """Objects under a prefix."""

    def __init__(self, store: ObjectStore, url: str, options: Mapping[str, str]) -> None:
        self._store = store
        self._url = url
        self._options = options
        self._read: OrderedDict[str, bytes] = OrderedDict()
        self._guard = threading.Lock()

    def described(self) -> dict[str, Any]:
        return {"url": self._url, "options": dict(self._options)}

    def names(self) -> list[str]:
        try:
            return sorted(found["path"] for page in obstore.list(self._store) for found in page)
        except (BaseError, OSError) as error:
            raise self._failed("", error) from error

    def open(self, name: str) -> Path | IO[bytes]:
        with self._guard:
            content = self._read.get(name)
        if content is None:
            try:
                content = bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError:
                raise
            except (BaseError, OSError) as error:
                raise self._failed(name, error) from error
            with self._guard:
                self._read[name] = content
                while len(self._read) > FILES_KEPT:
                    self._read.popitem(last=False)
        return io.BytesIO(content)

    def _forget(self, name: str) -> None:
        with self._guard:
            self._read.pop(name, None)

    def put(self, name: str, file: Path) -> None:
        try:
            obstore.put(self._store, name, file)
            self._forget(name)
        except (BaseError, OSError) as error:
            raise self._failed(name, error) from error

    def delete(self, name: str) -> None:
        try:
            self._forget(name)
            obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> StoreFailed:
        return StoreFailed(f"archive {self._url}/{name}: {first_line(error)}")


def _failed(path: Path, error: OSError) -> StoreFailed:
    return StoreFailed(f"archive {path}: {error.strerror}")
