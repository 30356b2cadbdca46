"""What the database keeps encrypted: AES-256-GCM (NIST SP 800-38D), bound to its place, under a key that it names.

Whoever reads the database, or a backup of it, learns nothing; whoever can write to it cannot carry one document's
secret over to another. Keys are changed by sealing anew (`make rotate-keys`), and what is old opens meanwhile.
"""

import hmac
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.domain.idempotency import FINGERPRINT_VERSION
from service.domain.keys import KeyPurpose, derive_key

# AES-GCM's own (NIST SP 800-38D, section 8.2). Random: each place has a key of its own, so that they never repeat.
NONCE_BYTES = 12
# Enough to tell a handful of keys apart, and nothing about them.
_KEY_ID_BYTES = 4
# Of all keys of all users for ever, no two share 128 bits.
_KEY_HASH_BYTES = 16


class SealedField(StrEnum):
    """What is kept sealed, as part of its place. A label that is changed makes everything under it unreadable."""

    ACCOUNT = "operation account"
    VOUCHER_CODE = "redemption code"
    TOTP_SECRET = "totp secret"  # noqa: S105 a label
    # The current one and the one before it, which is the same one later.
    WEBHOOK_SECRET = "webhook secret"  # noqa: S105 a label


class Sealed(NamedTuple):
    """`box` is the nonce and the ciphertext with its tag; `key_id` says which key opens it."""

    key_id: str
    box: bytes


class Unreadable(Exception):
    """Does not open: sealed under a key that is not here, for another place, or damaged."""


class _Key:
    """What one root key comes to."""

    def __init__(self, root_key: bytes) -> None:
        self.id = derive_key(root_key, KeyPurpose.KEY_IDS)[:_KEY_ID_BYTES].hex()
        self._sealing = derive_key(root_key, KeyPurpose.SEALED_FIELDS)
        self._fingerprints = derive_key(root_key, KeyPurpose.FINGERPRINTS)
        self._idempotency_keys = derive_key(root_key, KeyPurpose.IDEMPOTENCY_KEYS)

    def cipher_for(self, place: bytes) -> AESGCM:
        """A key for each place: with one for all, random nonces would be safe for 2^32 fields only, a month at
        full speed.
        """
        return AESGCM(hmac.digest(self._sealing, place, sha256))

    def fingerprint(self, message: bytes) -> str:
        return f"{self.id}:{FINGERPRINT_VERSION}:{hmac.digest(self._fingerprints, message, sha256).hex()}"

    def hash_claim(self, claim_id: bytes) -> str:
        return hmac.digest(self._idempotency_keys, claim_id, sha256)[:_KEY_HASH_BYTES].hex()


class Keyring:
    """The current key, which seals, and earlier ones, which only open."""

    def __init__(self, root_keys: Sequence[bytes]) -> None:
        """The current key first."""
        keys = [_Key(root_key) for root_key in root_keys]
        self._current = keys[0]
        self._keys = {key.id: key for key in keys}

    @property
    def key_id(self) -> str:
        return self._current.id

    @property
    def earlier_key_ids(self) -> tuple[str, ...]:
        return tuple(key_id for key_id in self._keys if key_id != self._current.id)

    def seal(self, text: str, field: SealedField, document_id: str, nonce: bytes) -> Sealed:
        """`nonce` is NONCE_BYTES random bytes, never used before."""
        place = _place(field, document_id)
        box = nonce + self._current.cipher_for(place).encrypt(nonce, text.encode(), place)
        return Sealed(self._current.id, box)

    def open(self, sealed: Sealed, field: SealedField, document_id: str) -> str:
        """Raises Unreadable."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise Unreadable(f"the {field} of {document_id} is sealed under the key {sealed.key_id}, which is not here")
        place = _place(field, document_id)
        nonce, ciphertext = sealed.box[:NONCE_BYTES], sealed.box[NONCE_BYTES:]
        try:
            return key.cipher_for(place).decrypt(nonce, ciphertext, place).decode()
        except (InvalidTag, ValueError) as error:
            raise Unreadable(f"the {field} of {document_id} does not open") from error

    def fingerprints(self, message: bytes) -> tuple[str, ...]:
        """Keyed hashes of the message, the current key's first, each with its key's id and the version in front.

        Keyed, because what is hashed may be an account number: of those there are few enough to try them all.
        """
        return tuple(key.fingerprint(message) for key in self._keys.values())

    def hash_claim(self, claim_id: str) -> tuple[str, ...]:
        """Keyed hashes of a user and their idempotency key, the current encryption key's first.

        Keyed, because keys may be order numbers, which can be guessed.
        """
        message = claim_id.encode()
        return tuple(key.hash_claim(message) for key in self._keys.values())


def _place(field: SealedField, document_id: str) -> bytes:
    # NUL stands in no label and no id, so that no two places are one.
    return f"{field}\0{document_id}".encode()
