"""Checks what the service says about its ledger, offline: `python -m scripts.verify_proof --help`.

Needs files as the API gives them, the public key that checkpoints are signed with, and nothing of the service: it is
written out a second time on purpose, with Python's own library and `cryptography` alone, so that it can be read in one
sitting and copied to where the service is not trusted. Ends with 0 where something is proven, 1 where it is not, 2
where a file cannot be read; one line says what.
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

Object = dict[str, Any]
Keys = Mapping[str, Ed25519PublicKey]

PROVEN: Final = 0
NOT_PROVEN: Final = 1
COULD_NOT_LOOK: Final = 2

# Before a wallet's first entry, and before the first checkpoint.
GENESIS: Final = "0" * 64
_MAPS: Final = 2
_AUDITED: Final = 3
_KEY_ID_DIGITS: Final = 32
_HASH_DIGITS: Final = 64

# Of each type of entry: what one unit of its amount does to available and to held, and its direction.
_CREDIT: Final = (+1, 0, "credit")
_DEBIT: Final = (-1, 0, "debit")
_RESERVE: Final = (-1, +1, "debit")
_CAPTURE: Final = (0, -1, "debit")
_RELEASE: Final = (+1, -1, "credit")
_EFFECTS: Final = {
    **dict.fromkeys(("DEPOSIT", "TRANSFER_IN", "CREDIT", "REVERSAL_IN", "CONVERSION_IN", "POINTS_EARNED"), _CREDIT),
    **dict.fromkeys(("TRANSFER_OUT", "DEBIT", "REVERSAL_OUT", "CONVERSION_OUT", "VOUCHER"), _DEBIT),
    "WITHDRAWAL_RETURN": _CREDIT,
    "DEPOSIT_RETURN": _DEBIT,
    "POINTS_RETURN": _DEBIT,
    **dict.fromkeys(("WITHDRAWAL", "HOLD"), _RESERVE),
    **dict.fromkeys(("WITHDRAWAL_SETTLEMENT", "HOLD_CAPTURE"), _CAPTURE),
    **dict.fromkeys(("WITHDRAWAL_REFUND", "HOLD_RELEASE"), _RELEASE),
}

Shape = Mapping[str, type | tuple[type, ...]]
_OPTIONAL_OBJECT: Final = (dict, type(None))
_ENTRY: Final[Shape] = {
    **dict.fromkeys(("id", "wallet_id", "user_id", "type", "direction", "currency", "status", "reference"), str),
    **dict.fromkeys(("transaction_id", "counterparty", "created_at", "prev_hash", "hash"), str),
    **dict.fromkeys(("seq", "amount", "available_before", "available_after", "held_before", "held_after"), int),
    "category": (str, type(None)),
}
# The first version says no number of its own.
_CHECKPOINT_V1: Final[Shape] = {
    **dict.fromkeys(("created_at", "root", "prev_hash", "key_id", "signature"), str),
    **dict.fromkeys(("number", "wallets"), int),
}
_CHECKPOINT_V2: Final[Shape] = {**_CHECKPOINT_V1, "version": int}
# The third version also seals audit events; it changes nothing in what a wallet's proof is.
_CHECKPOINT: Final[Shape] = {**_CHECKPOINT_V2, "audit_events": int, "audit_root": str}
_HEAD: Final[Shape] = {"seq": int, "head_hash": str}
_LEAF: Final[Shape] = {"wallet_id": str, **_HEAD}
_INCLUSION_V1: Final[Shape] = {"leaf_index": int, "tree_size": int, "path": list}
_INCLUSION: Final[Shape] = {**_INCLUSION_V1, "separators": list}
_OPTIONAL_TEXT: Final = (str, type(None))
_ABSENCE: Final[Shape] = {
    "wallet_id": str, "checkpoint": dict, "inclusion": dict, "wallet_hash": _OPTIONAL_TEXT, "head_hash": _OPTIONAL_TEXT,
}  # fmt: skip
_SEALED: Final[Shape] = {"checkpoint": dict, "leaf": dict, "inclusion": dict}
_WALLET_PROOF: Final[Shape] = {"wallet_id": str, "head": dict, **_SEALED, "entries": list, "has_more": bool}
_ENTRY_PROOF: Final[Shape] = {
    "entry": dict, "following": list, "has_more": bool, "head": _OPTIONAL_OBJECT,
    **dict.fromkeys(_SEALED, _OPTIONAL_OBJECT),
}  # fmt: skip
_STATEMENT: Final[Shape] = {
    "wallet_id": str, "currency": str, "from": (str, type(None)), "to": (str, type(None)), "opening": dict,
    "closing": dict, "rows": list,
}  # fmt: skip
# What a statement's row has besides the entry.
_ADDED: Final = ("change", "balance")
_BALANCE: Final[Shape] = dict.fromkeys(("available", "held", "balance", "seq"), int)


class NotProvenError(Exception):
    """The files do not prove what they should; the message says why."""


class UnreadableError(Exception):
    """A file is not there or is no JSON, or a key is none."""


# ---- Reading


def read_json(path: Path) -> Any:  # noqa: ANN401 JSON can be anything
    """Of a file that ends in .jsonl, the list of what its lines say. An unfinished line may stand before the whole."""
    try:
        text = path.read_text("utf-8")
        if path.suffix != ".jsonl":
            return _parse(text)
        lines = pairwise([*text.splitlines(), ""])
        return [_parse(line) for line, after in lines if line == after or not after.startswith(line)]
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: {error}") from error


def _parse(text: str) -> Any:  # noqa: ANN401 JSON can be anything
    return json.loads(text, object_pairs_hook=_unique_members, parse_constant=_refuse)


def _unique_members(pairs: list[tuple[str, Any]]) -> Object:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object names a member twice")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def read_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """By key id: from a PEM file, or from what `GET /checkpoints/keys` answers."""
    try:
        content = path.read_bytes()
        if content.lstrip().startswith(b"-----BEGIN"):
            found = [load_pem_public_key(content)]
        else:
            listed = read_json(path)["keys"]
            found = [Ed25519PublicKey.from_public_bytes(base64.b64decode(one["public_key"])) for one in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{path}: no Ed25519 public key: {error!r}") from error
    keys = {}
    for key in found:
        if not isinstance(key, Ed25519PublicKey):
            raise UnreadableError(f"{path}: a key of another kind than Ed25519")
        keys[hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]] = key
    return keys


def shaped(value: Any, shape: Shape, what: str, *, is_open: bool = False) -> Object:  # noqa: ANN401 as it was read
    """The value, if it is an object with these members. Others are refused unless it `is_open`: nothing would vouch for
    them, and they would look proven.
    """
    if not isinstance(value, dict):
        raise NotProvenError(f"{what} is no object")
    missing, surplus = shape.keys() - value.keys(), value.keys() - shape.keys()
    if missing or (surplus and not is_open):
        raise NotProvenError(f"{what}: members are missing ({sorted(missing)}) or unknown ({sorted(surplus)})")
    for name, kind in shape.items():
        # True and false are numbers to Python.
        if not isinstance(value[name], kind) or (isinstance(value[name], bool) and kind is not bool):
            raise NotProvenError(f"{what}: {name} is of the wrong type")
    return value


# ---- Hashes


def canonical(value: Object) -> bytes:
    """JSON in UTF-8 with its keys sorted and no white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def entry_hash(entry: Object) -> str:
    """Over the entry without its hash, and without a category that is null."""
    sealed = {name: value for name, value in entry.items() if name != "hash"}
    if sealed["category"] is None:
        del sealed["category"]
    return hashlib.sha256(canonical(sealed)).hexdigest()


