"""Registrations that wait for somebody to read the mail: their tokens are derived, never stored.

Whoever has the key makes a token again from the registration's id and address, so that a mail that is sent again is the
same mail. What is kept is a plain hash: 256 bits are not found by trying.
"""

import hmac
from base64 import urlsafe_b64encode
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

PROOF_TOKEN_PREFIX = "wev_"  # noqa: S105 the token comes after it


class Registration(NamedTuple):
    """One that was used, or is not wanted any more, expires there and then."""

    id: str
    email: str
    first_name: str
    last_name: str
    password_hash: str
    token_hash: str
    created_at: datetime
    expires_at: datetime


def derive_proof_token(key: bytes, registration_id: str, email: str) -> str:
    # NUL stands in no id, so that no two pairs make one message.
    digest = hmac.digest(key, f"{registration_id}\0{email}".encode(), sha256)
    return PROOF_TOKEN_PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()
