"""The OpenAPI document is complete: every operation is walked, and what is missing is named with its place.

What follows from how a route is made (401 from a token, 415 from a body, X-Request-ID everywhere) is added by
service/controllers/openapi.py; what is named here is for the route or its models to say.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
from schemathesis.specs.openapi import definitions

from service.controllers.examples import ExampleMissingError, example_of
from service.errors import WalletServiceError
from service.version import project_version

_METHODS = ("get", "put", "post", "delete", "patch")
_PROBLEM = "application/problem+json"
_JSON = "application/json"
# Whoever is not logged in may ask these.
_OPEN = {
    "POST /api/v1/auth/login", "POST /api/v1/auth/register", "POST /api/v1/auth/refresh",
    "POST /api/v1/auth/register/confirm",
    "POST /api/v1/auth/password-reset", "POST /api/v1/auth/password-reset/confirm", "GET /api/v1/checkpoints/keys",
    "GET /livez", "GET /readyz", "GET /health", "GET /metrics",
}  # fmt: skip
_HEALTH = {"GET /livez", "GET /readyz", "GET /health", "GET /metrics"}


class Operation(NamedTuple):
    name: str
    path: str
    method: str
    body: dict[str, Any]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body.get("parameters", [])
        return found

    @property
    def responses(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.body["responses"]
        return found


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> list[Operation]:
    found = [
        Operation(f"{method.upper()} {path}", path, method, item[method])
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item
    ]
    assert len(found) >= 75
    return found


def _none(missing: list[str]) -> None:
    """Fails with a line for each thing that is missing."""
    assert not missing, "the OpenAPI document lacks:\n  " + "\n  ".join(missing)


def _resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found: Any = document
    for key in part["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    resolved: dict[str, Any] = found
    return resolved


def _contents(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where, and the media type's object of all that is sent and answered."""
    for media_type, content in operation.body.get("requestBody", {}).get("content", {}).items():
        yield f"{operation.name}, request body, {media_type}", content
    for status, response in operation.responses.items():
        for media_type, content in response.get("content", {}).items():
            yield f"{operation.name}, {status}, {media_type}", content


class TestTheWhole:
    def test_is_valid_by_the_schema_of_openapi_3_1(self, document: dict[str, Any]) -> None:
        validator = jsonschema_rs.validator_for(definitions.OPENAPI_31)
        _none([f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(document)])

    def test_has_schemas_that_are_json_schema(self, document: dict[str, Any]) -> None:
        for name, schema in document["components"]["schemas"].items():
            declared = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
            assert jsonschema_rs.meta.is_valid(declared), name

    def test_tells_what_a_stranger_has_to_know(self, document: dict[str, Any]) -> None:
        info = document["info"]
        assert info["version"] == project_version()
        assert info["license"]["name"] == "MIT"
        for convention in ("Idempotency-Key", "problem+json", "next_cursor", "minor units", "X-Request-ID"):
            assert convention in info["description"], convention
        assert [server["url"] for server in document["servers"]] == ["/"]

    def test_describes_the_tags_that_are_used_and_no_others(
        self, document: dict[str, Any], operations: list[Operation]
    ) -> None:
        described = [tag["name"] for tag in document["tags"] if tag["description"]]
        assert len(described) == len(set(described))
        assert set(described) == {tag for operation in operations for tag in operation.body["tags"]}

    def test_uses_every_schema_that_it_has(self, document: dict[str, Any]) -> None:
        text = json.dumps(document)
        _none([name for name in document["components"]["schemas"] if f'"#/components/schemas/{name}"' not in text])