def from_hex(text: Any, what: str) -> bytes:  # noqa: ANN401 as it was read
    if not isinstance(text, str) or len(text) != _HASH_DIGITS or text.strip("0123456789abcdef"):
        raise NotProvenError(f"{what} is no SHA-256 in hex")
    return bytes.fromhex(text)


def tagged(kind: str, *parts: bytes) -> bytes:
    """What hashes and signatures of the second version are over: what it is, a zero byte, and the parts."""
    return b"".join((f"wallet-checkpoint/v2/{kind}".encode(), b"\x00", *parts))


def tagged_hash(kind: str, *parts: bytes) -> bytes:
    return hashlib.sha256(tagged(kind, *parts)).digest()


def leaf_of(wallet_hash: bytes, head_hash: bytes) -> bytes:
    return tagged_hash("leaf", wallet_hash, head_hash)


def wallet_hash(wallet_id: str) -> bytes:
    return tagged_hash("wallet", wallet_id.encode("utf-8", "surrogatepass"))


def head_hash(head: Object) -> bytes:
    return tagged_hash("head", canonical({"seq": head["seq"], "head_hash": head["head_hash"]}))


def root_from(reached: bytes, inclusion: Object, wallet_id: str | None) -> bytes:
    """Where the audit path leads from a leaf's hash: RFC 9162, section 2.1.3.2, the algorithm for RFC 6962's trees.

    In a map, for which the wallet is named, each node also has the key that separates its halves: whoever looks for the
    wallet from the root has to come to this very leaf, so that there is no other one for it.
    """
    at, last = inclusion["leaf_index"], inclusion["tree_size"] - 1
    if not 0 <= at <= last:
        raise NotProvenError(f"leaf_index {at} is outside of a tree of {last + 1}")
    separators = inclusion["separators"] if wallet_id is not None else [None] * len(inclusion["path"])
    if len(separators) != len(inclusion["path"]):
        raise NotProvenError("the audit path has not one separator for each element")
    for one, separator in zip(inclusion["path"], separators, strict=True):
        sibling = from_hex(one, "an element of the path")
        if last == 0:
            raise NotProvenError("the audit path is too long for its tree")
        is_right = at % 2 == 1 or at == last
        halves = (sibling, reached) if is_right else (reached, sibling)
        if wallet_id is None:
            reached = hashlib.sha256(b"\x01" + b"".join(halves)).digest()
        else:
            reached = tagged_hash("node", *halves, _separating(separator, wallet_id, is_right=is_right))
        if is_right:
            while at % 2 == 0 and at != 0:
                at, last = at // 2, last // 2
        at, last = at // 2, last // 2
    if last != 0:
        raise NotProvenError("the audit path is too short for its tree")
    return reached


