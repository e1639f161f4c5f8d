"""A .proto file in a plain form, for tests that compare it with a table: one dictionary a definition.

A message becomes `{number: "name label type", ...}`, an enum `{number: "NAME", ...}` and a service
`{"Rpc": "Request returns Reply", ...}`.  What these have no words for gets an entry of its own, so that nobody overlooks it.
"""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

Definition = dict[int | str, str]


def file_of(descriptor: FileDescriptor) -> FileDescriptorProto:
    """The file that generated code was made from."""
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file


def describe(file: FileDescriptorProto) -> dict[str, Definition]:
    """The definitions of a file by kind and name.  Types are named without their package, so the file must import none."""
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
        return field.type_name.rpartition(".")[2]
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def describe_enum(enum: EnumDescriptorProto) -> Definition:
    definition: Definition = {value.number: value.name for value in enum.value}
    if enum.options.allow_alias or enum.reserved_range or enum.reserved_name:
        definition["more than values"] = str(enum)
    return definition


def describe_service(service: ServiceDescriptorProto) -> Definition:
    definition: Definition = {}
    for rpc in service.method:
        asked, told = (name.rpartition(".")[2] for name in (rpc.input_type, rpc.output_type))
        request = f"stream {asked}" if rpc.client_streaming else asked
        reply = f"stream {told}" if rpc.server_streaming else told
        definition[rpc.name] = f"{request} returns {reply}"
    return definition
