"""Sealing with the service's keys: those of the settings, derived once."""

import secrets
from functools import lru_cache

from service.domain.sealed import NONCE_BYTES, Keyring, Sealed, SealedField
from service.settings import Settings


def keyring_of(settings: Settings) -> Keyring:
    return _keyring(settings.root_keys)


# A process has one set of keys; tests have a few.
@lru_cache(maxsize=8)
def _keyring(root_keys: tuple[bytes, ...]) -> Keyring:
    return Keyring(root_keys)


def seal(settings: Settings, text: str, field: SealedField, document_id: str) -> Sealed:
    return keyring_of(settings).seal(text, field, document_id, secrets.token_bytes(NONCE_BYTES))


def open_sealed(settings: Settings, sealed: Sealed, field: SealedField, document_id: str) -> str:
    """Raises Unreadable."""
    return keyring_of(settings).open(sealed, field, document_id)
