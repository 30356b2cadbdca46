"""What controllers ask for: the open resources, the user of the token, the idempotency key."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.errors import Forbidden, IdempotencyKeyInvalid, Unauthenticated
from service.services.access_tokens import AccessToken, verify_access_token
from service.services.sealing import keyring_of
from service.startup import Resources

_KEY_LENGTH_LIMIT = 255


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


async def _idempotency_key(
    key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            description="1 to 255 visible ASCII characters, quoted or bare, new for each new request.",
        ),
    ],
) -> str:
    bare = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not 1 <= len(bare) <= _KEY_LENGTH_LIMIT or not all("!" <= character <= "~" for character in bare):
        raise IdempotencyKeyInvalid
    return bare


IdempotencyKey = Annotated[str, Depends(_idempotency_key)]


async def _optional_idempotency_key(
    key: Annotated[
        str | None,
        Header(alias="Idempotency-Key", description="As elsewhere; without one each request is a new one."),
    ] = None,
) -> str:
    return uuid4().hex if key is None else await _idempotency_key(key)


OptionalIdempotencyKey = Annotated[str, Depends(_optional_idempotency_key)]


def claim_key(resources: Resources, user_id: str, key: str, route: str, body: Mapping[str, Any]) -> IdempotencyClaim:
    """The key as this user's, for this very request: method, route and body in canonical form."""
    canonical = orjson.dumps([route, body], option=orjson.OPT_SORT_KEYS)
    expires_at = utc_now() + timedelta(seconds=resources.settings.idempotency_retention_s)
    fingerprint, *earlier = keyring_of(resources.settings).fingerprints(canonical)
    return IdempotencyClaim(f"{user_id}:{key}", fingerprint, expires_at, tuple(earlier))