def _separating(separator: Any, wallet_id: str, *, is_right: bool) -> bytes:  # noqa: ANN401 as it was read
    """The key between two halves. Requires that the wallet belongs into the half that it is said to be in."""
    if not isinstance(separator, str):
        raise NotProvenError("a separator is no text")
    if (wallet_id >= separator) != is_right:
        raise NotProvenError("the leaf stands where its wallet can not be: the tree could have another one for it")
    return separator.encode("utf-8", "surrogatepass")


# ---- Entries


class Chain:
    """A wallet's entries, each from where the one before ended. What is None at the start, the first one may say."""

    def __init__(
        self,
        wallet_id: str,
        seq: int,
        head_hash: str | None,
        balance: tuple[int, int] | None = None,
        currency: str | None = None,
    ) -> None:
        self.wallet_id, self.seq, self.head_hash = wallet_id, seq, head_hash
        self.balance, self.currency = balance, currency
        self.user_id: str | None = None
        if seq == 0:
            self.head_hash, self.balance = GENESIS, (0, 0)

    def follow(self, value: Any) -> Object:  # noqa: ANN401 as it was read
        entry = shaped(value, _ENTRY, f"what should be entry {self.seq + 1}")
        if entry["seq"] != self.seq + 1:
            raise NotProvenError(f"entry {entry['seq']} stands where {self.seq + 1} should")
        said = f"entry {entry['seq']}"
        if entry["wallet_id"] != self.wallet_id:
            raise NotProvenError(f"{said} is of another wallet")
        for name in ("user_id", "currency"):
            if getattr(self, name) not in (None, entry[name]):
                raise NotProvenError(f"{said} has another {name} than its wallet")
        if self.head_hash not in (None, entry["prev_hash"]):
            raise NotProvenError(f"{said} does not follow the entry before: its prev_hash is another")
        from_hex(entry["prev_hash"], f"{said}: prev_hash")
        if entry_hash(entry) != entry["hash"]:
            raise NotProvenError(f"{said} was changed: its hash is another")
        _check_amounts(entry, self.balance, said)
        self.seq, self.head_hash = entry["seq"], entry["hash"]
        self.balance = entry["available_after"], entry["held_after"]
        self.user_id, self.currency = entry["user_id"], entry["currency"]
        return entry

    def follow_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.follow(value)

    def must_be_at(self, head: Object, what: str) -> None:
        if (self.seq, self.head_hash) != (head["seq"], head["head_hash"]):
            raise NotProvenError(
                f"the entries end at {self.seq} with another hash or place than {what} ({head['seq']})"
            )


def _check_amounts(entry: Object, balance: tuple[int, int] | None, said: str) -> None:
    before = entry["available_before"], entry["held_before"]
    after = entry["available_after"], entry["held_after"]
    if balance not in (None, before):
        raise NotProvenError(f"{said} starts at {before}, the balance before was {balance}")
    if entry["type"] not in _EFFECTS:
        raise NotProvenError(f"{said} is of the unknown type {entry['type']}")
    available, held, direction = _EFFECTS[entry["type"]]
    due = before[0] + available * entry["amount"], before[1] + held * entry["amount"]
    if entry["amount"] <= 0 or after != due or min(*before, *after) < 0 or entry["direction"] != direction:
        raise NotProvenError(f"{said}: {entry['type']} of {entry['amount']} does not lead from {before} to {after}")


# ---- Checkpoints


