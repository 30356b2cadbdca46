"""Checkpoints: all wallets' heads under one hash, numbered, linked and signed, for those who trust no database.

Those of version 2 are maps (merkle.py): one path proves a wallet's head and that the wallet has no other, or that it is
not there at all. Those of version 3 also seal audit events. Older ones stay as they were signed; none are made anew.
"""

import base64
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.domain.clock import to_rfc3339
from service.domain.merkle import (
    audit_path,
    leaf_hash,
    map_path,
    map_root,
    root_of,
    separator_of,
    tagged,
    tagged_hash,
)

# What the first checkpoint has for the hash of the one before.
NO_CHECKPOINT_HASH = "0" * 64
# A power of two, so that a full tile is a subtree of the whole tree. 256 heads are about 24 kB.
TILE_LEAVES = 256
# Half of SHA-256: enough to tell keys apart, and nobody can make two that share it.
_KEY_ID_DIGITS = 32


LISTS, MAPS, AUDITED = 1, 2, 3
# How far before its predecessor a checkpoint looks for audit events that came late: the database was away for hours.
LOOK_BACK = timedelta(days=1)


class Leaf(NamedTuple):
    """Where a wallet's chain of entries stood: the last one's number and hash."""

    wallet_id: str
    seq: int
    head_hash: str


class Tile(NamedTuple):
    """Up to TILE_LEAVES leaves in the order of their wallets' ids. `id` is the root of the tree over them: what
    changes a leaf changes the id, and an unchanged tile serves many checkpoints.
    """

    id: str
    leaves: tuple[Leaf, ...]


class TileName(NamedTuple):
    """`separator` is the key between the tile and the one before; the first tile has none, as all of version 1."""

    id: str
    first_wallet_id: str
    separator: str | None = None


class Checkpoint(NamedTuple):
    """As it is published. `wallets` is the size of the tree, `prev_hash` seals all checkpoints before."""

    number: int
    created_at: datetime
    wallets: int
    root: str
    prev_hash: str
    key_id: str
    signature: str
    version: int = LISTS
    # How many audit events it seals, and the hash over them; None before version 3.
    audit_events: int | None = None
    audit_root: str | None = None


class AuditSeal(NamedTuple):
    """The audit events that no checkpoint before has sealed, in the order of their ids."""

    ids: tuple[str, ...]
    root: str


class Inclusion(NamedTuple):
    """That a leaf is in a tree: its place, and what to hash it with on the way to the root, the nearest first.

    In a map each step also has the key between the two halves; None in version 1.
    """

    leaf_index: int
    tree_size: int
    path: list[str]
    separators: list[str] | None = None


class Absence(NamedTuple):
    """That a wallet is not in a map: the leaf at the only place where it could be is another's.

    That leaf is shown by the hashes that it consists of, which say nothing about whose it is; both are None in a map
    without leaves.
    """

    inclusion: Inclusion
    wallet_hash: str | None
    head_hash: str | None


def canonical_json(value: dict[str, Any]) -> bytes:
    """Keys sorted, no white space: the one text of a value that is hashed and signed."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def make_tile(leaves: Sequence[Leaf], version: int = MAPS) -> Tile:
    hashes = [leaf_hash_of(leaf, version) for leaf in leaves]
    root = root_of(hashes) if version == LISTS else map_root(hashes, separators_within(leaves))
    return Tile(root.hex(), tuple(leaves))


def name_tile(tile: Tile, before: Tile | None) -> TileName:
    """As a map names it, behind the one before."""
    first = tile.leaves[0].wallet_id
    separator = None if before is None else separator_of(before.leaves[-1].wallet_id, first)
    return TileName(tile.id, first, separator)


def tree_root(tiles: Sequence[TileName], version: int = MAPS) -> str:
    """Returns the root over all leaves. All tiles but the last have to be full."""
    roots = [bytes.fromhex(tile.id) for tile in tiles]
    return (root_of(roots) if version == LISTS else map_root(roots, _separators_among(tiles))).hex()


def separators_within(leaves: Sequence[Leaf]) -> list[str]:
    """Between each leaf and the next."""
    return [separator_of(one.wallet_id, other.wallet_id) for one, other in pairwise(leaves)]


def _separators_among(tiles: Sequence[TileName]) -> list[str]:
    return [tile.separator or "" for tile in tiles[1:]]


def place_among(tiles: Sequence[TileName], wallet_id: str) -> int | None:
    """Finds which of the tiles has the wallet's leaf, if any has; None where it would be before the first."""
    at = bisect_right(tiles, wallet_id, key=lambda tile: tile.first_wallet_id) - 1
    return None if at < 0 else at


def place_within(tile: Tile, wallet_id: str) -> int | None:
    """Finds which of the tile's leaves is the wallet's."""
    at = bisect_left(tile.leaves, wallet_id, key=lambda leaf: leaf.wallet_id)
    return at if at < len(tile.leaves) and tile.leaves[at].wallet_id == wallet_id else None


def inclusion_of(
    tiles: Sequence[TileName], tile_at: int, tile: Tile, leaf_at: int, tree_size: int, version: int = MAPS
) -> Inclusion:
    """First the way through the tile, then that of the tile's root among the others."""
    place = tile_at * TILE_LEAVES + leaf_at
    leaves, roots = [leaf_hash_of(leaf, version) for leaf in tile.leaves], [bytes.fromhex(name.id) for name in tiles]
    if version == LISTS:
        path = [*audit_path(leaf_at, leaves), *audit_path(tile_at, roots)]
        return Inclusion(place, tree_size, [sibling.hex() for sibling in path])
    within = map_path(leaf_at, leaves, separators_within(tile.leaves))
    branches = [*within, *map_path(tile_at, roots, _separators_among(tiles))]
    return Inclusion(
        place, tree_size, [branch.hash.hex() for branch in branches], [branch.separator for branch in branches]
    )


