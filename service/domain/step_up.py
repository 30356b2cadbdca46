"""One-time codes that confirm a payment of high value."""

import hmac
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Challenge(NamedTuple):
    """What has to be answered before `expires_at`; the code itself is kept nowhere."""

    nonce: str
    code_hash: str
    expires_at: datetime
    tries_left: int


class CodeCheck(StrEnum):
    ACCEPTED = "accepted"
    WRONG = "wrong"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"


def check_code(challenge: Challenge, code_hash: str | None, now: datetime) -> CodeCheck:
    """`code_hash` is None for a code of the wrong shape."""
    if now >= challenge.expires_at:
        return CodeCheck.EXPIRED
    if code_hash is not None and hmac.compare_digest(code_hash, challenge.code_hash):
        return CodeCheck.ACCEPTED
    return CodeCheck.WRONG if challenge.tries_left > 1 else CodeCheck.EXHAUSTED
