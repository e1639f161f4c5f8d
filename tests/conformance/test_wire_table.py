"""Does the generated code speak silo.v1 exactly?

`wire_table.txt` and the descriptor of `silo.pb.silo_pb2` are both turned into the same plain form, that of `described.py`,
and compared in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.pb import silo_pb2, silo_pb2_grpc
from tests.conformance.described import Definition, describe, file_of

# The table, read.


def read_table(text: str) -> dict[str, Definition]:
    readers = {"M": ("message", read_message), "E": ("enum", read_enum), "S": ("service", read_service)}
    table: dict[str, Definition] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        head, _, body = line.partition(":")
        kind, name = head.split()
        word, read = readers[kind]
        assert f"{word} {name}" not in table, f"{word} {name} stands in the table twice"
        table[f"{word} {name}"] = read(body)
    return table


def read_message(body: str) -> Definition:
    definition: Definition = {}
    for entry, oneof in entries(body):
        first, rest = entry.split(maxsplit=1)
        if first == "reserved":
            definition[entry] = ""
        else:
            definition[int(first)] = rest + (f" in oneof {oneof}" if oneof else "")
    return definition


def entries(body: str) -> Iterator[tuple[str, str]]:
    """The entries of a message, each with the oneof that holds it, or with ""."""
    for oneof, members, entry in re.findall(r"\s*oneof (\w+) \{([^}]*)\}|([^|{}]+)", body):
        for part in (members or entry).split("|"):
            if part.strip():
                yield part.strip(), oneof


def read_enum(body: str) -> Definition:
    values = (value.split("=") for value in body.split())
    return {int(number): name for name, number in values}


def read_service(body: str) -> Definition:
    definition: Definition = {}
    for rpc in body.split():
        name = rpc.removesuffix("*")
        reply = "stream ArrowIpcMessage" if rpc.endswith("*") else f"{name}Response"
        definition[name] = f"{name}Request returns {reply}"
    return definition


FILE = file_of(silo_pb2.DESCRIPTOR)
GENERATED = describe(FILE)
TABLE = read_table(Path(__file__).with_name("wire_table.txt").read_text())


@pytest.mark.parametrize("name", sorted(GENERATED.keys() | TABLE.keys()))
def test_generated_code_says_what_the_table_says(name):
    assert name in TABLE, f"proto/silo.proto defines {name}, which the table does not know"
    assert name in GENERATED, f"the table has {name}, which proto/silo.proto does not define"
    assert GENERATED[name] == TABLE[name]


def test_the_table_is_complete():
    kinds = [name.split()[0] for name in TABLE]
    rpcs = TABLE["service Silo"].values()

    assert (kinds.count("message"), kinds.count("enum"), kinds.count("service")) == (84, 4, 1)
    assert len(rpcs) == 29
    assert sum("stream" in rpc for rpc in rpcs) == 1


def test_the_file_itself_is_plain_proto3():
    assert (FILE.syntax, FILE.package) == ("proto3", "silo.v1")
    assert not FILE.dependency
    assert not FILE.HasField("options")


def test_the_servicer_has_every_rpc():
    servicer = {name for name in vars(silo_pb2_grpc.SiloServicer) if not name.startswith("_")}

    assert servicer == TABLE["service Silo"].keys()
