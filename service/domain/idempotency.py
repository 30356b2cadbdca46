"""Idempotency: a key claimed for one request, and the answer that belongs to it from then on."""

from datetime import datetime
from typing import NamedTuple


class IdempotencyClaim(NamedTuple):
    """`id` is user and key; `fingerprint` tells one request from another under the same key."""

    id: str
    fingerprint: str
    expires_at: datetime


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
