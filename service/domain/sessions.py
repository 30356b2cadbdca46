"""Sessions: a login and the refresh tokens that come of it, of which one is good at a time.

A refresh token is two parts. The handle stays the same as long as the session lasts and finds it; nobody but holders of
its tokens has it. The secret is another one after each use. So a handle with a secret that is not the current one comes
from somebody who has, or had, a token of this session: the owner has used what a thief copied, or the thief has.
"""

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339

REFRESH_TOKEN_PREFIX = "wrt_"  # noqa: S105 the token comes after it
# A multiple of three, so that base64 needs no padding.
_HANDLE_BYTES = 16
_SECRET_BYTES = 32
# 48 bytes in base64.
REFRESH_TOKEN_LENGTH = len(REFRESH_TOKEN_PREFIX) + 64

# Whoever lost the answer sends the token again by then, and tabs that refresh at once have all done so. Whoever copied
# a token takes longer.
RETRY_WINDOW = timedelta(seconds=10)


class Ending(StrEnum):
    """What a session was revoked for."""

    LOGGED_OUT = "logged_out"
    LOGGED_OUT_EVERYWHERE = "logged_out_everywhere"
    ENDED_BY_OWNER = "ended_by_owner"
    REUSE = "reuse"
    LOCKED_DOWN = "locked_down"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 a reason
    PASSWORD_RESET = "password_reset"  # noqa: S105 a reason
    FACTOR_CHANGED = "factor_changed"
    EMAIL_VERIFIED = "email_verified"


class Session(NamedTuple):
    """`last_used_at` is when the current token was given out: at the login, or for the one before it.

    Of tokens there are hashes only. `nonce` makes the current token from the one before it, again if need be.
    """

    id: str
    user_id: str
    token_version: int
    handle_hash: str
    secret_hash: str
    previous_hash: str | None
    nonce: bytes
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_for: Ending | None = None
    # Nothing reads it any more. Sessions from before have it, and so do those that an older process begins.
    is_retried: bool = False


class RefreshToken(NamedTuple):
    handle: bytes
    secret: bytes

    @property
    def text(self) -> str:
        return REFRESH_TOKEN_PREFIX + urlsafe_b64encode(self.handle + self.secret).decode()

    @property
    def handle_hash(self) -> str:
        return sha256(self.handle).hexdigest()

    @property
    def secret_hash(self) -> str:
        """Plain: 256 random bits are not found by trying, as a password would be."""
        return sha256(self.secret).hexdigest()

    def successor(self, key: bytes, nonce: bytes) -> "RefreshToken":
        """The same from the same token again, and from nothing less: not from key and nonce without the token."""
        return RefreshToken(self.handle, hmac.digest(key, nonce + self.secret, sha256))


class Verdict(StrEnum):
    """What a secret says of whoever sends it."""

    CURRENT = "current"
    # The one before, soon after: the answer was lost on its way, or several tabs refreshed at once.
    RETRIED = "retried"
    REUSED = "reused"
    # Whatever it is, the session is over.
    ENDED = "ended"


def new_refresh_token() -> RefreshToken:
    return RefreshToken(secrets.token_bytes(_HANDLE_BYTES), secrets.token_bytes(_SECRET_BYTES))


def new_nonce() -> bytes:
    return secrets.token_bytes(_SECRET_BYTES)


def read_refresh_token(text: str) -> RefreshToken | None:
    """None for what is none of ours by its looks."""
    if len(text) != REFRESH_TOKEN_LENGTH or not text.startswith(REFRESH_TOKEN_PREFIX):
        return None
    try:
        decoded = urlsafe_b64decode(text.removeprefix(REFRESH_TOKEN_PREFIX).encode("ascii"))
    except (UnicodeEncodeError, Base64Error):
        return None
    token = RefreshToken(decoded[:_HANDLE_BYTES], decoded[_HANDLE_BYTES:])
    # The decoder leaves out what is no base64, and takes padding: a token has one spelling and no other.
    return token if len(token.secret) == _SECRET_BYTES and token.text == text else None


def judge(session: Session, secret_hash: str, now: datetime) -> Verdict:
    """Pure: whoever acts on it makes sure by compare-and-set that the session is still the one that was judged."""
    if session.revoked_at is not None or now >= session.expires_at:
        return Verdict.ENDED
    if hmac.compare_digest(session.secret_hash, secret_hash):
        return Verdict.CURRENT
    is_previous = session.previous_hash is not None and hmac.compare_digest(session.previous_hash, secret_hash)
    if is_previous and now < session.last_used_at + RETRY_WINDOW:
        return Verdict.RETRIED
    return Verdict.REUSED


def rotated(session: Session, successor: RefreshToken, nonce: bytes, now: datetime, expires_at: datetime) -> Session:
    return session._replace(
        secret_hash=successor.secret_hash,
        previous_hash=session.secret_hash,
        nonce=nonce,
        last_used_at=now,
        expires_at=expires_at,
    )


def session_view(session: Session, current_id: str) -> dict[str, Any]:
    """As its owner sees it, who asks from the session `current_id`."""
    return {
        "id": session.id,
        "created_at": to_rfc3339(session.created_at),
        "last_used_at": to_rfc3339(session.last_used_at),
        "expires_at": to_rfc3339(session.expires_at),
        "is_current": session.id == current_id,
    }
