"""Merkle trees as in RFC 6962, section 2.1: one hash for many leaves, and the short way from a leaf to it.

`root_of` and `audit_path` are those of the first version. The second version is a *map*: leaves are sorted by key, each
inner node also hashes the key that separates its two halves, and so one path alone proves that no other leaf has the
key. Whoever looks for the key from the root has to turn left where it is less than the separator, and right otherwise;
of two leaves with one key, one would stand on the wrong side of the node above both of them.

Everything works on hashes already taken, so that whole subtrees may stand where leaves do: cut into aligned pieces of a
power of two, the root of the pieces' roots is the root of all.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

# A leaf can never be taken for an inner node: they are hashed with different first bytes.
_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(content: bytes) -> bytes:
    return hashlib.sha256(_LEAF + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Returns the Merkle Tree Hash over these leaves' hashes; of no leaves, the hash of nothing."""
    if not hashes:
        return hashlib.sha256().digest()
    level = list(hashes)
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


def audit_path(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """Returns what a leaf has to be hashed together with to come to the root, the nearest first (section 2.1.1)."""
    if not 0 <= index < len(hashes):
        raise IndexError(f"no leaf {index} among {len(hashes)}")
    path = []
    level = list(hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = _level_above(level)
        index //= 2
    return path


def _level_above(level: Sequence[bytes]) -> list[bytes]:
    """Pairs joined. One that is left over at the end goes up as it is, which is how the RFC's split works out."""
    above = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return above if len(level) % 2 == 0 else [*above, level[-1]]


# Each hash of the second version begins with what it is of: none can be taken for another, nor for one of the first.
_TAG = "wallet-checkpoint/v2/"


def tagged(kind: str, *parts: bytes) -> bytes:
    """Returns the kind's tag, a zero byte, and the parts, of which only the last may be of any length."""
    return _tag_of(kind) + b"".join(parts)


@cache
def _tag_of(kind: str) -> bytes:
    return f"{_TAG}{kind}".encode() + b"\x00"


def tagged_hash(kind: str, *parts: bytes) -> bytes:
    return hashlib.sha256(tagged(kind, *parts)).digest()


class Branch(NamedTuple):
    """One step of a path in a map: the hash of the other half, and the key that separates the two."""

    hash: bytes
    separator: str


def separator_of(before: str, after: str) -> str:
    """The shortest text that separates two keys: greater than the one before, and not greater than the one after. It
    says as little as possible about whose they are.
    """
    assert before < after, f"{before} and {after} are not in order"  # noqa: S101 a tree out of order proves nothing
    at = next(at for at, letter in enumerate(after) if before[at : at + 1] != letter)
    return after[: at + 1]


def map_root(hashes: Sequence[bytes], separators: Sequence[str]) -> bytes:
    """`separators` stand between the leaves: one fewer than there are. Of no leaves, the hash of an empty map."""
    if not hashes:
        return tagged_hash("empty")
    level, between = list(hashes), list(separators)
    while len(level) > 1:
        level, between = _map_level_above(level, between)
    return level[0]


def map_path(index: int, hashes: Sequence[bytes], separators: Sequence[str]) -> list[Branch]:
    """From a leaf to the root, the nearest first. Which half the other one is, the leaf's place says."""
    if not 0 <= index < len(hashes):
        raise IndexError(f"no leaf {index} among {len(hashes)}")
    path = []
    level, between = list(hashes), list(separators)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(Branch(level[sibling], between[min(index, sibling)]))
        level, between = _map_level_above(level, between)
        index //= 2
    return path


def _map_level_above(level: Sequence[bytes], between: Sequence[str]) -> tuple[list[bytes], list[str]]:
    above = [tagged_hash("node", level[at], level[at + 1], between[at].encode()) for at in range(0, len(level) - 1, 2)]
    # What separated pairs now separates nodes.
    return (above if len(level) % 2 == 0 else [*above, level[-1]]), list(between[1::2])
