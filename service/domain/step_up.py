"""One-time codes that confirm a payment: derived, never stored, good for one operation, five minutes and five tries.

Whoever has the key makes a code again from the operation's id and the challenge's nonce, so the worker that mails it
needs nothing handed over. What is kept with the operation is a keyed hash: a code has only a million values, and from a
plain hash of it anybody who reads the database would find it at once.
"""

import hmac
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

CODE_DIGITS = 6
CODE_LIFETIME = timedelta(minutes=5)
# One in 200,000 to guess a code before it is used up.
CODE_TRIES = 5


class Challenge(NamedTuple):
    """What has to be answered before an operation goes on. `nonce` makes each challenge's code another one."""

    nonce: str
    code_hash: str
    expires_at: datetime
    tries_left: int


class CodeOutcome(StrEnum):
    ACCEPTED = "accepted"
    WRONG = "wrong"
    # No try is left, whether this one was the last or came after it.
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"


class CodeCheck(NamedTuple):
    """`tries_left` is what the challenge has left afterwards: it has to be kept before anybody is told the outcome."""

    outcome: CodeOutcome
    tries_left: int


def derive_code(key: bytes, operation_id: str, nonce: str) -> str:
    """Six digits: HMAC-SHA256, truncated as in RFC 4226, section 5.3."""
    digest = hmac.digest(key, _message("step-up code", operation_id, nonce), sha256)
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFF_FFFF
    return f"{number % 10**CODE_DIGITS:0{CODE_DIGITS}d}"


def hash_code(key: bytes, operation_id: str, code: str) -> str:
    """Hashes a code, to keep it in a challenge or to compare it with one; white space in it does not count."""
    return hmac.digest(key, _message("step-up hash", operation_id, "".join(code.split())), sha256).hex()


def check_code(challenge: Challenge, code_hash: str, now: datetime) -> CodeCheck:
    """Pure: who keeps `tries_left` by compare-and-set makes sure that no try counts for two."""
    if now >= challenge.expires_at:
        return CodeCheck(CodeOutcome.EXPIRED, challenge.tries_left)
    if challenge.tries_left <= 0:
        return CodeCheck(CodeOutcome.EXHAUSTED, 0)
    if hmac.compare_digest(challenge.code_hash.encode(), code_hash.encode()):
        return CodeCheck(CodeOutcome.ACCEPTED, challenge.tries_left)
    tries_left = challenge.tries_left - 1
    return CodeCheck(CodeOutcome.WRONG if tries_left else CodeOutcome.EXHAUSTED, tries_left)


def _message(label: str, *parts: str) -> bytes:
    # NUL stands in no id and no nonce, so that no two lists of parts make one message.
    return "\0".join((label, *parts)).encode()
