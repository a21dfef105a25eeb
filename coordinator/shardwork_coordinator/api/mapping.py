"""Messages of the protos as JSON and back, and as JSON schemas. Names as in the protos; 64-bit integers are numbers.

protobuf's own mapping writes them as strings, which no requester's program adds up right. Pure; used by `routes` and
`openapi`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from shardwork.errors import InvalidInput
from shardwork.problem import suggest

M = TypeVar("M", bound=Message)

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def to_json(message: Message) -> dict[str, Any]:
    """Every field, also those that say nothing; what was not set and could be is null."""
    return {field.name: _value(message, field) for field in fields_of(message.DESCRIPTOR)}


def from_json(kind: type[M], values: Mapping[str, Any]) -> M:
    """Raises InvalidInput "api.unknown_field" or "api.bad_field", whose evidence names the field as `param`."""
    known = {field.name: field for field in fields_of(kind.DESCRIPTOR)}
    message = kind()
    for name, value in values.items():
        if name not in known:
            raise unknown_field(name, known)
        try:
            ParseDict({name: value}, message)
        except Exception as error:  # upb raises half a dozen kinds, and none of them is worse than another
            raise bad_field(name, f"It does not fit: {str(error)[:200]}") from None
    return message


def from_text(kind: type[M], values: Mapping[str, str]) -> M:
    """As `from_json`, for a path's and a query's texts."""
    known = {field.name: field for field in fields_of(kind.DESCRIPTOR)}
    return from_json(kind, {name: _typed(known.get(name), name, text) for name, text in values.items()})


def fields_of(kind: Any) -> list[FieldDescriptor]:
    """Of a descriptor, whichever of the library's two kinds it is."""
    return list(kind.fields)


def schema_of(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the message's schema, which is in `schemas` from now on, with those that it names."""
    if kind.name not in schemas:
        schemas[kind.name] = {}
        schemas[kind.name] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {field.name: field_schema(field, schemas) for field in fields_of(kind)},
        }
    return {"$ref": f"#/components/schemas/{kind.name}"}


def field_schema(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _single(kind.fields_by_name["value"], schemas)}
    if field.is_repeated:
        return {"type": "array", "items": _single(field, schemas)}
    one = _single(field, schemas)
    if kind is not None:
        return {"anyOf": [one, {"type": "null"}]}
    # what is not finite in a message is null in JSON
    nullable = field.has_presence or field.cpp_type in _FLOATS
    return {**one, "type": [one["type"], "null"]} if nullable else one


def unknown_field(name: str, known: Mapping[str, object]) -> InvalidInput:
    return InvalidInput(
        "api.unknown_field",
        f"There is no field {name[:60]!r} here.",
        next_step=suggest(name[:60], known) if known else "Leave it out.",
        param=name[:60],
    )


def bad_field(name: str, sentence: str) -> InvalidInput:
    return InvalidInput("api.bad_field", f"The field {name!r} is wrong.", next_step=sentence, param=name)


def _value(message: Message, field: FieldDescriptor) -> Any:
    kind = field.message_type
    found = getattr(message, field.name)
    if kind is not None and kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"]
        return {str(key): _one(found[key], inner) for key in found}
    if field.is_repeated:
        return [_one(each, field) for each in found]
    if (field.has_presence or kind is not None) and not message.HasField(field.name):
        return None
    return _one(found, field)


def _one(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return to_json(cast("Message", value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _single(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return schema_of(field.message_type, schemas)
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        return {"type": "integer", "minimum": low, "maximum": high}
    if field.cpp_type in _FLOATS:
        return {"type": "number"}
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    return {"type": "string"}


def _typed(field: FieldDescriptor | None, name: str, text: str) -> Any:
    if field is None:
        return text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise bad_field(name, "Say true or false.")
        return text == "true"
    if field.cpp_type in _INTEGERS:
        # int() would also take "1_000", " 7" and digits of other scripts
        if not (text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 20):
            raise bad_field(name, "Give a whole number.")
        return int(text)
    return [each for each in text.split(",") if each] if field.is_repeated else text
