"""Sealing with the service's keys: those of the settings, derived once."""

import secrets
from functools import lru_cache

from pydantic import SecretStr

from service.domain.sealed import NONCE_BYTES, Keyring, Sealed, SealedField
from service.settings import Settings, key_bytes


def keyring_of(settings: Settings) -> Keyring:
    return _keyring(settings.encryption_key, settings.encryption_key_previous)


# A process has one set of keys; tests have a few.
@lru_cache(maxsize=8)
def _keyring(current: SecretStr, previous: SecretStr | None) -> Keyring:
    keys = [current] if previous is None else [current, previous]
    return Keyring([key_bytes(key) for key in keys])


def seal(settings: Settings, text: str, field: SealedField, document_id: str) -> Sealed:
    return keyring_of(settings).seal(text, field, document_id, secrets.token_bytes(NONCE_BYTES))


def open_sealed(settings: Settings, sealed: Sealed, field: SealedField, document_id: str) -> str:
    """Raises Unreadable."""
    return keyring_of(settings).open(sealed, field, document_id)
