"""Checkpoints: all wallets' heads under one hash, numbered, linked and signed, for those who trust no database."""

import base64
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.domain.clock import to_rfc3339
from service.domain.merkle import audit_path, leaf_hash, root_of

# What the first checkpoint has for the hash of the one before.
NO_CHECKPOINT_HASH = "0" * 64
# A power of two, so that a full tile is a subtree of the whole tree. 256 heads are about 24 kB.
TILE_LEAVES = 256
# Half of SHA-256: enough to tell keys apart, and nobody can make two that share it.
_KEY_ID_DIGITS = 32


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
    id: str
    first_wallet_id: str


class Checkpoint(NamedTuple):
    """As it is published. `wallets` is the size of the tree, `prev_hash` seals all checkpoints before."""

    number: int
    created_at: datetime
    wallets: int
    root: str
    prev_hash: str
    key_id: str
    signature: str


class Inclusion(NamedTuple):
    """That a leaf is in a tree: its place, and what to hash it with on the way to the root, the nearest first."""

    leaf_index: int
    tree_size: int
    path: list[str]


def canonical_json(value: dict[str, Any]) -> bytes:
    """Keys sorted, no white space: the one text of a value that is hashed and signed."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def make_tile(leaves: Sequence[Leaf]) -> Tile:
    return Tile(root_of([_hash_of(leaf) for leaf in leaves]).hex(), tuple(leaves))


def tree_root(tiles: Sequence[TileName]) -> str:
    """The root over all leaves. All tiles but the last have to be full."""
    return root_of([bytes.fromhex(tile.id) for tile in tiles]).hex()


def place_among(tiles: Sequence[TileName], wallet_id: str) -> int | None:
    """Which of the tiles has the wallet's leaf, if any has; None where it would be before the first."""
    at = bisect_right(tiles, wallet_id, key=lambda tile: tile.first_wallet_id) - 1
    return None if at < 0 else at


def place_within(tile: Tile, wallet_id: str) -> int | None:
    """Which of the tile's leaves is the wallet's."""
    at = bisect_left(tile.leaves, wallet_id, key=lambda leaf: leaf.wallet_id)
    return at if at < len(tile.leaves) and tile.leaves[at].wallet_id == wallet_id else None


def inclusion_of(tiles: Sequence[TileName], tile_at: int, tile: Tile, leaf_at: int, tree_size: int) -> Inclusion:
    """First the way through the tile, then that of the tile's root among the others."""
    within = audit_path(leaf_at, [_hash_of(leaf) for leaf in tile.leaves])
    above = audit_path(tile_at, [bytes.fromhex(name.id) for name in tiles])
    return Inclusion(tile_at * TILE_LEAVES + leaf_at, tree_size, [sibling.hex() for sibling in (*within, *above)])


def _hash_of(leaf: Leaf) -> bytes:
    return leaf_hash(canonical_json(leaf._asdict()))


def make_checkpoint(
    before: Checkpoint | None, tiles: Sequence[TileName], wallets: int, now: datetime, key: Ed25519PrivateKey
) -> Checkpoint:
    """The next one of the series, signed. Its time is never before the last one's, whatever the clocks say."""
    unsigned = Checkpoint(
        number=1 if before is None else before.number + 1,
        created_at=now if before is None else max(now, before.created_at),
        wallets=wallets,
        root=tree_root(tiles),
        prev_hash=NO_CHECKPOINT_HASH if before is None else checkpoint_hash(before),
        key_id=key_id_of(key.public_key()),
        signature="",
    )
    sealed = checkpoint_view(unsigned)
    del sealed["signature"]
    return unsigned._replace(signature=base64.b64encode(key.sign(canonical_json(sealed))).decode())


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """SHA-256 over the checkpoint as it is published, signature included."""
    return hashlib.sha256(canonical_json(checkpoint_view(checkpoint))).hexdigest()


def checkpoint_view(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint as the API shows it."""
    view = checkpoint._asdict()
    view["created_at"] = to_rfc3339(checkpoint.created_at)
    return view


def key_id_of(key: Ed25519PublicKey) -> str:
    """The beginning of SHA-256 over the key's 32 bytes, in hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]


def key_view(key: Ed25519PublicKey) -> dict[str, str]:
    """The public key as the API shows it."""
    return {
        "key_id": key_id_of(key),
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(key.public_bytes_raw()).decode(),
        "pem": key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    }
