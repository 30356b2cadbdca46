"""Tokens for a new password where the old one is forgotten: derived, never stored, good once and for a short time.

Whoever has the key makes a token again from the request's id and the user's, so that a mail that is sent again is the
same mail. What is kept is a plain hash: 256 bits are not found by trying.
"""

import hmac
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

RESET_TOKEN_PREFIX = "wpr_"  # noqa: S105 the token comes after it
RESET_TOKEN_LENGTH = len(RESET_TOKEN_PREFIX) + 43
# In which so and so many mails go to one person.
MAILS_WINDOW = timedelta(hours=1)


class ResetToken(NamedTuple):
    """`id` is that of the request. One that was used, or is not wanted any more, expires there and then."""

    id: str
    token_hash: str
    sent_at: datetime
    expires_at: datetime


def derive_reset_token(key: bytes, request_id: str, user_id: str) -> str:
    # NUL stands in no id, so that no two pairs make one message.
    digest = hmac.digest(key, f"{request_id}\0{user_id}".encode(), sha256)
    return RESET_TOKEN_PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()


def hash_reset_token(token: str) -> str:
    """White space around it does not count: it is copied from a mail."""
    return sha256(token.strip().encode()).hexdigest()
