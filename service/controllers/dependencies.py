"""What controllers ask for: the open resources, who asks and what they may, the idempotency key."""

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import Depends, FastAPI, Header, Request, Security, params
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.http import HTTPBase

from service.controllers.rate_limits import remember_api_key
from service.controllers.schemas import problem_responses
from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.permissions import KEY_PERMISSIONS, LIVE_PERMISSIONS, Permission
from service.errors import PROBLEM_MEDIA_TYPE, AccountDeactivated, Forbidden, IdempotencyKeyInvalid, Unauthenticated
from service.services import api_keys, users
from service.services.access_tokens import AccessToken, verify_access_token
from service.services.sealing import keyring_of
from service.startup import Resources

_KEY_HEADER = "Idempotency-Key"
_KEY_LENGTH_LIMIT = 255
# A backslash stands before a quote and before itself, and before nothing else.
_QUOTED_KEY = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPE = re.compile(r"\\(.)")


async def _resources(request: Request) -> Resources:
    # async, though it waits for nothing: FastAPI would send a plain function through its thread pool, each time.
    resources: Resources = request.app.state.resources
    return resources


OpenResources = Annotated[Resources, Depends(_resources)]


_TOKEN_SCHEME = "AccessToken"  # noqa: S105 a name
_REFUSALS = (Unauthenticated, Forbidden)
_API_KEY_HEADER = "X-API-Key"
_API_KEY_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": _API_KEY_HEADER,
    "description": "Of a service, from `POST /api/v1/admin/api-keys`.",
}


class _Gate(HTTPBase):
    """Lets through who has the permission, and says who it is.

    It reads the request itself: each dependency of its own would cost more than what it does.
    """

    def __init__(self, permission: Permission) -> None:
        super().__init__(scheme="bearer", scheme_name=_TOKEN_SCHEME, auto_error=False)
        self.model = HTTPBearerModel(bearerFormat="JWT", description="From `POST /api/v1/auth/login`.")
        self.permission = permission
        self._is_live = permission in LIVE_PERMISSIONS

    async def __call__(self, request: Request) -> AccessToken:  # type: ignore[override]  # who it is, not what was sent
        resources: Resources = request.app.state.resources
        sent = request.headers.get("Authorization")
        key = request.headers.get(_API_KEY_HEADER)
        if key is not None:
            if sent is not None:
                raise Unauthenticated("Send an access token or an API key, not both")
            caller = await api_keys.authenticate(key, resources.key_uses)
            remember_api_key(key, resources.settings, resources.rate_limits)
        else:
            scheme, _, token = (sent or "").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise Unauthenticated
            caller = verify_access_token(token, resources.settings)
            if resources.ended_tokens.has(caller):
                raise Unauthenticated("The access token is no longer valid")
        if not caller.may(self.permission):
            raise Forbidden
        # Whoever comes with a key was looked at already.
        if self._is_live and key is None:
            caller = await users.refresh_token(caller)
            if not caller.may(self.permission):
                raise Forbidden
        return caller


@cache
def require(permission: Permission) -> params.Security:
    """A dependency: who asks, if they have the permission; one beside every route that is not public.

    Raises Unauthenticated, Forbidden; AccountDeactivated too, where the user is looked at. Elsewhere roles are the
    token's: money routes ask about the user in the ledger's transaction.
    """
    # As scopes, so that it stands in the security requirement of OpenAPI.
    security: params.Security = Security(_Gate(permission), scopes=[permission])
    return security


def declare_permissions(app: FastAPI) -> None:
    """Completes what the document says of each route that is not public.

    That is its permission, the API keys that may have it, and the refusals of whoever has not.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["securitySchemes"]["ApiKey"] = _API_KEY_SCHEME
        for path in document["paths"].values():
            for operation in path.values():
                for permission in operation.get("security", [{}])[0].get(_TOKEN_SCHEME, ()):
                    _declare_permission(operation, permission)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation gives


def _declare_permission(operation: dict[str, Any], permission: str) -> None:
    operation["x-permission"] = permission
    operation["security"] = [{_TOKEN_SCHEME: [permission]}]
    if permission in KEY_PERMISSIONS:
        operation["security"].append({"ApiKey": [permission]})
    refusals = (Unauthenticated, Forbidden, AccountDeactivated) if permission in LIVE_PERMISSIONS else _REFUSALS
    for status, response in problem_responses(*refusals).items():
        declared = operation["responses"].setdefault(str(status), response)
        examples = declared["content"][PROBLEM_MEDIA_TYPE]["examples"]
        examples.update(response["content"][PROBLEM_MEDIA_TYPE]["examples"] | examples)


def _key_of(sent: list[str]) -> str:
    """The key itself, whether it came as a string of RFC 8941 (section 3.3.3), quoted, or bare."""
    if len(sent) > 1:
        raise IdempotencyKeyInvalid("Idempotency-Key came more than once")
    key = sent[0]
    if key.startswith('"'):
        quoted = _QUOTED_KEY.fullmatch(key)
        key = "" if quoted is None else _ESCAPE.sub(r"\1", quoted[1])
    elif '"' in key:
        key = ""
    if not 1 <= len(key) <= _KEY_LENGTH_LIMIT or not all("!" <= character <= "~" for character in key):
        raise IdempotencyKeyInvalid
    return key


async def _idempotency_key(
    request: Request,
    _key: Annotated[
        str,
        Header(
            alias=_KEY_HEADER,
            description="1 to 255 visible ASCII characters, quoted or bare, new for each new request.",
        ),
    ],
) -> str:
    return _key_of(request.headers.getlist(_KEY_HEADER))


IdempotencyKey = Annotated[str, Depends(_idempotency_key)]


async def _optional_idempotency_key(
    request: Request,
    key: Annotated[
        str | None,
        Header(alias=_KEY_HEADER, description="As elsewhere; without one each request is a new one."),
    ] = None,
) -> str:
    return uuid4().hex if key is None else _key_of(request.headers.getlist(_KEY_HEADER))


OptionalIdempotencyKey = Annotated[str, Depends(_optional_idempotency_key)]


def claim_key(resources: Resources, user_id: str, key: str, route: str, body: Mapping[str, Any]) -> IdempotencyClaim:
    """The key as this user's, for this very request: method, route and body in canonical form."""
    canonical = orjson.dumps([route, body], option=orjson.OPT_SORT_KEYS)
    expires_at = utc_now() + timedelta(seconds=resources.settings.idempotency_retention_s)
    fingerprint, *earlier = keyring_of(resources.settings).fingerprints(canonical)
    return IdempotencyClaim(f"{user_id}:{key}", fingerprint, expires_at, tuple(earlier))
