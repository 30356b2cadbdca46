"""Idempotency: a key claimed for one request, and the answer that belongs to it from then on."""

from datetime import datetime
from typing import NamedTuple


class IdempotencyClaim(NamedTuple):
    """`id` is user and key; `fingerprint` tells one request from another under the same key.

    `earlier_fingerprints` are what it was called under encryption keys before the current one.
    """

    id: str
    fingerprint: str
    expires_at: datetime
    earlier_fingerprints: tuple[str, ...] = ()

    def is_of(self, fingerprint: str) -> bool:
        return fingerprint == self.fingerprint or fingerprint in self.earlier_fingerprints


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
