"""Idempotency: a key claimed for one request, and the answer that belongs to it from then on."""

from datetime import datetime
from typing import Final, NamedTuple

# What a fingerprint is made of. 2: method, route, path parameters and the body as it was sent.
FINGERPRINT_VERSION: Final = "2"
_FINGERPRINT_PARTS = 3
_PART_MARK = "/"


class Tombstone(NamedTuple):
    """Marks the record that a key has made. It outlives the key's answer, so that a repetition never pays twice.

    `key_hashes` are keyed hashes of user and key, one for each encryption key that is configured; unique in their
    collection. In a batch, each part's hashes end with its position.
    """

    key_hashes: tuple[str, ...]
    fingerprint: str

    def of_part(self, position: int) -> "Tombstone":
        hashes = tuple(f"{key_hash}{_PART_MARK}{position}" for key_hash in self.key_hashes)
        return self._replace(key_hashes=hashes)

    @property
    def position(self) -> int:
        """0 for what was made alone."""
        return int(self.key_hashes[0].partition(_PART_MARK)[2] or 0)


class IdempotencyClaim(NamedTuple):
    """`id` is user and key; `fingerprint` tells one request from another under the same key.

    `earlier_fingerprints` are those of the same request under previous encryption keys. `key_hashes` go into the
    tombstone; without them no tombstone is left.
    """

    id: str
    fingerprint: str
    expires_at: datetime
    earlier_fingerprints: tuple[str, ...] = ()
    key_hashes: tuple[str, ...] = ()

    @property
    def tombstone(self) -> Tombstone | None:
        return Tombstone(self.key_hashes, self.fingerprint) if self.key_hashes else None

    def is_of(self, fingerprint: str) -> bool:
        """Tells whether the key was claimed for this request, as far as the fingerprint that was kept can tell.

        A fingerprint of another version cannot tell. Then the key's answer is given, since a refusal would make the
        client pay again under a new key.
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
