"""What controllers ask for: the open resources, the user of the token, the idempotency key."""

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.errors import Forbidden, IdempotencyKeyInvalid, Unauthenticated
from service.services.access_tokens import AccessToken, verify_access_token
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

_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="From `POST /api/v1/auth/login`.")


async def _current_user(
    resources: OpenResources, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> AccessToken:
    if credentials is None:
        raise Unauthenticated
    return verify_access_token(credentials.credentials, resources.settings)


CurrentUser = Annotated[AccessToken, Depends(_current_user)]


def require_roles(*roles: str) -> Callable[[AccessToken], Awaitable[AccessToken]]:
    """A dependency: the user of the token, who has one of the roles at least. Raises Forbidden.

    Roles are the token's, so that one that was taken away may still be used until the token expires.
    """

    async def with_role(user: CurrentUser) -> AccessToken:
        if not set(roles) & set(user.roles):
            raise Forbidden
        return user

    return with_role


AdminUser = Annotated[AccessToken, Depends(require_roles("admin"))]
ServiceUser = Annotated[AccessToken, Depends(require_roles("service", "admin"))]


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
    return IdempotencyClaim(f"{user_id}:{key}", sha256(canonical).hexdigest(), expires_at)
