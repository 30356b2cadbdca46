"""Examples for OpenAPI: a whole answer or body out of its schema, so that no route has to write one down.

What a field is called tells nearly always what it holds; a model says so itself where it does not, by `examples` of a
field or of the whole model.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = dict[str, Any]

_TIME: Final = "2026-02-24T12:34:56.789Z"
_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

# By name, in whatever model.
_USUAL: Final[Mapping[str, Any]] = {
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "requested_by": "usr_0198c0ffee0070008000000000000002",
    "decided_by": "usr_0198c0ffee0070008000000000000002",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "from_wallet_id": "wal_0198c0ffee0070008000000000000001",
    "to_wallet_id": "wal_0198c0ffee0070008000000000000002",
    "deposit_id": "dep_0198c0ffee0070008000000000000001",
    "withdrawal_id": "wdr_0198c0ffee0070008000000000000001",
    "transfer_id": "trf_0198c0ffee0070008000000000000001",
    "hold_id": "hld_0198c0ffee0070008000000000000001",
    "adjustment_id": "adj_0198c0ffee0070008000000000000001",
    "conversion_id": "cnv_0198c0ffee0070008000000000000001",
    "quote_id": "quo_0198c0ffee0070008000000000000001",
    "voucher_id": "vch_0198c0ffee0070008000000000000001",
    "redemption_id": "rdm_0198c0ffee0070008000000000000001",
    "reversal_id": None,
    "return_id": None,
    "batch_id": None,
    "entry_id": "ent_0198c0ffee0070008000000000000001",
    "transaction_id": "txn_0198c0ffee0070008000000000000001",
    "reference": "wdr_0198c0ffee0070008000000000000001",
    "counterparty": "bank",
    "bank_reference": "bank_5f0c3e1b9a7d4c2e",
    "request_id": "5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
    "email": "asha@example.com",
    "first_name": "Asha",
    "last_name": "Rao",
    "password": "copper-lantern-meadow-41",
    "roles": ["user"],
    "is_active": True,
    "is_email_verified": True,
    "currency": "INR",
    "amount": 10000,
    "available": 9000,
    "held": 1000,
    "balance": 10000,
    "available_before": 10000,
    "available_after": 9000,
    "held_before": 0,
    "held_after": 1000,
    "seq": 12,
    "status": "success",
    "category": "rent",
    "description": "October",
    "metadata": {},
    "reason": "Asked for by its owner",
    "failure_code": None,
    "failure_message": None,
    "has_more": False,
    "next_cursor": None,
    "hash": _HASH,
    "prev_hash": "0" * 64,
}
_BY_TYPE: Final[Mapping[str, Any]] = {"boolean": True, "object": {}, "null": None}


class ExampleMissingError(LookupError):
    """There is a field about which neither its model nor its name says what it may hold."""


def add_usual_examples(schemas: Mapping[str, Schema]) -> None:
    """Gives fields what their name tells: an example, and times their format. What a model says itself stays."""
    for model in schemas.values():
        for name, field in model.get("properties", {}).items():
            if (name == "at" or name.endswith("_at")) and _takes_text(field):
                field.setdefault("format", "date-time")
            if name in _USUAL and _fits(_USUAL[name], field, schemas):
                field["examples"] = [_USUAL[name]]


def example_of(schema: Schema, schemas: Mapping[str, Schema], name: str = "") -> Any:  # noqa: ANN401 JSON is anything
    """An instance of the schema; raises ExampleMissingError with the path of the field that says nothing."""
    if "$ref" in schema:
        schema = {**_target(schema["$ref"], schemas), **schema}
    if schema.get("examples"):
        return _with_nulls(schema["examples"][0], schema, schemas)
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if choices := schema.get(keyword):
            return example_of({"format": schema.get("format"), **choices[0]}, schemas, name)
    if "properties" in schema:
        return dict(_members(schema, schemas, name))
    return _by_type(schema, schemas, name)


def _members(schema: Schema, schemas: Mapping[str, Schema], name: str) -> Iterator[tuple[str, Any]]:
    for field, of_field in schema["properties"].items():
        try:
            yield field, example_of(of_field, schemas, f"{name}.{field}")
        except ExampleMissingError:
            if field in schema.get("required", ()):
                raise


def _by_type(schema: Schema, schemas: Mapping[str, Schema], name: str) -> Any:  # noqa: ANN401 JSON is anything
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas, f"{name}[]")]
    if schema.get("type") == "integer":
        return max(1, schema.get("minimum", 1))
    if schema.get("format") == "date-time":
        return _TIME
    if schema.get("type") in _BY_TYPE:
        return _BY_TYPE[schema["type"]]
    raise ExampleMissingError(name)


def _with_nulls(example: Any, schema: Schema, schemas: Mapping[str, Schema]) -> Any:  # noqa: ANN401 JSON is anything
    """The example as its model has it: FastAPI takes members away that are null."""
    if "$ref" in schema:
        schema = _target(schema["$ref"], schemas)
    for choice in schema.get("anyOf", ()):
        example = _with_nulls(example, choice, schemas)
    if isinstance(example, list) and "items" in schema:
        return [_with_nulls(one, schema["items"], schemas) for one in example]
    if isinstance(example, dict) and "properties" in schema:
        required = schema.get("required", ())
        return {
            name: _with_nulls(example.get(name), field, schemas)
            for name, field in schema["properties"].items()
            if name in example or name in required
        }
    return example


def usual_example(name: str) -> Any:  # noqa: ANN401 JSON is anything
    """What a parameter of this name may be, None where the name tells nothing."""
    return _USUAL.get(name)


def _fits(example: Any, field: Schema, schemas: Mapping[str, Schema]) -> bool:  # noqa: ANN401 JSON is anything
    """Whether a field that says nothing itself could hold it; other models have other enumerations."""
    if any(keyword in field for keyword in ("examples", "example", "const", "enum")):
        return False
    if "$ref" in field:
        return example in _target(field["$ref"], schemas).get("enum", ())
    return True


def _takes_text(field: Schema) -> bool:
    return field.get("type") == "string" or any(one.get("type") == "string" for one in field.get("anyOf", ()))


def _target(reference: str, schemas: Mapping[str, Schema]) -> Schema:
    return schemas[reference.rpartition("/")[2]]
