"""What has to hold of checkpoints and their tiles, without any I/O.

Written out a second time on purpose, as the rules in ledger_rules.py: none of this calls the code that it judges. Rows
are documents as the driver gives them, since a corrupt one may not fit any class of ours.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from scripts.ledger_rules import GENESIS, Breach, Rule, is_shaped
from scripts.record_rules import Row

TILE_LEAVES: Final = 256
_HASH_BYTES: Final = 32
_KEY_ID_DIGITS: Final = 32

_CHECKPOINT_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "wallets"), int),
    **dict.fromkeys(("root", "prev_hash", "key_id", "signature"), str),
    "created_at": datetime,
    "tiles": list,
}
_TILE_SHAPE: Final[Mapping[str, type]] = {"_id": str, "wallet_ids": list, "seqs": list, "head_hashes": bytes}

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class CheckpointRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    GAP = "checkpoint_gap"
    LINK = "checkpoint_link"
    TIME = "checkpoint_time"
    SIGNATURE = "checkpoint_signature"
    ROOT = "checkpoint_root"
    TREE = "checkpoint_tree"
    LEAF = "checkpoint_leaf"
    TILE_MISSING = "tile_missing"
    TILE_CONTENT = "tile_content"


class Series:
    """The checkpoints in the order of their numbers, of which only the last is kept."""

    def __init__(self, key: Ed25519PublicKey | None) -> None:
        """Without a key, signatures are not looked at."""
        self._key = key
        self._number = 0
        self._hash = GENESIS
        self._created_at: datetime | None = None

    def follow(self, row: Row) -> Iterator[Breach]:
        subject = str(row.get("_id"))
        if not is_shaped(row, _CHECKPOINT_SHAPE) or not all(_is_name(name) for name in row["tiles"]):
            yield Breach(Rule.MALFORMED, subject, "the checkpoint lacks fields or has wrong types")
            return
        if row["_id"] != self._number + 1:
            yield Breach(CheckpointRule.GAP, subject, f"follows {self._number}")
        if row["prev_hash"] != self._hash:
            yield Breach(CheckpointRule.LINK, subject, f"prev_hash {row['prev_hash']} is not {self._hash}")
        if self._created_at is not None and row["created_at"] < self._created_at:
            yield Breach(CheckpointRule.TIME, subject, f"of {row['created_at']}, before the one before")
        published = _published(row)
        if self._key is not None and not _is_signed(published, self._key):
            yield Breach(CheckpointRule.SIGNATURE, subject, f"the signature of key {row['key_id']} does not hold")
        root = _root([bytes.fromhex(name["id"]) for name in row["tiles"]]).hex()
        if row["root"] != root:
            yield Breach(CheckpointRule.ROOT, subject, f"root {row['root']}, of its tiles it is {root}")
        self._number, self._created_at = row["_id"], row["created_at"]
        self._hash = hashlib.sha256(_ENCODE(published).encode()).hexdigest()


def _published(row: Row) -> Row:
    """As the API shows it, which is what is signed and hashed."""
    members = {name: row[name] for name in ("wallets", "root", "prev_hash", "key_id", "signature")}
    created_at = row["created_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**members, "number": row["_id"], "created_at": created_at}


def _is_signed(published: Row, key: Ed25519PublicKey) -> bool:
    unsigned = {name: member for name, member in published.items() if name != "signature"}
    key_id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]
    try:
        key.verify(base64.b64decode(published["signature"], validate=True), _ENCODE(unsigned).encode())
    except (InvalidSignature, ValueError):
        return False
    return bool(published["key_id"] == key_id)


def _is_name(name: object) -> bool:
    return isinstance(name, dict) and _is_hash(name.get("id")) and isinstance(name.get("first_wallet_id"), str)


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and len(text) == 2 * _HASH_BYTES and not text.strip("0123456789abcdef")


def check_tile(tile_id: str, numbers: Sequence[int], tiles: Sequence[Row]) -> Iterator[Breach]:
    """A tile that the checkpoint `numbers[0]` names first, if any does, against what is there under its id."""
    if not tiles:
        yield Breach(CheckpointRule.TILE_MISSING, tile_id, f"named by checkpoint {numbers[0]}")
        return
    leaves = leaves_of(tiles[0])
    if leaves is None:
        yield Breach(Rule.MALFORMED, tile_id, "the tile lacks fields or has wrong types")
        return
    root = _root([hashlib.sha256(b"\x00" + _ENCODE(leaf).encode()).digest() for leaf in leaves]).hex()
    if root != tile_id:
        yield Breach(CheckpointRule.TILE_CONTENT, tile_id, f"its content has the hash {root}")


def leaves_of(tile: Row) -> list[Row] | None:
    """`{wallet_id, seq, head_hash}` of each; None where the tile is none."""
    if not is_shaped(tile, _TILE_SHAPE):
        return None
    wallet_ids, seqs, heads = tile["wallet_ids"], tile["seqs"], tile["head_hashes"]
    if not len(wallet_ids) == len(seqs) == len(heads) / _HASH_BYTES or not 1 <= len(wallet_ids) <= TILE_LEAVES:
        return None
    if not all(isinstance(one, str) for one in wallet_ids) or not all(isinstance(one, int) for one in seqs):
        return None
    hashes = [heads[at : at + _HASH_BYTES].hex() for at in range(0, len(heads), _HASH_BYTES)]
    return [
        {"wallet_id": wallet_id, "seq": seq, "head_hash": head}
        for wallet_id, seq, head in zip(wallet_ids, seqs, hashes, strict=True)
    ]


class Leaves:
    """All leaves of one checkpoint, tile by tile, of which only the last wallet's id is kept."""

    def __init__(self, checkpoint: Row) -> None:
        self._subject = str(checkpoint["_id"])
        self._tiles = checkpoint["tiles"]
        self._wallets = checkpoint["wallets"]
        self._last_id = ""
        self._count = 0

    def follow(self, at: int, leaves: Sequence[Row], known: Mapping[tuple[str, int], str]) -> Iterator[Breach]:
        """`known` has the hash of each entry that the leaves name, by wallet and number, and for wallets without
        entries what a chain starts with.
        """
        name = self._tiles[at]
        if leaves[0]["wallet_id"] != name["first_wallet_id"]:
            yield Breach(CheckpointRule.TREE, self._subject, f"tile {at} does not start with {name['first_wallet_id']}")
        if len(leaves) < TILE_LEAVES and at != len(self._tiles) - 1:
            yield Breach(CheckpointRule.TREE, self._subject, f"tile {at} is not full, and not the last")
        for leaf in leaves:
            if leaf["wallet_id"] <= self._last_id:
                yield Breach(CheckpointRule.TREE, self._subject, f"{leaf['wallet_id']} stands after {self._last_id}")
            self._last_id = leaf["wallet_id"]
            found = known.get((leaf["wallet_id"], leaf["seq"]))
            if found != leaf["head_hash"]:
                subject = f"{leaf['wallet_id']}#{leaf['seq']}"
                detail = f"checkpoint {self._subject} sealed {leaf['head_hash']}, here is {found}"
                yield Breach(CheckpointRule.LEAF, subject, detail)
        self._count += len(leaves)

    def end(self) -> Iterator[Breach]:
        if self._count != self._wallets:
            yield Breach(CheckpointRule.TREE, self._subject, f"{self._wallets} wallets, its tiles have {self._count}")


def _root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is defined: over the largest power of two below their number, and over the rest."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else hashlib.sha256().digest()
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + _root(hashes[:split]) + _root(hashes[split:])).digest()
