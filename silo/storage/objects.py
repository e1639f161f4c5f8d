"""Object stores for what is not SlateDB's: the shard map, and archives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from silo.errors import ConfigError

# obstore wants the options of its HTTP client apart from those of the store, and aborts on `allow_http`
# among these.
_CLIENT_OPTIONS = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "http1_only",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "randomize_addresses",
        "read_timeout",
        "timeout",
        "user_agent",
    }
)


def object_store(url: str, options: Mapping[str, str], section: str) -> ObjectStore:
    """The store of a URL; a path in it is a prefix for all names.  Raises ConfigError, which names the section."""
    # Which keys are right depends on the URL; obstore checks them, its types cannot.
    config: Any = {key: value for key, value in options.items() if key not in _CLIENT_OPTIONS}
    client: Any = {key: value for key, value in options.items() if key in _CLIENT_OPTIONS}
    try:
        return from_url(url, config=config, client_options=client)
    except (BaseError, ValueError) as error:
        raise ConfigError(f"{section} {url}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What obstore says; the lines behind the first are a dump of the library's internals."""
    return str(error).partition("\n")[0]
