"""API keys: what a service sends instead of a password and a token, and what is kept of it."""

import hmac
import re
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.permissions import KEY_PERMISSIONS, Permission

# 40 bits: two keys that begin alike are refused by the index and made anew, which hardly ever happens.
PREFIX_LENGTH = 8
PREFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
# So much that is random cannot be searched for behind a plain hash: no slow one is needed.
SECRET_BYTES = 32
LONGEST_OVERLAP = timedelta(days=1)
# A write for each request would cost more than the request's own reading.
LAST_USE_PRECISION = timedelta(minutes=1)

_MARK = "wsk"
_KEY = re.compile(rf"{_MARK}_([{PREFIX_ALPHABET}]{{{PREFIX_LENGTH}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})", re.ASCII)


class KeyStatus(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    # Nothing is done with it before a second admin confirms it.
    REQUIRES_APPROVAL = "requires_approval"


class ApiKey(NamedTuple):
    """Acts as its user, within its permissions. `last_used_at` is exact to a minute.

    After a rotation the secret before is good until `previous_until`. `makers` are the admins beside `created_by` who
    confirmed it, or gave it another secret.
    """

    id: str
    user_id: str
    name: str
    prefix: str
    permissions: Sequence[Permission]
    secret_hash: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    previous_hash: str | None = None
    previous_until: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    version: int = 0
    is_waiting: bool = False
    makers: tuple[str, ...] = ()
    # `created_by` knows no secret of it any more.
    is_handed_over: bool = False
    # With `holds:any`: wallets to which it captures holds of others, beside the house.
    capture_to: tuple[str, ...] = ()

    def status(self, at: datetime) -> KeyStatus:
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and at >= self.expires_at:
            return KeyStatus.EXPIRED
        return KeyStatus.REQUIRES_APPROVAL if self.is_waiting else KeyStatus.ACTIVE

    def fits(self, secret_hash: str, at: datetime) -> bool:
        """Compares in constant time."""
        fits = hmac.compare_digest(self.secret_hash, secret_hash)
        if self.previous_hash is not None and self.previous_until is not None and at < self.previous_until:
            fits |= hmac.compare_digest(self.previous_hash, secret_hash)
        return fits

    @property
    def scopes(self) -> frozenset[Permission]:
        """Never more than a key may have by now, whatever it was given."""
        return KEY_PERMISSIONS.intersection(self.permissions)

    @property
    def all_makers(self) -> frozenset[str]:
        """Whoever may know a secret of it."""
        return frozenset(self.makers if self.is_handed_over else (self.created_by, *self.makers))

    def was_used_lately(self, at: datetime) -> bool:
        return self.last_used_at is not None and at - self.last_used_at < LAST_USE_PRECISION


class Presented(NamedTuple):
    """What somebody sends: which key it would be, and the hash of its secret."""

    prefix: str
    secret_hash: str


def key_text(prefix: str, secret: bytes) -> str:
    """Returns what the service sends; whoever has it needs nothing else."""
    return f"{_MARK}_{prefix}_{secret.hex()}"


def read_key_text(text: str) -> Presented | None:
    """None for what is no key at all."""
    parts = _KEY.fullmatch(text)
    return None if parts is None else Presented(parts[1], hash_secret(bytes.fromhex(parts[2])))


def hash_secret(secret: bytes) -> str:
    return sha256(secret).hexdigest()


def rotated(key: ApiKey, secret_hash: str, overlap: timedelta, makers: Collection[str], now: datetime) -> ApiKey:
    """With another secret, by these admins. Only the secret before this one may overlap.

    Without an overlap they are its makers from now on: nobody else knows a secret of it.
    """
    return key._replace(
        makers=tuple(sorted({*key.makers, *makers} if overlap else makers)),
        is_handed_over=key.is_handed_over or not overlap,
        secret_hash=secret_hash,
        previous_hash=key.secret_hash if overlap else None,
        previous_until=now + overlap if overlap else None,
        updated_at=now,
        version=key.version + 1,
    )


def approved(key: ApiKey, maker_id: str, now: datetime) -> ApiKey:
    """A second admin has confirmed it."""
    return key._replace(is_waiting=False, makers=(*key.makers, maker_id), updated_at=now, version=key.version + 1)


def revoked(key: ApiKey, now: datetime) -> ApiKey:
    return key._replace(
        revoked_at=now, previous_hash=None, previous_until=None, updated_at=now, version=key.version + 1
    )


def api_key_view(key: ApiKey, now: datetime) -> dict[str, Any]:
    """Returns the key as admins see it: without anything that opens something."""
    return {
        "id": key.id,
        "user_id": key.user_id,
        "name": key.name,
        "prefix": f"{_MARK}_{key.prefix}",
        "permissions": list(key.permissions),
        "capture_to": list(key.capture_to),
        "status": key.status(now),
        "created_by": key.created_by,
        "makers": sorted(key.all_makers),
        "created_at": to_rfc3339(key.created_at),
        "updated_at": to_rfc3339(key.updated_at),
        "expires_at": _shown(key.expires_at),
        "previous_secret_until": _shown(key.previous_until),
        "last_used_at": _shown(key.last_used_at),
        "revoked_at": _shown(key.revoked_at),
    }


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)
