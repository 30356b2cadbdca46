"""Shapes and examples out of an OpenAPI 3.1 document, as Postman can use them."""

from collections.abc import Mapping
from typing import Any, Final

# What a shape is tested for; lengths, ranges and patterns are for the tests of the service itself.
_KEPT: Final = ("type", "enum", "const", "required")
_LISTS: Final = ("anyOf", "oneOf", "allOf")

Schema = Mapping[str, Any]


def resolve(part: Schema, document: Schema) -> Schema:
    """The part itself, a schema or another component, where this one only points to it."""
    while "$ref" in part:
        pointed: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            pointed = pointed[name.replace("~1", "/").replace("~0", "~")]
        part = pointed
    return part


def shape_of(schema: Schema, document: Schema) -> dict[str, Any]:
    """The schema without references and niceties. JSON Schema draft 7, which Postman tests by, reads it the same."""
    schema = resolve(schema, document)
    shape: dict[str, Any] = {name: schema[name] for name in _KEPT if name in schema}
    if "properties" in schema:
        shape["properties"] = {name: shape_of(one, document) for name, one in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), Mapping):
            shape[name] = shape_of(schema[name], document)
    for name in _LISTS:
        if name in schema:
            shape[name] = [shape_of(one, document) for one in schema[name]]
    return shape


def example_of(schema: Schema, document: Schema) -> Any:  # noqa: ANN401 any JSON value
    """An example as the document gives it, or put together from those of its members."""
    for one in (schema, resolve(schema, document)):
        if "example" in one:
            return one["example"]
        if one.get("examples"):
            return one["examples"][0]
    return _put_together(resolve(schema, document), document)


def _put_together(schema: Schema, document: Schema) -> Any:  # noqa: ANN401 any JSON value
    if "properties" in schema:
        return {name: example_of(one, document) for name, one in schema["properties"].items()}
    if options := next((schema[name] for name in _LISTS if name in schema), None):
        return example_of(options[0], document)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array" and "items" in schema:
        return [example_of(schema["items"], document)]
    plain = {"array": [], "object": {}, "integer": schema.get("minimum", 0), "boolean": True, "null": None}
    return schema.get("const", schema.get("default", plain.get(schema.get("type", ""), "…")))
