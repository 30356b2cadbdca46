"""Merkle trees as in RFC 6962, section 2.1: one hash for many leaves, and the short way from a leaf to it.

Everything works on hashes already taken, so that whole subtrees may stand where leaves do: cut into aligned pieces of a
power of two, the root of the pieces' roots is the root of all.
"""

import hashlib
from collections.abc import Sequence

# A leaf can never be taken for an inner node: they are hashed with different first bytes.
_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(content: bytes) -> bytes:
    return hashlib.sha256(_LEAF + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash over these leaves' hashes; of no leaves, the hash of nothing."""
    if not hashes:
        return hashlib.sha256().digest()
    level = list(hashes)
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


def audit_path(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """What a leaf has to be hashed together with to come to the root, the nearest first (section 2.1.1)."""
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
