"""Access tokens: signed JWTs (RFC 7519) of ours for ourselves, checked on every request."""

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import TypeGuard
from uuid import uuid4

import jwt
from jwt.types import Options

from service.documents import User
from service.domain.clock import machine_now, utc_now
from service.errors import Unauthenticated
from service.services.callers import Caller
from service.settings import Settings

_ALGORITHM = "HS256"
_ISSUER = "wallet-service"
_AUDIENCE = "wallet-api"
_TYPE = "access"
# Ours have about 550 characters. A longer one is not worth parsing, and parsing comes before the signature.
_LENGTH_LIMIT = 2048
# Two keys are live at most: enough to tell them apart.
_KEY_ID_DIGITS = 8
# Clocks of our machines may differ by this much.
LEEWAY_S = 5
# A client sends its token with each request, and verifying it is a tenth of a request's work. About 10 MB when full.
_REMEMBERED = 10_000

_OPTIONS: Options = {"require": ["exp", "iat", "aud", "iss", "sub", "jti"]}
_JWT = jwt.PyJWT(_OPTIONS)


def issue_access_token(user: User, settings: Settings, now: datetime, session_id: str = "") -> str:
    issued_s = int(now.timestamp())
    claims = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": user.id,
        "jti": uuid4().hex,
        "iat": issued_s,
        "exp": issued_s + settings.access_token_lifetime_s,
        "typ": _TYPE,
        "roles": user.roles,
        "ver": user.token_version,
        "sid": session_id,
    }
    secret = settings.jwt_secret.get_secret_value()
    return _JWT.encode(claims, secret, _ALGORITHM, headers={"kid": key_id(secret)})


def verify_access_token(token: str, settings: Settings) -> Caller:
    """Raises Unauthenticated, whatever is wrong with the token."""
    if len(token) > _LENGTH_LIMIT:
        raise Unauthenticated("The access token is not valid")
    verified, expires_s = _verify(token, settings.jwt_secrets)
    if expires_s + LEEWAY_S <= utc_now().timestamp():
        raise Unauthenticated("The access token has expired")
    return verified


def expiry_of(token: str, settings: Settings) -> datetime:
    """Until when it is taken, leeway and all. Raises Unauthenticated like the check itself."""
    return datetime.fromtimestamp(_verify(token, settings.jwt_secrets)[1] + LEEWAY_S, UTC)


@lru_cache(maxsize=8)
def key_id(secret: str) -> str:
    """A header's `kid`: says which key it is, and nothing about the key."""
    return sha256(b"wallet jwt key id\0" + secret.encode()).hexdigest()[:_KEY_ID_DIGITS]


@lru_cache(maxsize=_REMEMBERED)
def _verify(token: str, secrets: tuple[str, ...]) -> tuple[Caller, int]:
    """Says who asks, and until when. Remembers it by the whole token and the secrets, unless it is refused."""
    try:
        # Before the signature is looked at: it only chooses among our own keys.
        named = jwt.get_unverified_header(token).get("kid")
        secret = next((secret for secret in secrets if key_id(secret) == named), None)
        if secret is None:
            raise Unauthenticated("The access token is not valid")
        leeway_s = LEEWAY_S + _machine_off_s()
        claims = _JWT.decode(
            token, secret, algorithms=[_ALGORITHM], audience=_AUDIENCE, issuer=_ISSUER, leeway=leeway_s
        )
    except jwt.ExpiredSignatureError as error:
        raise Unauthenticated("The access token has expired") from error
    # A header that is nested a thousand deep ends in the latter two before its signature can be looked at.
    except (jwt.PyJWTError, RecursionError, UnicodeError) as error:
        raise Unauthenticated("The access token is not valid") from error
    roles, token_version, session_id = claims.get("roles"), claims.get("ver"), claims.get("sid")
    if (
        claims.get("typ") != _TYPE
        or not _are_texts(roles)
        or not isinstance(token_version, int)
        or not isinstance(session_id, str)
    ):
        raise Unauthenticated("The access token is not valid")
    return Caller(claims["sub"], tuple(roles), token_version, session_id), int(claims["exp"])


def _machine_off_s() -> int:
    """Returns how far the machine's clock, which the library goes by, is from ours."""
    return int(abs((machine_now() - utc_now()).total_seconds()))


def _are_texts(roles: object) -> TypeGuard[list[str]]:
    return isinstance(roles, list) and all(isinstance(role, str) for role in roles)
