"""Writes docs/configuration.md from the words beside the settings in silo/settings.py.

python -m tools.gen_config_docs            writes the page
python -m tools.gen_config_docs --check    exits with 1 if the page is not what would be written
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any

import attrs

from silo.config_file import fields_of, section_type, sections_of, shown
from silo.settings import OTHER_KEYS, Settings

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

<!-- Written by tools/gen_config_docs.py from silo/settings.py; change it there. -->

`silo serve` needs no configuration.
It then keeps its data in `./silo-data`, in eight shards, and listens only on this machine.
For anything else give it a TOML file, `silo serve --config silo.toml`, with the keys that you want to change.
A `[database]` section must give both `backend` and `path`, and so must `[database.wal]`.

A value of the wrong type or out of range stops the server, and the message names file, section and key.
A key that does not exist is ignored, so that one file can serve several versions, but the server says so
and names the key that you may have meant.
It also says so if you change a setting that has no effect in this release.
`siloctl validate-config -c silo.toml` makes the same checks without starting anything.

## An example

A server on a bucket, with tenants, reachable by other machines:

```toml
[server]
grpc_addr = "0.0.0.0:7450"
# From the environment. If SILO_AUTH_TOKEN is not set, nobody needs a token, and the server warns of it.
auth_token = "${SILO_AUTH_TOKEN}"

[coordination]
# What clients are told to connect to, as 0.0.0.0 means nothing to them.
advertised_grpc_addr = "${SILO_HOST:-127.0.0.1}:7450"
# Counts only for the first start: a cluster keeps the shards that it has.
initial_shard_count = 16

[tenancy]
enabled = true

[database]
backend = "s3"
# Each shard is a database of its own; the shard map lies beside them, in s3://my-jobs/silo/cluster.
path = "s3://my-jobs/silo/%shard%"
# A store that charges for each request: gather writes for 5 ms before a commit.
commit_interval_ms = 5
# Forget jobs that succeeded after a day.
completed_job_expire_s = 86400

[database.options]
# Credentials come from the environment, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
region = "eu-central-1"

[logging]
format = "json"
```

## Values from the environment

`${VAR}` anywhere in the file stands for the value of an environment variable, or for nothing if it is unset.
`${VAR:-default}` stands for `default` if the variable is not set; one that is set to nothing stays nothing.
The text is filled in before the file is parsed, in comments as well.
Nothing is quoted for you: write `"${VAR}"`.
There is no escape and no nesting; a `$` without `{` is a `$`.

## All settings
"""

OTHER_KEYS_INTRODUCTION = """
## Keys of other servers

Configuration files of the older server of this protocol are accepted.
These keys have no effect here, and the server says so when it starts:

| key | why |
|---|---|
"""


def page() -> str:
    """The whole page."""
    sections = "".join(_section(kind, name) for name, kind in sections_of(Settings))
    others = "".join(
        f"| `{section}.{key}` | {why} |\n" for (section, key), why in OTHER_KEYS.without_effect.items()
    )
    return INTRODUCTION + sections + OTHER_KEYS_INTRODUCTION + others


def _section(kind: type[Any], name: str) -> str:
    rows = [_row(field, name) for field in fields_of(kind).values() if not section_type(field)]
    heading = f"\n### [{name}]\n\n{kind.__doc__}\n\n"
    return heading + "| key | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _row(field: attrs.Attribute[Any], section: str) -> str:
    default = _default(field)
    if field.metadata["required"] and field.default is not attrs.NOTHING:
        default = f"must be given; {default} if there is no `[{section}]`"
    return f"| `{field.name}` | {_value(field)} | {default} | {field.metadata['meaning']} |\n"


def _value(field: attrs.Attribute[Any]) -> str:
    check = field.metadata["check"]
    words = check.expected if check else _type_in_words(field.type)
    return f"{words} ({field.metadata['unit']})" if field.metadata["unit"] else str(words)


def _type_in_words(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    plain = {bool: "true or false", int: "an integer", str: "a string"}
    by_origin = {tuple: "a list of strings", dict: "a table"}
    return plain.get(kind) or by_origin[typing.get_origin(kind)]


def _default(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "must be given"
    if field.default is None or isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]  # a class
        return "none"
    mib, rest = divmod(field.default, 1 << 20) if field.metadata["unit"] == "bytes" else (0, 0)
    return f"`{shown(field.default)}`" + (f" ({mib} MiB)" if mib and not rest else "")


def main() -> int:
    written = page()
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text(encoding="utf-8") == written:
            return 0
        print(f"{PAGE} is out of date: run python -m tools.gen_config_docs", file=sys.stderr)
        return 1

    PAGE.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
