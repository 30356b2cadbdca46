"""Makes a Postman collection (v2.1) and its environment of the story and the OpenAPI document."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from scripts.postman import snippets
from scripts.postman.schemas import example_of, resolve, shape_of
from scripts.postman.steps import Folder, Step

API_PREFIX: Final = "/api/v1"
_SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_NAMESPACE: Final = uuid5(NAMESPACE_URL, "urn:wallet:postman")
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_KEY_HEADER: Final = "Idempotency-Key"
_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})
_FIRST_ERROR: Final = 400
# Statuses and codes that say nothing about one operation: of those no example is saved.
_USUAL_STATUSES: Final = frozenset({"400", "401", "404", "413", "415", "429", "500", "503"})
_USUAL_CODES: Final = frozenset(
    {
        "account_deactivated",
        "forbidden",
        "idempotency_key_in_flight",
        "idempotency_key_reused",
        "invalid_fields",
    }
)

Json = dict[str, Any]


class StoryError(Exception):
    """The story and the API do not fit together; the message tells where."""


def operations_of(document: Mapping[str, Any]) -> dict[str, Json]:
    """By "METHOD /path", with the parameters of the whole path among its own."""
    return {
        f"{method.upper()} {path}": {
            **operation,
            "parameters": [
                resolve(one, document) for one in (*item.get("parameters", ()), *operation.get("parameters", ()))
            ],
            "responses": {status: resolve(one, document) for status, one in operation["responses"].items()},
        }
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
    }


def build_collection(document: Mapping[str, Any], story: Sequence[Folder], description: str) -> Json:
    """Raises StoryError where an operation has no example in its tag's folder, or an example no operation."""
    operations = operations_of(document)
    examples = {folder.name: {_name_in(operations, step) for step in folder.steps} for folder in story}
    missing = [
        f"{name} (folder {operation['tags'][0]!r})"
        for name, operation in operations.items()
        if name not in examples.get(operation["tags"][0], ())
    ]
    if missing:
        raise StoryError("The story has no example of " + ", ".join(missing))
    title = document["info"]["title"]
    return {
        "info": {
            "_postman_id": _id("collection"),
            "name": title,
            "description": description,
            "schema": _SCHEMA,
        },
        "auth": {"type": "noauth"},
        "item": [_folder(folder, operations, document) for folder in story],
    }


def build_environment(name: str, given: Mapping[str, str], story: Sequence[Folder]) -> Json:
    """What is given, and every variable that the scripts capture, empty."""
    captured = sorted(_captured(story) - given.keys())
    return {
        "id": _id("environment"),
        "name": name,
        "values": [
            {"key": key, "value": value, "type": _type_of(key), "enabled": True}
            for key, value in [*given.items(), *((key, "") for key in captured)]
        ],
        "_postman_variable_scope": "environment",
    }


def _type_of(key: str) -> str:
    return "secret" if re.search(r"(password|token|secret|api_key|code)", key) else "default"


def _captured(story: Sequence[Folder]) -> set[str]:
    """What any script keeps, or sets before its request."""
    steps = [step for folder in story for step in folder.steps]
    kept = {name for step in steps for name in step.keeps}
    return kept | {name for step in steps for name in re.findall(r'pm\.environment\.set\("(\w+)"', step.before)}


def _name_in(operations: Mapping[str, Json], step: Step) -> str:
    method, path = step.operation.split(" ", 1)
    for name in (f"{method} {API_PREFIX}{path}", step.operation):
        if name in operations:
            return name
    raise StoryError(f"The API has no {step.operation}, of which {step.title!r} is an example")


def _id(*names: str) -> str:
    """The same for the same names, so that the file changes only where the story does."""
    return str(uuid5(_NAMESPACE, "/".join(names)))


def _folder(folder: Folder, operations: Mapping[str, Json], document: Mapping[str, Any]) -> Json:
    titles = [step.title for step in folder.steps]
    if twice := {title for title in titles if titles.count(title) > 1}:
        raise StoryError(f"Folder {folder.name!r} has {sorted(twice)} twice")
    seen: set[str] = set()
    items = []
    for step in folder.steps:
        name = _name_in(operations, step)
        operation = operations[name]
        # Saved answers stand once for each operation, in the folder of its tag.
        is_first = name not in seen and operation["tags"][0] == folder.name
        seen.add(name)
        items.append(_item(folder, step, name, operation, document, has_responses=is_first))
    return {"id": _id(folder.name), "name": folder.name, "description": folder.description, "item": items}