def check_checkpoint(value: Any, keys: Keys) -> Object:  # noqa: ANN401 as it was read
    """One checkpoint by itself: its signature."""
    is_first = isinstance(value, dict) and "version" not in value
    version = _version_of(value) if isinstance(value, dict) else 1
    is_known = is_first or version in (_MAPS, _AUDITED)
    shape = _CHECKPOINT_V1 if is_first else _CHECKPOINT if version == _AUDITED else _CHECKPOINT_V2
    # This release does not know which members a later version has.
    checkpoint = shaped(value, shape, "the checkpoint", is_open=not is_known)
    said = f"checkpoint {checkpoint['number']}"
    if not is_known:
        raise NotProvenError(f"{said} is of version {checkpoint['version']}, which this verifier does not know")
    key = keys.get(checkpoint["key_id"])
    if key is None:
        raise NotProvenError(f"{said} names the key {checkpoint['key_id']}, which is not among those given")
    unsigned = {name: member for name, member in checkpoint.items() if name != "signature"}
    try:
        content = canonical(unsigned)
        key.verify(_decoded(checkpoint["signature"]), content if is_first else tagged("signature", content))
    except (InvalidSignature, ValueError) as error:
        raise NotProvenError(f"the signature of {said} does not hold") from error
    return checkpoint


def _decoded(text: str) -> bytes:
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise ValueError("base64 in another spelling than the usual one")
    return content


def _version_of(checkpoint: Object) -> Any:  # noqa: ANN401 as it was read
    return checkpoint.get("version", 1)


def is_map(checkpoint: Object) -> bool:
    return "version" in checkpoint


def checkpoint_hash(checkpoint: Object) -> str:
    """What the next one names."""
    content = canonical(checkpoint)
    return hashlib.sha256(tagged("checkpoint", content) if is_map(checkpoint) else content).hexdigest()


def check_series(values: Iterable[Any], keys: Keys) -> list[Object]:
    """Checkpoints in any order: each signed, none missing from the first to the last, each linked to the one before."""
    by_number: dict[int, Object] = {}
    for checkpoint in (check_checkpoint(value, keys) for value in values):
        known = by_number.setdefault(checkpoint["number"], checkpoint)
        if known != checkpoint:
            raise NotProvenError(
                f"there are two different checkpoints {checkpoint['number']}, both signed: keep them, they are evidence"
            )
    series = [by_number[number] for number in sorted(by_number)]
    if not series:
        raise NotProvenError("there is no checkpoint in the files")
    number = series[0]["number"]
    if number < 1 or (number == 1) != (series[0]["prev_hash"] == GENESIS):
        raise NotProvenError(f"checkpoint {number} has a prev_hash that is not for its number")
    for before, checkpoint in pairwise(series):
        number = checkpoint["number"]
        follows = checkpoint["prev_hash"] == checkpoint_hash(before)
        # The signer leaves out the number of a forged one. The link shows that none is missing.
        if number != before["number"] + 1 and not follows:
            raise NotProvenError(f"checkpoint {before['number'] + 1} is missing")
        if not follows:
            raise NotProvenError(f"checkpoint {number} does not follow this checkpoint {before['number']}")
        if moment(checkpoint["created_at"]) < moment(before["created_at"]):
            raise NotProvenError(f"checkpoint {number} is older than the one before")
        if _version_of(checkpoint) < _version_of(before):
            versions = {1: "first", _MAPS: "second", _AUDITED: "third"}
            was, is_now = (versions[_version_of(one)] for one in (before, checkpoint))
            raise NotProvenError(f"checkpoint {number} is of the {is_now} version, the one before of the {was}")
    return series


def checkpoints_in(files: Iterable[Any]) -> list[Any]:
    """From pages of the list, from lists, and from single ones."""
    found: list[Any] = []
    for content in files:
        if isinstance(content, dict) and isinstance(content.get("data"), list):
            found += content["data"]
        elif isinstance(content, list):
            found += content
        else:
            found.append(content)
    return found


def _require_kept(checkpoint: Object, kept: Sequence[Object]) -> None:
    if kept and checkpoint not in kept:
        raise NotProvenError(f"checkpoint {checkpoint['number']} is not the one among your own checkpoints")


def check_sealed(proof: Object, keys: Keys, kept: Sequence[Object]) -> Object:
    """The leaf of a proof: in the tree of its checkpoint, which is signed, and among those that are `kept`, if any."""
    checkpoint = check_checkpoint(proof["checkpoint"], keys)
    _require_kept(checkpoint, kept)
    leaf = shaped(proof["leaf"], _LEAF, "the leaf")
    if is_map(checkpoint):
        hashed, wallet_id = leaf_of(wallet_hash(leaf["wallet_id"]), head_hash(leaf)), leaf["wallet_id"]
    else:
        hashed, wallet_id = hashlib.sha256(b"\x00" + canonical(leaf)).digest(), None
    _check_inclusion(checkpoint, proof["inclusion"], hashed, wallet_id)
    return leaf


