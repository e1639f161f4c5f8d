"""Where the files of an archive are: in a directory beside the shard's database, or under its prefix in a bucket.

All of it blocks, and is called in threads.
"""

from __future__ import annotations

import contextlib
import io
import os
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
            # Of somebody who died.
            for left in self._directory.glob("*.draft"):
                left.unlink(missing_ok=True)
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

    def described(self) -> dict[str, Any]:
        return {"url": self._url, "options": dict(self._options)}

    def names(self) -> list[str]:
        try:
            return sorted(found["path"] for page in obstore.list(self._store) for found in page)
        except (BaseError, OSError) as error:
            raise self._failed("", error) from error

    def open(self, name: str) -> Path | IO[bytes]:
        try:
            return Pieces(self._store, name, obstore.head(self._store, name)["size"])  # type: ignore[return-value]
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise self._failed(name, error) from error

    def put(self, name: str, file: Path) -> None:
        try:
            obstore.put(self._store, name, file)
        except (BaseError, OSError) as error:
            raise self._failed(name, error) from error

    def delete(self, name: str) -> None:
        try:
            obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> StoreFailed:
        return StoreFailed(f"archive {self._url}/{name}: {first_line(error)}")


class Pieces(io.RawIOBase):
    """An object that is read in pieces, a request each.  Raises StoreFailed."""

    def __init__(self, store: ObjectStore, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._at
        length = left if size < 0 else min(size, left)
        if length <= 0:
            return b""
        try:
            piece = bytes(obstore.get_range(self._store, self._name, start=self._at, length=length))
        except (BaseError, OSError) as error:
            raise StoreFailed(f"archive {self._name}: {first_line(error)}") from error
        self._at += len(piece)
        return piece


def _failed(path: Path, error: OSError) -> StoreFailed:
    return StoreFailed(f"archive {path}: {error.strerror}")