def _item(
    folder: Folder, step: Step, name: str, operation: Json, document: Mapping[str, Any], *, has_responses: bool
) -> Json:
    method, path = name.split(" ", 1)
    request = {
        "method": method,
        "auth": _auth(step),
        "header": _headers(step, operation),
        **({} if step.body is None else {"body": _body(step)}),
        "url": _url(step, path, operation),
        "description": _description(step, name, operation),
    }
    responses = _responses(request, operation, document) if has_responses else []
    for response in responses:
        response["id"] = _id(folder.name, step.title, response["name"])
    return {
        "id": _id(folder.name, step.title),
        "name": step.title,
        "event": [
            *([_event("prerequest", step.before.split("\n"))] if step.before else []),
            _event("test", _tests(step, operation, document)),
        ],
        "request": request,
        "response": responses,
    }


def _event(listen: str, lines: Iterable[str]) -> Json:
    return {"listen": listen, "script": {"type": "text/javascript", "exec": list(lines)}}


def _auth(step: Step) -> Json:
    if step.api_key is not None:
        parts = {"key": "X-API-Key", "value": f"{{{{{step.api_key}}}}}", "in": "header"}
        return {
            "type": "apikey",
            "apikey": [{"key": key, "value": value, "type": "string"} for key, value in parts.items()],
        }
    if step.by is None:
        return {"type": "noauth"}
    return {
        "type": "bearer",
        "bearer": [{"key": "token", "value": f"{{{{{step.by}_token}}}}", "type": "string"}],
    }


def _headers(step: Step, operation: Json) -> list[Json]:
    known = {
        parameter["name"].lower(): parameter for parameter in operation["parameters"] if parameter["in"] == "header"
    }
    headers = dict(step.headers)
    if step.body is not None:
        headers.setdefault("Content-Type", _JSON)
    if _KEY_HEADER.lower() in known and step.key is not None:
        headers.setdefault(_KEY_HEADER, step.key)
    return [{"key": key, "value": value, **_described(known.get(key.lower(), {}))} for key, value in headers.items()]


def _described(parameter: Mapping[str, Any]) -> Json:
    text = parameter.get("description") or parameter.get("schema", {}).get("description")
    return {"description": text} if text else {}


def _body(step: Step) -> Json:
    raw = step.body if isinstance(step.body, str) else json.dumps(step.body, indent=2, ensure_ascii=False)
    return {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}


def _url(step: Step, path: str, operation: Json) -> Json:
    """Path and query with all their parameters; those that the example does not send are there, switched off."""
    parameters = {where: [one for one in operation["parameters"] if one["in"] == where] for where in ("path", "query")}
    if unknown := (step.path.keys() - {one["name"] for one in parameters["path"]}) | (
        step.query.keys() - {one["name"] for one in parameters["query"]}
    ):
        raise StoryError(f"{step.operation} has no {sorted(unknown)}, which {step.title!r} sends")
    segments = [re.sub(r"^\{(\w+)\}$", r":\1", segment) for segment in path.strip("/").split("/")]
    query = [
        *({"key": key, "value": value} for key, value in step.query.items()),
        *(
            {"key": one["name"], "value": _query_example(one), "disabled": True}
            for one in parameters["query"]
            if one["name"] not in step.query
        ),
    ]
    descriptions = {one["name"]: _described(one) for one in parameters["query"]}
    variables = [
        {"key": one["name"], "value": step.path.get(one["name"], f"{{{{{one['name']}}}}}"), **_described(one)}
        for one in parameters["path"]
    ]
    sent = "&".join(f"{key}={value}" for key, value in step.query.items())
    return {
        "raw": "{{base_url}}/" + "/".join(segments) + (f"?{sent}" if sent else ""),
        "host": ["{{base_url}}"],
        "path": segments,
        **({"query": [{**one, **descriptions[one["key"]]} for one in query]} if query else {}),
        **({"variable": variables} if variables else {}),
    }