def _check_inclusion(checkpoint: Object, value: Any, hashed: bytes, wallet_id: str | None) -> None:  # noqa: ANN401 as it was read
    inclusion = shaped(value, _INCLUSION_V1 if wallet_id is None else _INCLUSION, "the inclusion")
    if inclusion["tree_size"] != checkpoint["wallets"]:
        raise NotProvenError(f"the tree_size is not that of checkpoint {checkpoint['number']}")
    if root_from(hashed, inclusion, wallet_id) != from_hex(checkpoint["root"], "the root"):
        raise NotProvenError(f"the leaf is not in the tree of checkpoint {checkpoint['number']}")


def check_absence(value: Any, keys: Keys, kept: Sequence[Object] = ()) -> "Absent":  # noqa: ANN401 as it was read
    """That a map has no leaf for a wallet: at the only place where it could be stands another one's."""
    proof = shaped(value, _ABSENCE, "the proof")
    checkpoint = check_checkpoint(proof["checkpoint"], keys)
    _require_kept(checkpoint, kept)
    if not is_map(checkpoint):
        raise NotProvenError("a checkpoint of the first version can not show that a wallet is not in it")
    wallet_id = proof["wallet_id"]
    if checkpoint["wallets"] == 0:
        inclusion = shaped(proof["inclusion"], _INCLUSION, "the inclusion")
        if inclusion["tree_size"] != 0 or from_hex(checkpoint["root"], "the root") != tagged_hash("empty"):
            raise NotProvenError(f"checkpoint {checkpoint['number']} says that it has no wallets, its root is another")
    else:
        wallet, head = from_hex(proof["wallet_hash"], "wallet_hash"), from_hex(proof["head_hash"], "head_hash")
        if wallet == wallet_hash(wallet_id):
            raise NotProvenError("the leaf at the wallet's place is its own: it is there")
        _check_inclusion(checkpoint, proof["inclusion"], leaf_of(wallet, head), wallet_id)
    return Absent(f"wallet {wallet_id} is not under {_named(checkpoint)}", wallet_id, checkpoint)


# ---- Proofs


class Proof(NamedTuple):
    """One proof, put together from its pages; `line` says what it proves."""

    line: str
    leaf: Object
    checkpoint: Object
    entry: Object | None = None


class Absent(NamedTuple):
    """That a wallet was not under a checkpoint."""

    line: str
    wallet_id: str
    checkpoint: Object


def one_of_pages(pages: Sequence[Any], shape: Shape, list_name: str, changing: str | None = None) -> Object:
    """The pages of one proof as one: the same in all but its entries, and `changing`, which is the last page's."""

    def place(page: Object) -> int:
        first = page[list_name][0] if page[list_name] else None
        seq = first.get("seq") if isinstance(first, dict) else None
        return seq if isinstance(seq, int) else sys.maxsize

    read = sorted((shaped(page, shape, "the proof") for page in pages), key=place)
    last = read[-1]
    for page in read[:-1]:
        if any(page[name] != last[name] for name in shape if name not in (list_name, "has_more", changing)):
            raise NotProvenError("these are not pages of one proof")
    if last["has_more"]:
        raise NotProvenError("the proof goes on: get the next page with after_seq, and give it too")
    return {**last, list_name: [entry for page in read for entry in page[list_name]]}


class Since(NamedTuple):
    """What somebody has kept from before: a checkpoint and, if it came with one, where a wallet stood under it."""

    checkpoint: Object
    leaf: Object | None

    @classmethod
    def of(cls, value: Any, keys: Keys) -> "Since":  # noqa: ANN401 as it was read
        """From a checkpoint, from a proof, or from one page of a proof."""
        if isinstance(value, dict) and isinstance(value.get("leaf"), dict) and "inclusion" in value:
            leaf = check_sealed(value, keys, ())
            return cls(value["checkpoint"], leaf)
        if isinstance(value, dict) and isinstance(value.get("checkpoint"), dict):
            value = value["checkpoint"]
        return cls(check_checkpoint(value, keys), None)

    def must_come_before(self, checkpoint: Object, keys: Keys, kept: Sequence[Object]) -> None:
        """The checkpoint is the same, or follows from this one, link by link: that takes all of those between them."""
        first, last = self.checkpoint["number"], checkpoint["number"]
        if last < first:
            raise NotProvenError(f"checkpoint {last} is older than the one that you had, {first}")
        between = [one for one in kept if first <= one["number"] <= last]
        try:
            check_series([self.checkpoint, *between, checkpoint], keys)
        except NotProvenError as error:
            hint = f"to see that checkpoint {last} follows from {first}, give those between them with --checkpoints"
            raise NotProvenError(f"{error}; {hint}" if "missing" in str(error) else str(error)) from error

    def must_be_shorter_than(self, leaf: Object) -> None:
        """Requires that the chain has not become shorter. The entries between show that it is the same one."""
        if self.leaf is None:
            return
        if self.leaf["wallet_id"] != leaf["wallet_id"]:
            raise NotProvenError("what you had kept is of another wallet")
        if leaf["seq"] < self.leaf["seq"]:
            raise NotProvenError(
                f"wallet {leaf['wallet_id']} has become shorter: it stood at entry {self.leaf['seq']} under checkpoint "
                f"{self.checkpoint['number']}, and at {leaf['seq']} later: keep both proofs, they are evidence"
            )

    @property
    def named(self) -> str:
        return f"; it follows from checkpoint {self.checkpoint['number']}, which you had"


