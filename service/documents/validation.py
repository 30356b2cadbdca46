"""The pieces of `$jsonSchema` that the validators of collections share, and the validator of a record.

`long` and nothing else for numbers: an int32 would wrap at 2^31 and a double is no place for money.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

AMOUNT = {"bsonType": "long", "minimum": 0}
POSITIVE_AMOUNT = {"bsonType": "long", "minimum": 1}
TEXT = {"bsonType": "string", "minLength": 1}
OPTIONAL_TEXT = {"bsonType": ["string", "null"]}
TIME = {"bsonType": "date"}
HASH = {"bsonType": "string", "minLength": 64, "maxLength": 64}
COUNT = {"bsonType": ["int", "long"], "minimum": 0}
# What a row of a queue carries of its failures (domain/dead_letters.py).
FAILURES: dict[str, Any] = {"failures": COUNT, "first_failed_at": TIME, "dead_letter_id": TEXT}
# What 64 bits may not hold: sums over all wallets or entries.
SUM = {"bsonType": "decimal", "minimum": 0}


def validator_of(record: type[NamedTuple], **stricter: dict[str, Any]) -> dict[str, Any]:
    """Every field of the record with its type, and no other; what has no default must be there.

    A field called `amount` is positive, every other number is not negative.
    """
    schema = validator_part(record, **stricter)
    schema["properties"]["_id"] = schema["properties"].pop("id")
    schema["required"] = ["_id" if name == "id" else name for name in schema["required"]]
    return schema


def validator_part(record: type[NamedTuple], **stricter: dict[str, Any]) -> dict[str, Any]:
    """The same for a record inside another: nothing in it is called `id`."""
    hints = get_type_hints(record)
    given = {"amount": POSITIVE_AMOUNT} if hints.get("amount") is int else {}
    schema = {
        "bsonType": "object",
        "properties": {name: _schema(hint) for name, hint in hints.items()} | given | stricter,
        "additionalProperties": False,
    }
    required = [name for name in hints if name not in record._field_defaults]
    # MongoDB refuses an empty list.
    return schema | {"required": required} if required else schema


_SCALARS: dict[Any, dict[str, Any]] = {
    bool: {"bsonType": "bool"},
    int: AMOUNT,
    str: {"bsonType": "string"},
    bytes: {"bsonType": "binData"},
    datetime: TIME,
}


def _schema(hint: Any) -> dict[str, Any]:  # noqa: ANN401 a type hint can be anything
    if get_origin(hint) in (Union, UnionType):
        inner = [part for part in get_args(hint) if part is not NoneType]
        return {"anyOf": [_schema(part) for part in inner] + [{"bsonType": "null"}]}
    if get_origin(hint) is tuple:
        return {"bsonType": "array", "items": _schema(get_args(hint)[0])}
    if get_origin(hint) is not None:
        return {"bsonType": "object" if issubclass(get_origin(hint), Mapping) else "array"}
    if hint in _SCALARS:
        return _SCALARS[hint]
    return {"enum": [member.value for member in hint]} if issubclass(hint, StrEnum) else validator_part(hint)
