"""Keys for each purpose, all from the one that is configured: HKDF-SHA256 (RFC 5869).

So there is one secret to keep and to hand out, and yet a code, a seal and a hash never share a key: what one part of
the service gives away about its key says nothing about the others'.
"""

from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES = 32


class KeyPurpose(StrEnum):
    """The labels. One that is changed makes everything under its key unreadable."""

    STEP_UP_CODES = "wallet step-up codes 1"
    STEP_UP_HASHES = "wallet step-up hashes 1"
    # From the user's own TOTP secret, not from the root key: that may change without taking the codes with it.
    RECOVERY_CODES = "wallet recovery codes 2"
    SEALED_FIELDS = "wallet sealed fields 1"
    FINGERPRINTS = "wallet request fingerprints 1"
    IDEMPOTENCY_KEYS = "wallet idempotency keys 1"
    KEY_IDS = "wallet key ids 1"
    REFRESH_TOKENS = "wallet refresh tokens 1"
    PASSWORD_RESETS = "wallet password resets 1"  # noqa: S105 a name
    REGISTRATIONS = "wallet registrations 1"
    REDIS_KEYS = "wallet redis keys 1"
    STREAM_TICKETS = "wallet stream tickets 1"
    CSRF_TOKENS = "wallet csrf tokens 1"


def derive_key(root_key: bytes, purpose: KeyPurpose) -> bytes:
    """32 bytes. No salt: the root key is random as it is, and there is nowhere to keep a salt beside it."""
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=purpose.encode()).derive(root_key)