def check_wallet(pages: Sequence[Any], keys: Keys, kept: Sequence[Object] = (), since: Since | None = None) -> Proof:
    proof = one_of_pages(pages, _WALLET_PROOF, "entries", changing="head")
    leaf = check_sealed(proof, keys, kept)
    if leaf["wallet_id"] != proof["wallet_id"]:
        raise NotProvenError("the leaf is of another wallet")
    head = shaped(proof["head"], _HEAD, "the head")
    entries = proof["entries"]
    chain = _chain_to(leaf, entries, since)
    if since is not None:
        since.must_come_before(proof["checkpoint"], keys, kept)
    to_leaf = leaf["seq"] - chain.seq
    chain.follow_all(entries[:to_leaf])
    chain.must_be_at(leaf, "the leaf")
    chain.follow_all(entries[to_leaf:])
    chain.must_be_at(head, "the head")
    line = f"wallet {leaf['wallet_id']} stood at entry {leaf['seq']} under {_named(proof['checkpoint'])}"
    if since is not None:
        line += since.named
    if entries[to_leaf:]:
        line += f"; its head, entry {head['seq']}, follows from there, not signed yet"
    return Proof(line, leaf, proof["checkpoint"])


def _chain_to(leaf: Object, entries: Sequence[Any], since: Since | None) -> Chain:
    """Where the entries have to begin: at the leaf, or where the wallet stood when it was seen before."""
    first = entries[0].get("seq") if entries and isinstance(entries[0], dict) else None
    if since is not None and since.leaf is not None:
        since.must_be_shorter_than(leaf)
        start = Chain(leaf["wallet_id"], since.leaf["seq"], since.leaf["head_hash"])
        if start.seq < leaf["seq"] and first != start.seq + 1:
            raise NotProvenError(
                f"entries {start.seq + 1} to {leaf['seq']} are needed, from where you had seen the wallet: get the "
                f"proof with since={since.checkpoint['number']}"
            )
        if start.seq == leaf["seq"]:
            start.must_be_at(leaf, "the leaf")
        return start
    if isinstance(first, int) and 0 < first <= leaf["seq"]:
        return Chain(leaf["wallet_id"], first - 1, None)
    return Chain(leaf["wallet_id"], leaf["seq"], leaf["head_hash"])


def check_entry(pages: Sequence[Any], keys: Keys, kept: Sequence[Object] = (), since: Since | None = None) -> Proof:
    proof = one_of_pages(pages, _ENTRY_PROOF, "following")
    value = shaped(proof["entry"], _ENTRY, "the entry")
    chain = Chain(value["wallet_id"], value["seq"] - 1, _seen_at(value["wallet_id"], value["seq"] - 1, since))
    entry = chain.follow(value)
    for following in proof["following"]:
        _must_be_as_seen(chain, since)
        chain.follow(following)
    _must_be_as_seen(chain, since)
    if proof["checkpoint"] is None:
        raise NotProvenError(f"entry {entry['seq']} is under no checkpoint yet: get its proof again after the next one")
    if proof["head"] is not None:
        raise NotProvenError("the proof has a head beside its checkpoint")
    leaf = check_sealed(proof, keys, kept)
    if leaf["wallet_id"] != entry["wallet_id"]:
        raise NotProvenError("the leaf is of another wallet")
    chain.must_be_at(leaf, "the leaf")
    if since is not None:
        since.must_be_shorter_than(leaf)
        since.must_come_before(proof["checkpoint"], keys, kept)
    line = (
        f"entry {entry['seq']} of wallet {entry['wallet_id']}, {entry['type']} of {entry['amount']} minor units of "
        f"{entry['currency']}, stands as shown under {_named(proof['checkpoint'])}"
    )
    if since is not None:
        line += since.named
    return Proof(line, leaf, proof["checkpoint"], entry)


def _seen_at(wallet_id: str, seq: int, since: Since | None) -> str | None:
    """The hash that an entry right behind what was seen has to follow; None for any other."""
    leaf = None if since is None else since.leaf
    return leaf["head_hash"] if leaf is not None and (leaf["wallet_id"], leaf["seq"]) == (wallet_id, seq) else None


def _must_be_as_seen(chain: Chain, since: Since | None) -> None:
    if (
        since is not None
        and since.leaf is not None
        and (chain.wallet_id, chain.seq)
        == (
            since.leaf["wallet_id"],
            since.leaf["seq"],
        )
    ):
        chain.must_be_at(since.leaf, "what you had seen")


