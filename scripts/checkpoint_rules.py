"""Checks checkpoints and their tiles, without any I/O.

Written out a second time on purpose, as the rules in ledger_rules.py: none of this calls the code that it judges. Rows
are documents as the driver gives them, since a corrupt one may not fit any class of ours.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
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
_AUDITED_SHAPE: Final[Mapping[str, type]] = {
    **_CHECKPOINT_SHAPE, "audit_events": int, "audit_root": str, "audit_ids": list
}  # fmt: skip
_TILE_SHAPE: Final[Mapping[str, type]] = {"_id": str, "wallet_ids": list, "seqs": list, "head_hashes": bytes}

# All but what grows with the number of wallets and of audit events.
HEAD_FIELDS: Final = tuple(name for name in (*_AUDITED_SHAPE, "version") if name not in ("tiles", "audit_ids"))

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


# Those of the first version say no number of their own, and their hashes have no tags. Those of the third also seal
# audit events.
_LISTS: Final = 1
_MAPS: Final = 2
_AUDITED: Final = 3


class CheckpointRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    GAP = "checkpoint_gap"
    LINK = "checkpoint_link"
    VERSION = "checkpoint_version"
    SHRUNK = "checkpoint_shrunk"
    GONE = "checkpoint_gone"
    OVERDUE = "checkpoint_overdue"
    TIME = "checkpoint_time"
    SIGNATURE = "checkpoint_signature"
    ROOT = "checkpoint_root"
    TREE = "checkpoint_tree"
    LEAF = "checkpoint_leaf"
    TILE_MISSING = "tile_missing"
    TILE_CONTENT = "tile_content"


class Series:
    """The checkpoints in the order of their numbers, of which only the last is kept."""

    def __init__(self, key: Ed25519PublicKey | None, aside: Collection[int] = ()) -> None:
        """Without a key, signatures are not looked at. `aside` has the numbers that `numbers_aside` found."""
        self._key = key
        self._aside = aside
        self._number = 0
        self._hash = GENESIS
        self._created_at: datetime | None = None
        self._version = _LISTS
        # By their numbers: some 200 bytes for each hour.
        self._hashes: dict[int, str] = {}
        self._times: dict[int, datetime] = {}

    @property
    def created_at(self) -> datetime | None:
        """Says when the last checkpoint was made; None where there was none."""
        return self._created_at

    @property
    def hashes(self) -> Mapping[int, str]:
        return self._hashes

    @property
    def times(self) -> Mapping[int, datetime]:
        return self._times

    def follow(self, row: Row) -> Iterator[Breach]:
        subject = str(row.get("_id"))
        shape = _AUDITED_SHAPE if _version_of(row) >= _AUDITED else _CHECKPOINT_SHAPE
        if not is_shaped(row, shape) or not all(_is_name(name) for name in row["tiles"]):
            yield Breach(Rule.MALFORMED, subject, "the checkpoint lacks fields or has wrong types")
            return
        published = _published(row)
        is_ours = self._key is None or is_signed(published, self._key)
        if not is_ours:
            yield Breach(CheckpointRule.SIGNATURE, subject, f"the signature of key {row['key_id']} does not hold")
        if row["_id"] in self._aside:
            # Later ones follow from the one before it.
            self._hashes[row["_id"]] = hash_of_published(published)
            return
        # The signer leaves out the number of a forged one. Where the link holds, none is missing.
        if row["_id"] != self._number + 1 and row["prev_hash"] != self._hash:
            yield Breach(CheckpointRule.GAP, subject, f"follows {self._number}")
        if row["prev_hash"] != self._hash:
            yield Breach(CheckpointRule.LINK, subject, f"prev_hash {row['prev_hash']} is not {self._hash}")
        version = _version_of(row)
        if version not in (_LISTS, _MAPS, _AUDITED) or version < self._version:
            yield Breach(CheckpointRule.VERSION, subject, f"of version {version}, the one before of {self._version}")
        if self._created_at is not None and row["created_at"] < self._created_at:
            yield Breach(CheckpointRule.TIME, subject, f"of {row['created_at']}, before the one before")
        roots = [bytes.fromhex(name["id"]) for name in row["tiles"]]
        separators = [str(name.get("separator") or "") for name in row["tiles"][1:]]
        root = (_root(roots) if version == _LISTS else _map_root(roots, separators)).hex()
        if row["root"] != root:
            yield Breach(CheckpointRule.ROOT, subject, f"root {row['root']}, of its tiles it is {root}")
        self._number, self._version = row["_id"], version
        if is_ours:
            self._created_at = row["created_at"]
        self._hash = hash_of_published(published)
        self._hashes[self._number], self._times[self._number] = self._hash, row["created_at"]

    def check_note(self, note: Row) -> Iterator[Breach]:
        """Holds an audit event `checkpoint.taken` against the series; no later checkpoint names the last one."""
        details = note.get("details")
        said = details if isinstance(details, dict) else {}
        number = said.get("number")
        known = self._hashes.get(number) if isinstance(number, int) else None
        if known is None:
            yield Breach(CheckpointRule.GONE, str(number), f"it was taken by {note.get('_id')}, and is not there")
        elif known != said.get("hash"):
            yield Breach(CheckpointRule.GONE, str(number), f"{said.get('hash')} was taken, here is {known}")


def numbers_aside(rows: Iterable[Row], key: Ed25519PublicKey | None) -> set[int]:
    """Finds forged checkpoints that the series goes on without: below the newest one with the key's signature, they
    have no such signature, and none that has follows from them. Rows come in order, and need no tiles.
    """
    if key is None:
        return set()
    found = [row for row in rows if is_shaped(row, {**_CHECKPOINT_SHAPE, "tiles": object})]
    published = {row["_id"]: _published(row) for row in found}
    newest = next((n for n in reversed(published) if is_signed(published[n], key)), None)
    if newest is None:
        return set()
    numbers = {hash_of_published(one): number for number, one in published.items()}
    vouched: set[int] = set()
    number: int | None = newest
    while number is not None and number not in vouched:
        vouched.add(number)
        number = numbers.get(published[number]["prev_hash"])
    return {n for n, one in published.items() if n < newest and n not in vouched and not is_signed(one, key)}


def _published(row: Row) -> Row:
    """Renders the checkpoint as the API shows it. That text is signed and hashed."""
    members = {name: row[name] for name in ("wallets", "root", "prev_hash", "key_id", "signature")}
    created_at = row["created_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    version = _version_of(row)
    members |= {name: row[name] for name in ("audit_events", "audit_root") if version >= _AUDITED}
    return {
        **members, "number": row["_id"], "created_at": created_at, **({} if version == _LISTS else {"version": version})
    }  # fmt: skip


def hash_of_published(published: Row) -> str:
    """Computes what the next checkpoint names."""
    content = _ENCODE(published).encode(errors="surrogatepass")
    return hashlib.sha256(tagged("checkpoint", content) if "version" in published else content).hexdigest()


def _version_of(row: Row) -> int:
    version = row.get("version", _LISTS)
    return version if isinstance(version, int) else 0


def is_signed(published: Row, key: Ed25519PublicKey) -> bool:
    """Tells whether the key signed the checkpoint as it is published."""
    unsigned = {name: member for name, member in published.items() if name != "signature"}
    key_id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]
    content = _ENCODE(unsigned).encode(errors="surrogatepass")
    try:
        signature = base64.b64decode(published["signature"], validate=True)
        key.verify(signature, tagged("signature", content) if "version" in published else content)
    except (InvalidSignature, ValueError):
        return False
    return bool(published["key_id"] == key_id)


def _is_name(name: object) -> bool:
    return isinstance(name, dict) and _is_hash(name.get("id")) and isinstance(name.get("first_wallet_id"), str)


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and len(text) == 2 * _HASH_BYTES and not text.strip("0123456789abcdef")


def check_tile(tile_id: str, numbers: Sequence[int], tiles: Sequence[Row]) -> Iterator[Breach]:
    """A tile that the checkpoint `numbers[0]` names first, if any does, against what is there under its id: the root
    over its leaves, as either version has it.
    """
    if not tiles:
        yield Breach(CheckpointRule.TILE_MISSING, tile_id, f"named by checkpoint {numbers[0]}")
        return
    leaves = leaves_of(tiles[0])
    if leaves is None:
        yield Breach(Rule.MALFORMED, tile_id, "the tile lacks fields or has wrong types")
        return
    root = tile_root(leaves)
    if tile_id not in (
        root,
        _root([hashlib.sha256(b"\x00" + _ENCODE(leaf).encode()).digest() for leaf in leaves]).hex(),
    ):
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


def check_growth(number: object, wallet_id: str, before: Sequence[Row], after: Sequence[Row]) -> Iterator[Breach]:
    """Compares a wallet's leaf in one checkpoint with that in the next one, `number`: a chain of entries only grows."""
    if not before:
        return
    was = before[0]["seq"], before[0]["head_hash"]
    if not after:
        detail = f"it stood at {was[0]}, and checkpoint {number} has no such wallet"
        yield Breach(CheckpointRule.SHRUNK, wallet_id, detail)
        return
    is_now = after[0]["seq"], after[0]["head_hash"]
    if is_now[0] < was[0] or (is_now[0] == was[0] and is_now != was):
        yield Breach(CheckpointRule.SHRUNK, wallet_id, f"from {was} to {is_now} at checkpoint {number}")


