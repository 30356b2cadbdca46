"""The OpenAPI document: what FastAPI makes of the routes, completed by what holds for many of them.

A route states what is its own: its summary, its models, its errors. What follows from how it is made is added here, in
one place: what anything may be answered with, what a body brings with it, what a token does, headers and examples.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from service.controllers.cookies import ACCESS_COOKIE, CSRF_HEADER
from service.controllers.dependencies import API_KEY_HEADER, KEY_HEADER, TOKEN_SCHEME
from service.controllers.examples import ExampleMissingError, Schema, add_usual_examples, example_of, usual_example
from service.controllers.rate_limits import EXEMPT_PATHS
from service.controllers.schemas import PROBLEM, Problem, problem_responses
from service.controllers.webhook_endpoints import EVENT_SCHEMA, WebhookEventView, event_webhook
from service.domain.permissions import KEY_PERMISSIONS, LIVE_PERMISSIONS
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    AccountDeactivated,
    BodyTooLarge,
    Forbidden,
    IdempotencyKeyInFlight,
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InternalError,
    InvalidCursor,
    InvalidFields,
    Malformed,
    NotFound,
    RateLimitExceeded,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    WalletServiceError,
)
from service.version import project_version

_METHODS: Final = ("get", "put", "post", "delete", "patch")
_JSON: Final = "application/json"
_FIRST_ERROR_STATUS: Final = 400

DESCRIPTION: Final = """\
Wallets whose balances are exact, fast under contention and provable afterwards.

**Who asks.** `POST /api/v1/auth/login` gives an access token; send it as `Authorization: Bearer …`. Web pages ask for
cookies instead (`cookies: true`) and send the CSRF token with all but GET. The acting user always is the token's, never
one that the request names. What belongs to somebody else is `404`, as if it were not there.

**Amounts** are whole numbers of minor units (10050 is 100.50 INR, 10050 is 10050 JPY) from 1 to 9007199254740991,
beside an ISO 4217 code, or `PTS` for points. Decimals, exponents, text and booleans are refused. **Times** are RFC 3339
in UTC with milliseconds. **Ids** begin with what they are of: `wal_`, `dep_`, `wdr_`, `trf_`, `usr_` and so on.

**Repeating.** What moves money takes an `Idempotency-Key`, new for each new request. The same key with the same request
is answered with the first answer, to the byte, and `Idempotent-Replayed: true`; refusals too. The same key with another
request is `422 idempotency_key_reused`; while the first one still runs it is `409`. So after a time-out, a broken
connection, `429` or `5xx`, send the very same again. The answer is kept for a week. What was made under the key is not
made again even then: the repetition is answered with it as it stands, and `Idempotent-Replayed: true`.

**Bodies and parameters** are read strictly: unknown fields, unknown or doubled query parameters, doubled JSON keys and
values of another type are refused. Answers may get more members with time: ignore what you do not know.

**Numbers** stay within 9007199254740991 (2^53 less 1), up to which every reader of JSON carries them exactly. A sum
over many wallets or payments may pass it: then a string of its digits stands there, as the field's schema says; and so
it does where a damaged document has such a number.

**Errors** are `application/problem+json` (RFC 9457) with `error`, the code to go by; `errors` names each part of a
request that is not valid; `request_id` is what to quote when asking us. `400` cannot be read, `401` nobody is logged
in, `403` not allowed, `404` not there, `409` the state does not allow it, `422` a rule or a field, `429` too often,
`503` not now: the last two say when to come back in `Retry-After`.

**Lists** are newest first, in pages: `limit` (20, at most 100) rows, and `next_cursor` for the next page while
`has_more`. A cursor belongs to its list and its filters. Filters narrow together; `created_from` counts, `created_to`
does not.

