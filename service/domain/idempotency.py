"""Idempotency: a key claimed for one request, and the answer that belongs to it from then on."""

from datetime import datetime
from typing import Final, NamedTuple

# What a fingerprint is made of. 2: method, route, path parameters and the body as it was sent.
FINGERPRINT_VERSION: Final = "2"
_FINGERPRINT_PARTS = 3


class IdempotencyClaim(NamedTuple):
    """`id` is user and key; `fingerprint` tells one request from another under the same key.

    `earlier_fingerprints` are what it was called under encryption keys before the current one.
    """

    id: str
    fingerprint: str
    expires_at: datetime
    earlier_fingerprints: tuple[str, ...] = ()

    def is_of(self, fingerprint: str) -> bool:
        """Whether the key was claimed for this request, as far as the fingerprint that was kept can tell.

        One of another version cannot: it was made of other things. The key's answer is given, since a refusal would
        make its client pay again under a new key.
        """
        if fingerprint == self.fingerprint or fingerprint in self.earlier_fingerprints:
            return True
        return _version_of(fingerprint) != _version_of(self.fingerprint)


def _version_of(fingerprint: str) -> str | None:
    """'key:version:hash'; None for what has no version, as before there was one."""
    parts = fingerprint.split(":")
    return parts[1] if len(parts) == _FINGERPRINT_PARTS else None


class Answer(NamedTuple):
    """What the client gets, to the byte: kept with the key and given again for it."""

    status_code: int
    body: bytes
    replayed: bool = False


class IdempotencyRecord(NamedTuple):
    """A claim and its answer, as they are kept."""

    id: str
    fingerprint: str
    status_code: int
    body: bytes
    created_at: datetime
    expires_at: datetime
