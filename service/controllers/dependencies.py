"""What controllers ask for: the open resources, who asks and what they may, the idempotency key."""

import re
from datetime import timedelta
from functools import cache
from typing import Annotated, NamedTuple
from uuid import uuid4

import orjson
from fastapi import Depends, Header, Request, Security, params
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.http import HTTPBase

from service.controllers.cookies import ACCESS_COOKIE, require_csrf
from service.controllers.rate_limits import remember_api_key
from service.controllers.requests import StrictRequest
from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.permissions import LIVE_PERMISSIONS, Permission
from service.errors import Forbidden, IdempotencyKeyInvalid, Unauthenticated
from service.services import api_keys, users
from service.services.access_tokens import verify_access_token
from service.services.callers import Caller
from service.services.sealing import keyring_of
from service.startup import Resources

KEY_HEADER = "Idempotency-Key"
_KEY_LENGTH_LIMIT = 255
# A backslash stands before a quote and before itself, and before nothing else.
_QUOTED_KEY = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPE = re.compile(r"\\(.)")


async def _resources(request: Request) -> Resources:
    # async, though it waits for nothing: FastAPI would send a plain function through its thread pool, each time.
    resources: Resources = request.app.state.resources
    return resources


OpenResources = Annotated[Resources, Depends(_resources)]


# As OpenAPI calls it.
TOKEN_SCHEME = "AccessToken"  # noqa: S105 a name
API_KEY_HEADER = "X-API-Key"


class _Gate(HTTPBase):
    """Lets through who has the permissions, and says who it is.

    It reads the request itself: each dependency of its own would cost more than what it does.
    """

    def __init__(self, permissions: tuple[Permission, ...]) -> None:
        super().__init__(scheme="bearer", scheme_name=TOKEN_SCHEME, auto_error=False)
        self.model = HTTPBearerModel(bearerFormat="JWT", description="From `POST /api/v1/auth/login`.")
        self.permissions = permissions
        self._is_live = not LIVE_PERMISSIONS.isdisjoint(permissions)

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]  # who it is, not what was sent
        resources: Resources = request.app.state.resources
        sent = request.headers.get("Authorization")
        key = request.headers.get(API_KEY_HEADER)
        if key is not None:
            if sent is not None:
                raise Unauthenticated("Send an access token or an API key, not both")
            caller = await api_keys.authenticate(key, resources.key_uses)
            remember_api_key(key, resources.settings, resources.rate_limits)
        else:
            scheme, _, token = (sent or "").partition(" ")
            if sent is None:
                token = request.cookies.get(ACCESS_COOKIE, "")
            elif scheme.lower() != "bearer":
                raise Unauthenticated
            if not token:
                raise Unauthenticated
            caller = verify_access_token(token, resources.settings)
            if resources.ended_tokens.has(caller):
                raise Unauthenticated("The access token is no longer valid")
            if sent is None:
                require_csrf(request, resources.settings, caller.session_id)
        self._require(caller)
        # Whoever comes with a key was looked at already.
        if self._is_live and key is None:
            caller = await users.look_up_caller(caller)
            self._require(caller)
        return caller

    def _require(self, caller: Caller) -> None:
        for permission in self.permissions:
            if not caller.may(permission):
                raise Forbidden


@cache
def require(*permissions: Permission) -> params.Security:
    """A dependency: who asks, if they have all these permissions; one beside every route that is not public.

    Raises Unauthenticated, Forbidden; AccountDeactivated too, where the user is looked at. Elsewhere roles are the
    token's: money routes ask about the user in the ledger's transaction.
    """
    # As scopes, so that it stands in the security requirement of OpenAPI.
    security: params.Security = Security(_Gate(permissions), scopes=permissions)
    return security


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


class SentKey(NamedTuple):
    """An idempotency key, with the request that it came with."""

    key: str
    request: StrictRequest


async def _idempotency_key(
    request: Request,
    _key: Annotated[
        str,
        Header(
            alias=KEY_HEADER,
            description="1 to 255 visible ASCII characters, quoted or bare, new for each new request.",
        ),
    ],
) -> SentKey:
    return _sent(_key_of(request.headers.getlist(KEY_HEADER)), request)


IdempotencyKey = Annotated[SentKey, Depends(_idempotency_key)]


async def _optional_idempotency_key(
    request: Request,
    key: Annotated[
        str | None,
        Header(alias=KEY_HEADER, description="As elsewhere; without one each request is a new one."),
    ] = None,
) -> SentKey:
    return _sent(uuid4().hex if key is None else _key_of(request.headers.getlist(KEY_HEADER)), request)


OptionalIdempotencyKey = Annotated[SentKey, Depends(_optional_idempotency_key)]


def _sent(key: str, request: Request) -> SentKey:
    if not isinstance(request, StrictRequest):
        raise TypeError(f"{request.url.path}: a route that takes a key is a StrictRoute")
    return SentKey(key, request)


def claim_key(resources: Resources, user_id: str, sent: SentKey) -> IdempotencyClaim:
    """The key as this user's, for this very request: method, route, path parameters, and the body as it was sent.

    Not as it was read: a field that a later release adds, with a default, must not make an old request another one.
    """
    request = sent.request
    # Parsed and with its keys sorted: white space and order do not count. Of routes without a body nothing is read.
    asked = [request.method, request.route_template, list(request.path_params.values()), request.parsed_body]
    canonical = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
    expires_at = utc_now() + timedelta(seconds=resources.settings.idempotency_retention_s)
    keyring = keyring_of(resources.settings)
    fingerprint, *earlier = keyring.fingerprints(canonical)
    claim_id = f"{user_id}:{sent.key}"
    return IdempotencyClaim(claim_id, fingerprint, expires_at, tuple(earlier), keyring.hash_claim(claim_id))