**Headers.** Every answer has an `X-Request-ID`: yours, if you send a sane one of 8 to 128 letters, digits and `._:-`.
"""
TAGS: Final = (
    ("Authentication", "Registering and logging in."),
    ("Sessions", "Refreshing tokens, logging out, and the devices that one is logged in on."),
    ("Passwords", "A new password: by the old one, or by mail."),
    ("Users", "Oneself: profile, balances, history."),
    ("Second factor", "An authenticator app for large payments, and its recovery codes."),
    ("Wallets", "One wallet for each currency: balance, history, statement, spending, freezing, closing."),
    ("Deposits", "Money from the bank. It is accepted at once and credited when the bank has paid."),
    ("Withdrawals", "Money to the bank. It is held at once, leaves on success and comes back on failure."),
    ("Transfers", "Money between wallets, at once, alone or by the hundred."),
    ("Approvals", "One-time codes for payments above the step-up amount, and canceling what can be called off."),
    ("Holds", "Money set aside for a time, and then taken or given back."),
    ("Multi-currency", "Quotes, and conversions between one's own wallets."),
    ("Points and vouchers", "Points that are earned by deposits and payments, and what they buy."),
    ("Limits", "What may leave a wallet, by payment, hour, day and month."),
    ("Proofs", "Checkpoints that seal all wallets, and proofs against them that can be checked without us."),
    ("Adjustments", "Credits and debits by services and admins, with four eyes above a set amount."),
    ("Reversals", "Taking a transfer or an adjustment back, once."),
    ("Outcomes", "What the bank left open, contradicted or sent back, and what admins decide about it."),
    ("Admin", "The house's own view: the books, the audit events, the catalogue."),
    ("User administration", "Looking people up, shutting them out, letting them in again, and their roles."),
    ("Access proposals", "What gives somebody more access: one admin asks for it, another one confirms it."),
    ("Dead letters", "Rows of the workers' queues that no try has brought to an end, for admins."),
    ("API keys", "For services: made, rotated and revoked by admins."),
    ("Events", "What happens in one's wallets: to read, and as it happens, by WebSocket or Server-Sent Events."),
    ("Webhook endpoints", "Where users want to be told of their events, and what was sent there."),
    ("Webhooks", "What the bank sends to us."),
    ("Health", "For load balancers, orchestrators and people."),
)

# What follows from how a route is made. Before its own errors: what is looked at first.
_WITH_PATH: Final = (NotFound,)
_WITH_CURSOR: Final = (InvalidCursor,)
_WITH_KEY: Final = (
    Malformed,
    IdempotencyKeyMissing,
    IdempotencyKeyInvalid,
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
)
# Health answers with nothing but itself.
_FIRST_BUT_HEALTH: Final = (InvalidFields,)
# Behind its own errors: the rest.
_LAST_BUT_HEALTH: Final = (Malformed, InternalError, Unavailable)
_WITH_BODY: Final = (BodyTooLarge, UnsupportedMediaType)
_WITH_TOKEN: Final = (Unauthenticated, Forbidden)
# Where the user is looked up before anything is done.
_WITH_USER: Final = (AccountDeactivated,)
_API_KEY: Final = "ApiKey"
_COOKIE: Final = "SessionCookie"
_BANK: Final = "bankSignature"
_HEALTH: Final = "Health"
_BANK_CALLBACK: Final = "/webhooks/bank-callback"

# FastAPI knows of the access token by itself.
_SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    _API_KEY: {
        "type": "apiKey",
        "in": "header",
        "name": API_KEY_HEADER,
        "description": "Of a service, from `POST /api/v1/admin/api-keys`.",
    },
    _COOKIE: {
        "type": "apiKey",
        "in": "cookie",
        "name": ACCESS_COOKIE,
        "description": "For web pages, from `POST /api/v1/auth/login` with `cookies: true`. All but GET take the "
        f"session's CSRF token in `{CSRF_HEADER}` besides; without it they are `403 csrf_token_invalid`.",
    },
    _BANK: {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "Standard Webhooks 1.0.0: `v1,` and base64 of HMAC-SHA256, by the shared secret, over "
        "`webhook-id`, `webhook-timestamp` and the body as sent, with full stops between.",
    },
}

_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
# By name in components/headers.
_HEADERS: Final[dict[str, Schema]] = {
    "X-Request-ID": {
        "description": "Of this request, in our logs too: yours if it was sane, else a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{8,128}$"},
        "example": "5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
        "required": True,
    },
    "WWW-Authenticate": {
        "description": "How to prove who asks (RFC 9110, section 11.6.1).",
        "schema": {"type": "string"},
        "example": "Bearer",
        "required": True,
    },
    "Retry-After": {
        "description": "Seconds to wait before the same is sent again.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 2,
    },
    "Idempotent-Replayed": {
        "description": "Only where nothing was done: the answer that the key was given before, or what it made.",
        "schema": {"type": "string", "const": "true"},
        "example": "true",
    },
    "X-RateLimit-Limit": {
        "description": "Requests per minute, of the limit that is nearest to being reached",
        "schema": _COUNT,
        "example": 300,
    },
    "X-RateLimit-Remaining": {"description": "How many of them are left", "schema": _COUNT, "example": 299},
    "X-RateLimit-Reset": {
        "description": "When there will be more, in Unix seconds",
        "schema": _COUNT,
        "example": 1_800_000_000,
    },
}
_RATE_LIMIT_HEADERS: Final = tuple(name for name in _HEADERS if name.startswith("X-RateLimit-"))
_RETRYABLE: Final = {"429", "503"}
# What a key is given again: refusals by a rule as well.
_REPLAYED_ERRORS: Final = {"403", "404", "409", "422"}

# By name; others are described where they are declared.
_PARAMETERS: Final = {"currency": "ISO 4217, or PTS for points", "status": "Only those with this status"}
# What is checked by hand, so that its refusal is the right one: 400 for a key, 401 for a signature.
_HEADER_SCHEMAS: Final[dict[str, Schema]] = {
    KEY_HEADER: {
        "minLength": 1,
        "maxLength": 512,
        "pattern": r'^("([!#-\[\]-~]|\\["\\]){1,255}"|[!#-~]{1,255})$',
        "examples": ["7f0a1f6e-3a53-4d5c-9d0e-0a6b9d6d3f11"],
    },
    "webhook-id": {"minLength": 1, "examples": ["msg_5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a"]},
    "webhook-timestamp": {"pattern": "^[0-9]+$", "examples": ["1771936496"]},
    "webhook-signature": {"minLength": 1, "examples": ["v1,mLVFJdVbHtOyxnX4E9OvmpYmQUyqGD7ZbyXTKvCHDSw="]},
}
_HEADER_PARAMETERS: Final = {
    name: {"required": True} for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
}
_PAGE: Final = re.compile(r"PageView_(\w+?)(?:View)?_")
_ID_PARAMETER: Final = re.compile(r"(?P<noun>[a-z_]+)_id")


def metadata() -> dict[str, Any]:
    """What the application says about itself."""
    return {
        "title": "Wallet service",
        "version": project_version(),
        "summary": "Wallets whose balances are exact, fast under contention and provable afterwards.",
        "description": DESCRIPTION,
        "license_info": {"name": "MIT", "identifier": "MIT"},
        "servers": [{"url": "/", "description": "The server that this document came from"}],
        "openapi_tags": [{"name": name, "description": description} for name, description in TAGS],
    }


def complete_openapi(app: FastAPI) -> None:
    """Lets `app.openapi()` give the whole document; the same one each time that it is asked."""
    generate = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        document = generate()
        _complete(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation gives


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation of all that can be called."""
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield method, path, item[method]


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _add_problem(schemas)
    _add_schema(schemas, EVENT_SCHEMA, WebhookEventView)
    add_usual_examples(schemas)
    components.setdefault("headers", {}).update(_HEADERS)
    components.setdefault("securitySchemes", {}).update(_SECURITY_SCHEMES)
    for _, path, operation in operations_of(document):
        _complete_parameters(operation)
        _complete_security(operation)
        _complete_errors(path, operation)
        if path not in EXEMPT_PATHS:
            _complete_rate_limits(operation["responses"])
        _complete_bodies(operation, schemas)
        _complete_headers(operation)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["examples"] = _share_problems(document)
    document["webhooks"] = _webhooks(document["paths"][_BANK_CALLBACK], schemas)
    _rename_schemas(document, {name: f"{match[1]}Page" for name in schemas if (match := _PAGE.fullmatch(name))})