class TestEveryOperation:
    def test_has_a_short_id_of_its_own(self, operations: list[Operation]) -> None:
        ids = [operation.body["operationId"] for operation in operations]
        _none([f"{one}: an id of its own" for one in ids if ids.count(one) > 1])
        _none([f"{one}: a verb and a noun" for one in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)*", one)])

    def test_has_a_summary_a_description_and_one_tag(self, operations: list[Operation]) -> None:
        missing = []
        for operation in operations:
            missing += [f"{operation.name}: {key}" for key in ("summary", "description") if not operation.body.get(key)]
            if len(operation.body.get("tags", [])) != 1:
                missing.append(f"{operation.name}: exactly one tag")
        _none(missing)

    def test_says_who_may_ask(self, document: dict[str, Any], operations: list[Operation]) -> None:
        missing = []
        schemes = set(document["components"]["securitySchemes"])
        for operation in operations:
            named = {name for one in operation.body.get("security", []) for name in one}
            if named - schemes:
                missing.append(f"{operation.name}: the scheme {named - schemes}")
            if bool(named) == (operation.name in _OPEN):
                missing.append(f"{operation.name}: security, or a place among those that anybody may ask")
        _none(missing)

    def test_declares_every_status_that_it_can_answer_with(self, operations: list[Operation]) -> None:
        missing = []
        for operation in operations:
            expected = set() if operation.name in _HEALTH else {"400", "422", "500", "503"}
            if "requestBody" in operation.body:
                expected |= {"413", "415"}
            if operation.body.get("security"):
                expected |= {"401"}
            if any("bankSignature" not in one for one in operation.body.get("security", [])):
                expected |= {"403"}
            if "{" in operation.path:
                expected |= {"404"}
            if any(one["name"] == "Idempotency-Key" for one in operation.parameters):
                expected |= {"409"}
            missing += [f"{operation.name}: {status}" for status in expected - set(operation.responses)]
            if not any(status < "300" for status in operation.responses):
                missing.append(f"{operation.name}: a success")
        _none(missing)

    def test_answers_errors_as_problems_with_an_example_of_each(
        self, document: dict[str, Any], operations: list[Operation]
    ) -> None:
        problem = _validator(document, {"$ref": "#/components/schemas/Problem"})
        known = {error.code: error for error in _errors(WalletServiceError)}
        missing = []
        for operation in operations:
            for status, response in operation.responses.items():
                if status < "400" or operation.name in _HEALTH:
                    continue
                if list(response["content"]) != [_PROBLEM]:
                    missing.append(f"{operation.name}, {status}: {_PROBLEM} and nothing else")
                    continue
                for code, example in response["content"][_PROBLEM]["examples"].items():
                    shown = _resolved(document, example)["value"]
                    if known[code].http_status != int(status) or not problem.is_valid(shown):
                        missing.append(f"{operation.name}, {status}: a true example of {code}")
        _none(missing)

    def test_has_examples_of_what_is_sent_and_answered(
        self, document: dict[str, Any], operations: list[Operation]
    ) -> None:
        missing = []
        for operation in operations:
            for where, content in _contents(operation):
                if not content.get("schema"):
                    missing.append(f"{where}: a schema")
                elif "example" not in content and "examples" not in content:
                    missing.append(f"{where}: an example ({_what_says_nothing(document, content['schema'])})")
        _none(missing)

    def test_has_examples_that_hold_by_their_schema(
        self, document: dict[str, Any], operations: list[Operation]
    ) -> None:
        wrong = []
        for operation in operations:
            for where, content in _contents(operation):
                validator = _validator(document, content["schema"])
                examples = [_resolved(document, one)["value"] for one in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                for example in examples:
                    wrong += [
                        f"{where}: {list(error.instance_path)} {error.message}"
                        for error in validator.iter_errors(example)
                    ]
        _none(wrong)

    def test_describes_and_bounds_its_parameters(self, document: dict[str, Any], operations: list[Operation]) -> None:
        missing = []
        for operation in operations:
            for parameter in operation.parameters:
                where = f"{operation.name}: {parameter['in']} parameter {parameter['name']}"
                if not parameter.get("description"):
                    missing.append(f"{where}: description")
                if not all(_is_bounded(document, schema) for schema in _choices(parameter["schema"])):
                    missing.append(f"{where}: a length, range, format, pattern or enumeration")
        _none(missing)

    def test_bounds_the_numbers_that_it_takes(self, document: dict[str, Any]) -> None:
        schemas = document["components"]["schemas"]
        _none(
            [
                f"{name}.{field}: minimum and maximum"
                for name, schema in schemas.items()
                if name.endswith(("Request", "Changes"))
                for field, of_field in schema["properties"].items()
                for choice in _choices(of_field)
                if choice.get("type") == "integer" and not {"minimum", "maximum"} <= set(choice)
            ]
        )

    def test_declares_its_headers(self, document: dict[str, Any], operations: list[Operation]) -> None:
        missing = []
        for operation in operations:
            takes_key = any(one["name"] == "Idempotency-Key" for one in operation.parameters)
            for status, response in operation.responses.items():
                expected = {"X-Request-ID"}
                if status == "401":
                    expected.add("WWW-Authenticate")
                if status in ("429", "503") and operation.name not in _HEALTH:
                    expected.add("Retry-After")
                if takes_key and status < "300":
                    expected.add("Idempotent-Replayed")
                headers = response.get("headers", {})
                missing += [f"{operation.name}, {status}: header {name}" for name in expected - set(headers)]
                for name, header in headers.items():
                    declared = _resolved(document, header)
                    if not (declared.get("schema") and declared.get("description") and "example" in declared):
                        missing.append(f"{operation.name}, {status}: schema, description and example of {name}")
        _none(missing)


class TestLists:
    """Whatever has a cursor is a list: the same parameters under the same names, the same envelope."""

    def test_are_alike(self, document: dict[str, Any], operations: list[Operation]) -> None:
        lists = [one for one in operations if any(parameter["name"] == "cursor" for parameter in one.parameters)]
        assert len(lists) >= 14
        wrong = []
        shared: dict[str, Any] = {}
        for operation in lists:
            schema = operation.responses["200"]["content"][_JSON]["schema"]
            if list(_resolved(document, schema)["properties"]) != ["data", "has_more", "next_cursor"]:
                wrong.append(f"{operation.name}: data, has_more and next_cursor")
            names = [parameter["name"] for parameter in operation.parameters if parameter["in"] == "query"]
            if names[:2] != ["limit", "cursor"]:
                wrong.append(f"{operation.name}: limit and cursor first")
            if ("created_from" in names) != ("created_to" in names):
                wrong.append(f"{operation.name}: both ends of the time range")
            for parameter in operation.parameters:
                if parameter["name"] in ("limit", "cursor", "created_from", "created_to", "category"):
                    first = shared.setdefault(parameter["name"], parameter)
                    if parameter != first:
                        wrong.append(f"{operation.name}: {parameter['name']} as elsewhere: {parameter} is not {first}")
        _none(wrong)


class TestWebhooks:
    @pytest.mark.parametrize("name", ["payment.settled", "payment.returned"])
    def test_the_banks_messages_are_declared_with_the_headers_of_standard_webhooks(
        self, document: dict[str, Any], name: str
    ) -> None:
        message = document["webhooks"][name]["post"]
        assert {one["name"] for one in message["parameters"] if one["in"] == "header"} == {
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        }
        assert set(message["responses"]) == {"200", "400", "401", "413", "415", "422", "500", "503"}
        content = message["requestBody"]["content"][_JSON]
        assert content["example"]["type"] == content["schema"]["properties"]["type"]["const"] == name


def _validator(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": {"schemas": document["components"]["schemas"]},
            **schema,
        },
        validate_formats=True,
    )


def _errors(kind: type[WalletServiceError]) -> Iterator[type[WalletServiceError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _errors(subclass)


def _what_says_nothing(document: dict[str, Any], schema: dict[str, Any]) -> str:
    try:
        example_of(schema, document["components"]["schemas"])
    except ExampleMissingError as error:
        return f"the field {error} says nothing: give it `examples`"
    return "said by nothing"


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]


def _is_bounded(document: dict[str, Any], schema: dict[str, Any]) -> bool:
    schema = _resolved(document, schema)
    if schema.get("type") == "array":
        return "maxItems" in schema and _is_bounded(document, schema["items"])
    if schema.get("type") == "integer":
        return {"minimum", "maximum"} <= set(schema)
    return schema.get("type") == "boolean" or bool({"maxLength", "pattern", "format", "enum", "const"} & set(schema))
