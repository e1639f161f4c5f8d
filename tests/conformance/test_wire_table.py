"""Does the generated code speak silo.v1 exactly?

`wire_table.txt` and the descriptor of `silo.pb.silo_pb2` are both turned into the same plain form, one dictionary a
definition, and compared in both directions.  A message becomes `{number: "name label type", ...}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

from silo.pb import silo_pb2, silo_pb2_grpc

Definition = dict[int | str, str]


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


# The descriptor, described.


def describe_file(file: FileDescriptorProto) -> dict[str, Definition]:
    return {
        **{f"message {message.name}": describe_message(message) for message in file.message_type},
        **{f"enum {enum.name}": describe_enum(enum) for enum in file.enum_type},
        **{f"service {service.name}": describe_service(service) for service in file.service},
    }


def describe_message(message: DescriptorProto) -> Definition:
    definition: Definition = {field.number: describe_field(field, message) for field in message.field}
    for reserved in message.reserved_range:
        definition.update({f"reserved {number}": "" for number in range(reserved.start, reserved.end)})
    for name in message.reserved_name:
        definition[f'reserved "{name}"'] = ""
    # What the table has no words for must not be there.
    for enum in message.enum_type:
        definition[f"nested enum {enum.name}"] = str(enum)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            definition[f"nested message {nested.name}"] = str(nested)
    return definition


def describe_field(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    kind = type_name(field)
    entry = next((nested for nested in message.nested_type if nested.name == kind.rpartition(".")[2]), None)
    if entry is not None and entry.options.map_entry:
        key, value = (type_name(part) for part in entry.field)
        return f"{field.name} map" if key == value == "string" else f"{field.name} map<{key}, {value}>"

    label = ""
    if field.label == field.LABEL_REPEATED:
        label = "rep "
    elif field.proto3_optional:
        label = "opt "
    membership = ""
    if field.HasField("oneof_index") and not field.proto3_optional:
        membership = f" in oneof {message.oneof_decl[field.oneof_index].name}"
    options = f" [{field.options}]" if field.HasField("options") else ""
    return f"{field.name} {label}{kind}{membership}{options}"


def type_name(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return field.type_name.removeprefix(".silo.v1.")
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def describe_enum(enum: EnumDescriptorProto) -> Definition:
    definition: Definition = {value.number: value.name for value in enum.value}
    if enum.options.allow_alias or enum.reserved_range or enum.reserved_name:
        definition["more than values"] = str(enum)
    return definition


def describe_service(service: ServiceDescriptorProto) -> Definition:
    definition: Definition = {}
    for rpc in service.method:
        asked, told = (name.removeprefix(".silo.v1.") for name in (rpc.input_type, rpc.output_type))
        request = f"stream {asked}" if rpc.client_streaming else asked
        reply = f"stream {told}" if rpc.server_streaming else told
        definition[rpc.name] = f"{request} returns {reply}"
    return definition


FILE = FileDescriptorProto()
silo_pb2.DESCRIPTOR.CopyToProto(FILE)
GENERATED = describe_file(FILE)
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
