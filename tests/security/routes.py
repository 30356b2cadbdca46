"""What the OpenAPI document tells of each route: where it is, what it takes, who may call it."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi import FastAPI

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_KEY_HEADER = "Idempotency-Key"
# Integers of JSON that every reader gets right.
_LARGEST = 2**53 - 1

Step = str | int
Schema = dict[str, Any]


class NothingToSend(LookupError):
    """The document names something that the corpus has no value for; the message says what to add."""


class Field(NamedTuple):
    """One member of a body, or one query parameter."""

    path: tuple[Step, ...]
    schema: Schema
    is_required: bool

    @property
    def name(self) -> str:
        return str(self.path[-1])

    @property
    def types(self) -> set[str]:
        """Those of JSON that it takes; {"any"} where the document does not say."""
        found = {kind for one in _alternatives(self.schema) for kind in _types_of(one)}
        return found or {"any"}

    @property
    def is_nullable(self) -> bool:
        return "null" in self.types

    @property
    def bounds(self) -> tuple[int, int]:
        """Of an integer; what is not declared is what an amount has."""
        (one, *_) = [each for each in _alternatives(self.schema) if "integer" in _types_of(each)]
        least, most = one.get("minimum", one.get("ge")), one.get("maximum", one.get("le"))
        return 1 if least is None else int(least), _LARGEST if most is None else int(most)

    def __str__(self) -> str:
        return "/".join(map(str, self.path))


class Route(NamedTuple):
    method: str
    path: str
    path_parameters: tuple[str, ...]
    query: tuple[Field, ...]
    # None: the route takes no body.
    body: Schema | None
    is_secured: bool
    is_keyed: bool
    needs_key: bool
    permission: str | None
    # Those that an API key has to have; none where the route takes no keys.
    key_permissions: tuple[str, ...]
    has_large_body: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def takes_api_keys(self) -> bool:
        return bool(self.key_permissions)

    def url(self, ids: Mapping[str, str]) -> str:
        path = self.path
        for name in self.path_parameters:
            path = path.replace(f"{{{name}}}", quote(ids[name], safe=""))
        return path

    @property
    def fields(self) -> list[Field]:
        """Every member of the body, those within objects and lists too."""
        return [] if self.body is None else list(_members(self.body, ()))

    def _of_type(self, kind: str) -> list[Field]:
        return [field for field in self.fields if kind in field.types]

    @property
    def integers(self) -> list[Field]:
        return self._of_type("integer")

    @property
    def texts(self) -> list[Field]:
        return self._of_type("string")

    @property
    def objects(self) -> list[tuple[Step, ...]]:
        """Where the body's objects with fixed members are: () is the body itself."""
        return [] if self.body is None else list(dict.fromkeys(field.path[:-1] for field in self.fields))


def read_routes(app: FastAPI) -> list[Route]:
    """All of them, in the document's order."""
    document = app.openapi()
    schemas = document.get("components", {}).get("schemas", {})
    return [
        _read(method.upper(), path, operation, document, schemas)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS
    ]


def _read(
    method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any], schemas: Mapping[str, Schema]
) -> Route:
    parameters = [_resolved_parameter(one, document) for one in operation.get("parameters", [])]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    keys = [one for one in parameters if one["in"] == "header" and one["name"] == _KEY_HEADER]
    query = [
        Field((one["name"],), _with_examples(_inline(one["schema"], schemas), one), one.get("required", False))
        for one in parameters
        if one["in"] == "query"
    ]
    security = operation.get("security", document.get("security", []))
    return Route(
        method=method,
        path=path,
        path_parameters=tuple(one["name"] for one in parameters if one["in"] == "path"),
        query=tuple(query),
        body=None if body is None else _inline(body, schemas),
        is_secured=any("AccessToken" in one for one in security),
        is_keyed=bool(keys),
        needs_key=any(one.get("required", False) for one in keys),
        permission=operation.get("x-permission"),
        key_permissions=next((tuple(one["ApiKey"]) for one in security if "ApiKey" in one), ()),
        has_large_body=path.endswith("/batch"),
    )


def _resolved_parameter(parameter: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" not in parameter:
        return parameter
    name = parameter["$ref"].rpartition("/")[2]
    resolved: dict[str, Any] = document["components"]["parameters"][name]
    return resolved


def _with_examples(schema: Schema, parameter: Mapping[str, Any]) -> Schema:
    """A parameter's examples may stand beside its schema as well as in it."""
    if "example" in parameter:
        return {**schema, "examples": [parameter["example"]]}
    if parameter.get("examples"):
        return {**schema, "examples": [one["value"] for one in parameter["examples"].values()]}
    return schema


def _inline(schema: Any, schemas: Mapping[str, Schema]) -> Any:
    """Without references. Bodies do not contain themselves."""
    if isinstance(schema, list):
        return [_inline(one, schemas) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = schemas[schema["$ref"].rpartition("/")[2]]
        return {**_inline(target, schemas), **{name: one for name, one in schema.items() if name != "$ref"}}
    return {name: _inline(one, schemas) for name, one in schema.items() if name != "discriminator"}


def _alternatives(schema: Schema) -> list[Schema]:
    found = []
    for name in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(name, []):
            found.extend(_alternatives(one))
    return found or [schema]


def _types_of(schema: Schema) -> set[str]:
    declared = schema.get("type")
    if declared is None:
        values = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
        return {"string"} if any(isinstance(value, str) for value in values) else set()
    return set(declared) if isinstance(declared, list) else {declared}


def _members(schema: Schema, path: tuple[Step, ...]) -> Iterator[Field]:
    for one in _alternatives(schema):
        required = one.get("required", ())
        for name, member in one.get("properties", {}).items():
            yield Field((*path, name), member, name in required)
            yield from _members(member, (*path, name))
        if "items" in one:
            yield from _members(one["items"], (*path, 0))


def example_of(field: Field, body: Schema | None) -> Any:
    """What the document itself gives as a value; raises NothingToSend where it gives none."""
    for example in (body or {}).get("examples", ()):
        if len(field.path) == 1 and example.get(field.name) is not None:
            return example[field.name]
    for one in (field.schema, *_alternatives(field.schema)):
        for found in (*one.get("examples", ()), *([one["example"]] if "example" in one else ())):
            if found is not None:
                return found
        for name in ("default", "const"):
            if one.get(name) is not None:
                return one[name]
        if one.get("enum"):
            return one["enum"][0]
    raise NothingToSend(field.name)


def put(body: Any, path: tuple[Step, ...], value: Any) -> Any:
    """A copy of the body with the value there; lists have one element at least."""
    changed = deepcopy(body)
    at = changed
    for step in path[:-1]:
        at = at.setdefault(step, {}) if isinstance(at, dict) else at[int(step)]
    at[path[-1]] = value
    return changed