class Leaves:
    """Checks the leaves of one checkpoint, tile by tile, and keeps only the id of the last wallet."""

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
        separator = name.get("separator")
        if at and separator is not None and not self._last_id < separator <= leaves[0]["wallet_id"]:
            yield Breach(CheckpointRule.TREE, self._subject, f"tile {at} is not separated from the one before")
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


def tagged(kind: str, *parts: bytes) -> bytes:
    """Puts what it hashes before the parts, and a zero byte between, as all versions but the first do."""
    return f"wallet-checkpoint/v2/{kind}".encode() + b"\x00" + b"".join(parts)


def _hash_of(kind: str, *parts: bytes) -> bytes:
    return hashlib.sha256(tagged(kind, *parts)).digest()


def tile_root(leaves: Sequence[Row]) -> str:
    """Computes the root of one tile of a map (version 2)."""
    hashes = [
        _hash_of(
            "leaf",
            _hash_of("wallet", leaf["wallet_id"].encode()),
            _hash_of("head", _ENCODE({"seq": leaf["seq"], "head_hash": leaf["head_hash"]}).encode()),
        )
        for leaf in leaves
    ]
    ids = [leaf["wallet_id"] for leaf in leaves]
    return _map_root(hashes, [_separator(one, other) for one, other in pairwise(ids)]).hex()


def _separator(before: str, after: str) -> str:
    """The shortest beginning of a key that is greater than the one before; nothing where they are out of order."""
    return next((after[:size] for size in range(1, len(after) + 1) if after[:size] > before), "")


def _map_root(hashes: Sequence[bytes], separators: Sequence[str]) -> bytes:
    """Computes a root like `_root`; each node also hashes the key that separates its two parts."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else _hash_of("empty")
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    left, right = _map_root(hashes[:split], separators[: split - 1]), _map_root(hashes[split:], separators[split:])
    return _hash_of("node", left, right, separators[split - 1].encode())