def inclusion_view(inclusion: Inclusion) -> dict[str, Any]:
    """Returns the inclusion as the API shows it; one in a tree of version 1 has no separators."""
    return {name: value for name, value in inclusion._asdict().items() if value is not None}


def absence_view(absence: Absence) -> dict[str, Any]:
    """Returns the absence as the API shows it."""
    return absence._asdict() | {"inclusion": inclusion_view(absence.inclusion)}


def search_among(tiles: Sequence[TileName], wallet_id: str) -> int:
    """Of a map's tiles, the one that has the wallet's place, whether the wallet is there or not."""
    return bisect_right(_separators_among(tiles), wallet_id)


def search_within(tile: Tile, wallet_id: str) -> int:
    """Returns the wallet's place in that tile."""
    return bisect_right(separators_within(tile.leaves), wallet_id)


def absence_of(tiles: Sequence[TileName], tile_at: int, tile: Tile, leaf_at: int, tree_size: int) -> Absence:
    """Shows what stands where a wallet would be."""
    leaf = tile.leaves[leaf_at]
    inclusion = inclusion_of(tiles, tile_at, tile, leaf_at, tree_size)
    return Absence(inclusion, _wallet_hash(leaf.wallet_id).hex(), _head_hash(leaf).hex())


# Of a map without leaves.
NOBODY = Absence(Inclusion(0, 0, [], []), None, None)


def leaf_hash_of(leaf: Leaf, version: int = MAPS) -> bytes:
    if version == LISTS:
        return leaf_hash(canonical_json(leaf._asdict()))
    return tagged_hash("leaf", _wallet_hash(leaf.wallet_id), _head_hash(leaf))


def _wallet_hash(wallet_id: str) -> bytes:
    return tagged_hash("wallet", wallet_id.encode())


def _head_hash(leaf: Leaf) -> bytes:
    return tagged_hash("head", canonical_json({"seq": leaf.seq, "head_hash": leaf.head_hash}))


def make_checkpoint(
    before: Checkpoint | None,
    tiles: Sequence[TileName],
    wallets: int,
    now: datetime,
    key: Ed25519PrivateKey,
    version: int = MAPS,
    audit: AuditSeal | None = None,
    number: int | None = None,
) -> Checkpoint:
    """Makes the next one of the series, signed. Its time is never before the last one's, whatever the clocks say.

    With `audit` it is of version 3. `number` is given where the next one is taken by a checkpoint that was refused.
    """
    following = 1 if before is None else before.number + 1
    unsigned = Checkpoint(
        number=following if number is None else number,
        created_at=now if before is None else max(now, before.created_at),
        wallets=wallets,
        root=tree_root(tiles, version),
        prev_hash=NO_CHECKPOINT_HASH if before is None else checkpoint_hash(before),
        key_id=key_id_of(key.public_key()),
        signature="",
        version=version if audit is None else AUDITED,
        audit_events=None if audit is None else len(audit.ids),
        audit_root=None if audit is None else audit.root,
    )
    return unsigned._replace(signature=base64.b64encode(key.sign(signed_bytes(unsigned))).decode())


def signed_bytes(checkpoint: Checkpoint) -> bytes:
    """Returns the bytes that the signature is over."""
    sealed = checkpoint_view(checkpoint)
    del sealed["signature"]
    content = canonical_json(sealed)
    return content if checkpoint.version == LISTS else tagged("signature", content)


def is_signed_by(key: Ed25519PublicKey, checkpoint: Checkpoint) -> bool:
    """Tells whether this key signed the checkpoint as it stands here."""
    try:
        key.verify(base64.b64decode(checkpoint.signature, validate=True), signed_bytes(checkpoint))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return checkpoint.key_id == key_id_of(key)


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """SHA-256 over the checkpoint as it is published, signature included."""
    return hash_of_view(checkpoint_view(checkpoint))


def hash_of_view(view: dict[str, Any]) -> str:
    """Computes the hash of a checkpoint from what the API shows of it."""
    content = canonical_json(view)
    return hashlib.sha256(tagged("checkpoint", content) if "version" in view else content).hexdigest()


def checkpoint_view(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the checkpoint as the API shows it. One of version 1 says no version: it was signed without."""
    view = {name: value for name, value in checkpoint._asdict().items() if value is not None}
    view["created_at"] = to_rfc3339(checkpoint.created_at)
    if checkpoint.version == LISTS:
        del view["version"]
    return view


class Sealing:
    """Seals audit events, which come one by one in the order of their ids. Only their ids are kept."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._hashed = hashlib.sha256(tagged("audit"))

    @property
    def count(self) -> int:
        return len(self._ids)

    def add(self, event: dict[str, Any]) -> None:
        """Takes an event as the API shows it."""
        self._ids.append(event["id"])
        self._hashed.update(tagged_hash("audit-event", canonical_json(event)))

    def seal(self) -> AuditSeal:
        return AuditSeal(tuple(self._ids), self._hashed.hexdigest())


def key_id_of(key: Ed25519PublicKey) -> str:
    """Returns the beginning of SHA-256 over the key's 32 bytes, in hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]


def key_view(key: Ed25519PublicKey) -> dict[str, str]:
    """Returns the public key as the API shows it."""
    return {
        "key_id": key_id_of(key),
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(key.public_bytes_raw()).decode(),
        "pem": key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    }