def _named(checkpoint: Object) -> str:
    return f"checkpoint {checkpoint['number']} of {checkpoint['created_at']}, signed by key {checkpoint['key_id']}"


def check_missing(pages: Sequence[Any], keys: Keys, kept: Sequence[Object] = (), since: Since | None = None) -> Absent:
    """That a wallet is not under a checkpoint. One that was there before has gone: nothing that is sound does that."""
    if len(pages) != 1:
        raise NotProvenError("one proof at a time")
    absent = check_absence(pages[0], keys, kept)
    if since is not None:
        since.must_come_before(absent.checkpoint, keys, kept)
        if since.leaf is not None and since.leaf["wallet_id"] == absent.wallet_id:
            raise NotProvenError(
                f"wallet {absent.wallet_id} has gone: it stood at entry {since.leaf['seq']} under checkpoint "
                f"{since.checkpoint['number']}: keep both proofs, they are evidence"
            )
        return absent._replace(line=absent.line + since.named)
    return absent


def check_checkpoints(files: Sequence[Any], keys: Keys, since: Since | None = None) -> str:
    series = check_series([*checkpoints_in(files), *([] if since is None else [since.checkpoint])], keys)
    first, last = series[0], series[-1]
    if since is not None and last == since.checkpoint and last not in checkpoints_in(files):
        raise NotProvenError(f"the series ends before the checkpoint that you had, {last['number']}")
    start = "" if first["number"] == 1 else " (what came before was not given)"
    return (
        f"checkpoints {first['number']} to {last['number']}{start} are signed, whole and linked, up to {_named(last)}"
    )


# ---- Statements


def check_statement(
    statement_value: Any,  # noqa: ANN401 as it was read
    pages: Sequence[Any],
    keys: Keys,
    kept: Sequence[Object] = (),
    since: Since | None = None,
) -> str:
    """The statement in itself and, with a proof, that what it ends with is under a checkpoint.

    That no entry between its last and the end of its time was left out, it cannot show.
    """
    # Open: what else a statement shows, names or totals, is not looked at and not claimed.
    statement = shaped(statement_value, _STATEMENT, "the statement", is_open=True)
    opening, closing = (_balance_in(statement, name) for name in ("opening", "closing"))
    parts = opening["available"], opening["held"]
    if opening["seq"] == 0 and parts != (0, 0):
        raise NotProvenError("a wallet without entries has nothing, the opening balance is not nothing")
    seen = _seen_at(statement["wallet_id"], opening["seq"], since)
    chain = Chain(statement["wallet_id"], opening["seq"], seen, parts, statement["currency"])
    for row in statement["rows"]:
        _check_time(chain.follow(_entry_of(row, chain)), statement)
        _must_be_as_seen(chain, since)
    if (chain.seq, chain.balance) != (closing["seq"], (closing["available"], closing["held"])):
        raise NotProvenError(f"the rows end at entry {chain.seq} with {chain.balance}, the closing balance is another")
    span = f"{len(statement['rows'])} rows, entries {opening['seq'] + 1} to {closing['seq']}"
    line = f"the statement of wallet {statement['wallet_id']} is consistent in itself ({span})"
    if not pages:
        return f"{line}; without a proof as second file, nothing ties it to a checkpoint"
    return f"{line}, and {_check_closing(statement, chain, pages, keys, kept, since)}"


def _check_closing(
    statement: Object,
    chain: Chain,
    pages: Sequence[Any],
    keys: Keys,
    kept: Sequence[Object],
    since: Since | None,
) -> str:
    is_of_entry = isinstance(pages[0], dict) and "entry" in pages[0]
    proof = (check_entry if is_of_entry else check_wallet)(pages, keys, kept, since)
    if proof.leaf["wallet_id"] != statement["wallet_id"]:
        raise NotProvenError("the proof is of another wallet")
    if proof.entry is not None:
        entry = proof.entry
        closing_hash = chain.head_hash if statement["rows"] else entry["hash"]
        after = entry["available_after"], entry["held_after"]
        found = entry["seq"], entry["hash"], after, entry["currency"]
        if found != (chain.seq, closing_hash, chain.balance, statement["currency"]):
            raise NotProvenError(f"the proof is of entry {entry['seq']}, not of this statement's last, {chain.seq}")
    elif proof.leaf["seq"] != chain.seq:
        raise NotProvenError(
            f"the checkpoint saw the wallet at entry {proof.leaf['seq']}, the statement ends at {chain.seq}: "
            f"get the proof of that entry, after the next checkpoint if need be"
        )
    elif not statement["rows"] and chain.seq > 0:
        raise NotProvenError(
            f"without rows a wallet's proof says nothing of balances: get the proof of entry {chain.seq}"
        )
    elif proof.leaf["head_hash"] != chain.head_hash:
        raise NotProvenError("the statement ends with another entry than the checkpoint saw")
    return proof.line