def _share_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Each error's example once, for all the answers that point to it: they are half of the document otherwise."""
    shared: dict[str, Any] = {}
    for _, _, operation in operations_of(document):
        for response in operation["responses"].values():
            examples = response.get("content", {}).get(PROBLEM_MEDIA_TYPE, {}).get("examples", {})
            for code in examples:
                shared.setdefault(code, examples[code])
                examples[code] = {"$ref": f"#/components/examples/{code}"}
    return dict(sorted(shared.items()))


def _webhooks(callback: dict[str, Any], schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """What is sent without being asked for: by the bank to us, its messages once more, and by us to users."""
    post = callback["post"]
    content = post["requestBody"]["content"][_JSON]
    webhooks = {"event": {"post": event_webhook(example_of(schemas[EVENT_SCHEMA], schemas))}}
    for schema in content["schema"]["anyOf"]:
        name = schema["properties"]["type"].get("const")
        examples = [one["value"] for one in content["examples"].values() if one["value"]["type"] == name]
        if examples:
            body = {**post["requestBody"], "content": {_JSON: {"schema": schema, "example": examples[0]}}}
            webhooks[name] = {"post": {**post, "operationId": name.replace(".", "_"), "requestBody": body}}
    return webhooks


def _rename_schemas(document: dict[str, Any], names: Mapping[str, str]) -> None:
    """WithdrawalPage, not PageView_WithdrawalView_: generated clients have classes of these names."""
    schemas = document["components"]["schemas"]
    for old, new in names.items():
        schemas[old]["title"] = new
    document["components"]["schemas"] = {names.get(name, name): schema for name, schema in schemas.items()}
    waiting: list[Any] = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            place, _, name = part.get("$ref", "").rpartition("/")
            if name in names:
                part["$ref"] = f"{place}/{names[name]}"
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _add_problem(schemas: dict[str, Schema]) -> None:
    """FastAPI would do it for a response's `model`, but under application/json, which problems are not."""
    _add_schema(schemas, PROBLEM, Problem)


def _add_schema(schemas: dict[str, Schema], name: str, model: type[BaseModel]) -> None:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs"))
    schemas[name] = schema


def _complete_parameters(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        name, schema = parameter["name"], parameter["schema"]
        # FastAPI says it twice.
        schema.pop("description", None)
        # What is not sent is not there; no text in a URL or a header is null.
        choices = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
        parameter["schema"] = schema = {**schema, **(choices[0] if len(choices) == 1 else {})}
        parameter.update(_HEADER_PARAMETERS.get(name, {}))
        schema.update(_HEADER_SCHEMAS.get(name, {}))
        if "description" not in parameter:
            if name in _PARAMETERS:
                parameter["description"] = _PARAMETERS[name]
            elif (match := _ID_PARAMETER.fullmatch(name)) is not None:
                parameter["description"] = f"Id of the {match['noun'].replace('_', ' ')}"
        if "examples" not in schema and usual_example(name) is not None and parameter["in"] == "path":
            schema["examples"] = [usual_example(name)]
        parameter.pop("example", None)


def _complete_security(operation: dict[str, Any]) -> None:
    """The permission that the route takes, with those beside it, and the keys that may have them."""
    permissions = _permissions_of(operation)
    if not permissions:
        return
    operation["x-permission"] = permissions[0]
    operation["security"].append({_COOKIE: permissions})
    if KEY_PERMISSIONS.issuperset(permissions):
        operation["security"].append({_API_KEY: permissions})


def _permissions_of(operation: dict[str, Any]) -> list[str]:
    return [scope for one in operation.get("security", ()) for scope in one.get(TOKEN_SCHEME, ())]


def _complete_errors(path: str, operation: dict[str, Any]) -> None:
    """A route's own errors keep their places; what follows from how it is made comes before or behind them."""
    before: list[type[WalletServiceError]] = []
    behind: list[type[WalletServiceError]] = []
    parameters = operation.get("parameters", ())
    if any(one["name"] == "cursor" for one in parameters):
        before += _WITH_CURSOR
    if "{" in path:
        before += _WITH_PATH
    if _HEALTH not in operation["tags"]:
        before += _FIRST_BUT_HEALTH
        behind += _LAST_BUT_HEALTH
    if "requestBody" in operation:
        behind += _WITH_BODY
    if permissions := _permissions_of(operation):
        behind += _WITH_TOKEN
        if not LIVE_PERMISSIONS.isdisjoint(permissions):
            behind += _WITH_USER
    for key in (one for one in parameters if one["name"] == KEY_HEADER):
        before += [error for error in _WITH_KEY if key["required"] or error is not IdempotencyKeyMissing]
    responses = operation["responses"]
    if _JSON in responses.get("422", {}).get("content", {}):
        # FastAPI's own kind of error, which we never send.
        del responses["422"]
    _add_errors(responses, problem_responses(*before), are_first=True)
    _add_errors(responses, problem_responses(*behind))
    operation["responses"] = dict(sorted(responses.items()))


def _add_errors(
    responses: dict[str, Any], added: Mapping[int | str, dict[str, Any]], *, are_first: bool = False
) -> None:
    for status, response in added.items():
        known = responses.setdefault(str(status), response)["content"][PROBLEM_MEDIA_TYPE]
        more = response["content"][PROBLEM_MEDIA_TYPE]["examples"]
        new = {code: example for code, example in more.items() if code not in known["examples"]}
        known["examples"] = new | known["examples"] if are_first else known["examples"] | new
        responses[str(status)]["description"] = ", or: ".join(one["summary"] for one in known["examples"].values())


def _complete_rate_limits(responses: dict[str, Any]) -> None:
    _add_errors(responses, problem_responses(RateLimitExceeded(retry_after_s=12)))
    responses["429"]["headers"] = _headers("Retry-After")
    for response in responses.values():
        response.setdefault("headers", {}).update(_headers(*_RATE_LIMIT_HEADERS))


def _headers(*names: str) -> dict[str, Schema]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _complete_bodies(operation: dict[str, Any], schemas: dict[str, Schema]) -> None:
    """Descriptions and examples of what succeeds and of what is sent. What has no example stays without one: a test
    names it.
    """
    for status, response in operation["responses"].items():
        if response["description"] == "Successful Response":
            response["description"] = HTTPStatus(int(status)).phrase
    sent = [operation["requestBody"]] if "requestBody" in operation else []
    for part in (*sent, *operation["responses"].values()):
        for content in part.get("content", {}).values():
            if "example" in content or "examples" in content or not content.get("schema"):
                continue
            try:
                content["example"] = example_of(content["schema"], schemas)
            except ExampleMissingError:
                continue


def _complete_headers(operation: dict[str, Any]) -> None:
    takes_key = any(one["name"] == KEY_HEADER for one in operation.get("parameters", ()))
    for status, response in operation["responses"].items():
        names = ["X-Request-ID"]
        if status == "401":
            names.append("WWW-Authenticate")
        if status in _RETRYABLE and _HEALTH not in operation["tags"]:
            names.append("Retry-After")
        if takes_key and (int(status) < _FIRST_ERROR_STATUS or status in _REPLAYED_ERRORS):
            names.append("Idempotent-Replayed")
        response.setdefault("headers", {}).update(_headers(*names))