def _query_example(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    options = [schema, *schema.get("anyOf", ())]
    examples = [one["examples"][0] for one in options if one.get("examples")]
    found = examples[0] if examples else next((one["default"] for one in options if one.get("default") is not None), "")
    if isinstance(found, list):
        found = found[0] if found else ""
    return str(found)


def _description(step: Step, name: str, operation: Json) -> str:
    refusals = sorted(
        {
            (int(status), code)
            for status, response in operation["responses"].items()
            if status.isdecimal()
            for code in response.get("content", {}).get(_PROBLEM, {}).get("examples", {})
        }
    )
    lines = [
        step.note,
        f"**{operation.get('summary', name)}**",
        operation.get("description", ""),
        "Refusals: " + ", ".join(f"{status} `{code}`" for status, code in refusals) if refusals else "",
    ]
    return "\n\n".join(line for line in lines if line)


def _tests(step: Step, operation: Json, document: Mapping[str, Any]) -> list[str]:
    statuses = step.statuses
    media_type = step.media_type or (_PROBLEM if statuses[0] >= _FIRST_ERROR else _JSON)
    of_first = []
    if _has_content(operation, statuses[0], media_type):
        of_first = snippets.has_media_type(media_type)
        if media_type in {_JSON, _PROBLEM}:
            of_first += ["const body = pm.response.json();", *_body_tests(step, operation, document)]
    lines = [*snippets.has_status(statuses), *snippets.has_request_id()]
    if "X-RateLimit-Limit" in operation["responses"].get(str(statuses[0]), {}).get("headers", {}):
        lines += snippets.has_rate_limits()
    if len(statuses) == 1:
        return [*lines, *of_first, *_more_tests(step)]
    return [
        *lines,
        f"if (pm.response.code === {statuses[0]}) {{",
        *(f"    {line}" for line in of_first),
        "} else {",
        *(f"    {line}" for line in snippets.has_media_type(_PROBLEM)),
        "}",
        *_more_tests(step),
    ]


def _has_content(operation: Json, status: int, media_type: str) -> bool:
    # A refusal that the document does not tell of is a problem document all the same.
    return status >= _FIRST_ERROR or media_type in operation["responses"].get(str(status), {}).get("content", {})


def _body_tests(step: Step, operation: Json, document: Mapping[str, Any]) -> list[str]:
    if step.statuses[0] >= _FIRST_ERROR:
        shape = snippets.is_problem(step.error) if step.error else []
    else:
        schema = operation["responses"][str(step.statuses[0])]["content"][_JSON].get("schema", {})
        shape = snippets.has_shape(_name_of(schema, document), shape_of(schema, document)) if schema else []
    rest = [*snippets.has_members(step.expects), *snippets.keeps(step.keeps)]
    if step.wait is None:
        return [*shape, *rest]
    return [*shape, *snippets.is_over(step.wait), *(f"    {line}" for line in rest), "}"]


def _more_tests(step: Step) -> list[str]:
    return [line for title, statement in step.tests.items() for line in snippets.test(title, *statement.split("\n"))]


def _name_of(schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_name_of(one, document) for one in schema["anyOf"])
    return str(resolve(schema, document).get("title", "the answer"))


def _responses(request: Json, operation: Json, document: Mapping[str, Any]) -> list[Json]:
    """The answer as the document shows it, and the refusals that are this operation's own."""
    saved = []
    for status, response in operation["responses"].items():
        for media_type, content in response.get("content", {}).items():
            for name, value in _examples(status, media_type, content, document):
                saved.append(_response(name, int(status), media_type, value, request))
    return saved


def _examples(
    status: str, media_type: str, content: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    if media_type != _PROBLEM:
        reason = HTTPStatus(int(status)).phrase
        name = f"{status} {reason}" if media_type == _JSON else f"{status} {reason}, as {media_type}"
        examples = content.get("examples")
        if examples:
            yield name, resolve(next(iter(examples.values())), document)["value"]
        elif "example" in content:
            yield name, content["example"]
        elif content.get("schema"):
            yield name, example_of(content["schema"], document)
    elif status not in _USUAL_STATUSES:
        for code, example in content.get("examples", {}).items():
            if code not in _USUAL_CODES:
                yield f"{status} {code}", resolve(example, document)["value"]


def _as_sent(request: Json) -> Json:
    """The request once more, without what it says of itself and does not send."""
    url = {key: value for key, value in request["url"].items() if key != "query"}
    query = [
        {"key": one["key"], "value": one["value"]} for one in request["url"].get("query", ()) if "disabled" not in one
    ]
    return {
        **{key: request[key] for key in ("method", "body") if key in request},
        "header": [{"key": one["key"], "value": one["value"]} for one in request["header"]],
        "url": url | ({"query": query} if query else {}),
    }


def _response(name: str, status: int, media_type: str, value: Any, request: Json) -> Json:  # noqa: ANN401 JSON
    is_text = isinstance(value, str)
    return {
        "name": name,
        "originalRequest": _as_sent(request),
        "status": HTTPStatus(status).phrase,
        "code": status,
        "_postman_previewlanguage": "text" if is_text else "json",
        "header": [{"key": "Content-Type", "value": media_type}],
        "cookie": [],
        "body": value if is_text else json.dumps(value, indent=2, ensure_ascii=False),
    }
