"""CSRF tokens: a browser that is logged in by cookies shows one with each request that changes something.

A page of another site can make the browser send the cookies, but cannot read this token. The token is derived from the
session's id, so nothing is stored, any process can check it, and it fits no other session.
"""

import hmac
from functools import lru_cache
from hashlib import sha256

from service.domain.keys import KeyPurpose, derive_key
from service.errors import CsrfTokenInvalid
from service.settings import Settings


def csrf_token(settings: Settings, session_id: str) -> str:
    return _token(settings.root_key, session_id)


def require_csrf_token(settings: Settings, session_id: str, sent: str | None) -> None:
    """Raises CsrfTokenInvalid. While keys are changed, a token of the other key holds too."""
    shown = (sent or "").encode()
    if not any(hmac.compare_digest(_token(root_key, session_id).encode(), shown) for root_key in settings.root_keys):
        raise CsrfTokenInvalid


def _token(root_key: bytes, session_id: str) -> str:
    return hmac.digest(_key(root_key), session_id.encode(), sha256).hex()


# Two keys are live at most.
@lru_cache(maxsize=2)
def _key(root_key: bytes) -> bytes:
    return derive_key(root_key, KeyPurpose.CSRF_TOKENS)
