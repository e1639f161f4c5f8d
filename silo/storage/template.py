"""The path template: one text, such as `s3://bucket/silo/%shard%`, that gives each shard a place of its own in a store."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from silo.errors import ConfigError

Backend = Literal["fs", "s3", "gcs", "memory", "url"]
"""How a store is named in the configuration."""

Kind = Literal["fs", "memory", "s3", "gcs", "azure"]
"""What a store is; `url` is a way to write any of them."""

_PLACEHOLDER = re.compile(r"%shard%|\{shard\}")

_KINDS: dict[str, Kind] = {
    "s3": "s3",
    "gs": "gcs",
    "az": "azure",
    "azure": "azure",
    "abfs": "azure",
    "file": "fs",
    "memory": "memory",
}
"""What a store is, by the scheme of its URL."""

_SCHEMES: dict[Backend, tuple[str, ...]] = {"s3": ("s3",), "gcs": ("gs",), "url": tuple(_KINDS)}
"""With which schemes the path of a backend may begin; a backend that is not here takes a path without one."""


def has_placeholder(text: str) -> bool:
    """Whether a shard's id is to be filled in."""
    return _PLACEHOLDER.search(text) is not None


def filled_in(text: str, shard: str) -> str:
    """The text with the shard's id in the place of each placeholder."""
    return _PLACEHOLDER.sub(shard, text)


@attrs.frozen(kw_only=True)
class PathTemplate:
    """A template that has been read, and cannot mix up shards.  Made by `parse`."""

    kind: Kind
    bucket: str
    """URL of the bucket, such as `s3://bucket`; "" if the store is a directory or memory."""
    common: str
    """The part of the path that all shards share, up to and with the slash before the placeholder."""
    own: str
    """The rest of it, which begins with the placeholder."""

    @classmethod
    def parse(cls, backend: Backend, path: str) -> PathTemplate:
        """Read the template of a backend.  Raises ConfigError if it leads nowhere, or leads shards to one place."""
        what = "object-store database" if backend in _SCHEMES else "database"
        placeholder = _PLACEHOLDER.search(path)
        if placeholder is None:
            raise ConfigError(
                f"{what} template path must contain a shard placeholder (%shard% or {{shard}}), got: {path}"
            )
        common, own = path[: placeholder.start()], path[placeholder.start() :]
        if not common.endswith("/"):
            raise ConfigError(
                f"shard placeholder in {what} template path must be preceded by '/', got: {path}"
            )
        if backend not in _SCHEMES:
            return cls(kind="memory" if backend == "memory" else "fs", bucket="", common=common, own=own)

        scheme, separator, common = common.partition("://")
        if not separator or scheme not in _SCHEMES[backend]:
            raise _no_url(backend, path)
        kind = _KINDS[scheme]
        if kind in ("fs", "memory"):
            return cls(kind=kind, bucket="", common=common, own=own)
        bucket, slash, common = common.partition("/")
        if not bucket:
            raise _no_url(backend, path)
        return cls(kind=kind, bucket=f"{scheme}://{bucket}", common=slash + common, own=own)

    @property
    def is_remote(self) -> bool:
        """Whether the store is a bucket."""
        return bool(self.bucket)

    @property
    def root(self) -> str:
        """What all shards share, a directory or a URL, without a slash at its end."""
        scheme = "memory://" if self.kind == "memory" else self.bucket
        return (scheme + self.common).removesuffix("/") or "/"


def _no_url(backend: Backend, path: str) -> ConfigError:
    expected = " or ".join(f"{scheme}://" for scheme in _SCHEMES[backend])
    return ConfigError(f"failed to parse object store URL {path}: expected {expected}")