def _entry_of(row: Any, chain: Chain) -> Any:  # noqa: ANN401 as it was read
    """The row without what a statement adds to the entry, which has to be what the entry makes."""
    if not isinstance(row, dict):
        return row
    entry = {name: value for name, value in row.items() if name not in _ADDED}
    amounts: list[Any] = [entry.get(f"{part}_{when}") for when in ("before", "after") for part in ("available", "held")]
    if not all(isinstance(amount, int) for amount in amounts):
        # The chain says what is wrong with it.
        return entry
    before, after = sum(amounts[:2]), sum(amounts[2:])
    said = row.get("change"), row.get("balance")
    if said != (after - before, after):
        raise NotProvenError(f"entry {chain.seq + 1}: its change or balance in the statement is not what it made")
    return entry


def _balance_in(statement: Object, name: str) -> Object:
    balance = shaped(statement[name], _BALANCE, f"the {name} balance", is_open=True)
    if balance["available"] + balance["held"] != balance["balance"] or min(balance[part] for part in _BALANCE) < 0:
        raise NotProvenError(f"the {name} balance does not add up")
    return balance


def _check_time(entry: Object, statement: Object) -> None:
    at = moment(entry["created_at"])
    start, end = statement["from"], statement["to"]
    if (start is not None and at < moment(start)) or (end is not None and at >= moment(end)):
        raise NotProvenError(f"entry {entry['seq']} is of {entry['created_at']}, outside of the statement's time")


def moment(text: str) -> datetime:
    """RFC 3339; a day alone is its first moment in UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise NotProvenError(f"{text} is no time") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


# ---- The command


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        keys = read_keys(options.key) if options.key else {}
        kept = check_series(checkpoints_in(map(read_json, options.checkpoints)), keys) if options.checkpoints else []
        since = Since.of(read_json(options.since), keys) if options.since else None
        line = options.check([read_json(path) for path in options.files], keys, kept, since)
    except NotProvenError as error:
        print(f"NOT PROVEN: {error}", file=sys.stderr)
        return NOT_PROVEN
    except UnreadableError as error:
        print(f"could not look: {error}", file=sys.stderr)
        return COULD_NOT_LOOK
    print(f"proven: {line}")
    return PROVEN


Check = Callable[[Sequence[Any], Keys, Sequence[Object], Since | None], str]
_CHECKS: Final[Mapping[str, tuple[str, str, Check]]] = {
    "entry": (
        "an entry: GET /wallets/{id}/transactions/{entry_id}/proof",
        "the proof; all its pages where it has several",
        lambda files, keys, kept, since: check_entry(files, keys, kept, since).line,
    ),
    "wallet": (
        "a wallet's head: GET /wallets/{id}/proof",
        "the proof; all its pages where it has several",
        lambda files, keys, kept, since: check_wallet(files, keys, kept, since).line,
    ),
    "absence": (
        "that a checkpoint saw no such wallet: GET /wallets/{id}/absence-proof",
        "the proof",
        lambda files, keys, kept, since: check_missing(files, keys, kept, since).line,
    ),
    "statement": (
        "a statement: GET /wallets/{id}/statement?format=json",
        "the statement, then the proof of its last entry, or of its wallet, if that has not moved since",
        lambda files, keys, kept, since: check_statement(files[0], files[1:], keys, kept, since),
    ),
    "checkpoints": (
        "a series of checkpoints: GET /checkpoints, page by page",
        "pages of the list, or single checkpoints, in any order",
        lambda files, keys, kept, since: check_checkpoints([*files, *kept], keys, since),
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verify_proof", description="Check what the wallet service says about its ledger, without it."
    )
    commands = parser.add_subparsers(required=True, metavar="|".join(_CHECKS))
    for name, (summary, files, check) in _CHECKS.items():
        command = commands.add_parser(name, help=summary, description=f"Check {summary}")
        command.add_argument("files", nargs="+", type=Path, metavar="FILE", help=files)
        command.add_argument(
            "--key",
            required=name != "statement",
            type=Path,
            help="the public key: what GET /checkpoints/keys answered when you began to trust it, or a PEM file",
        )
        command.add_argument(
            "--checkpoints",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            help="checkpoints that you have kept yourself: the proof's has to be one of them",
        )
        command.add_argument(
            "--since",
            type=Path,
            metavar="FILE",
            help="a checkpoint or a proof that you have kept: what is checked has to follow from it",
        )
        command.set_defaults(check=check)
    return parser


if __name__ == "__main__":
    sys.exit(main())
