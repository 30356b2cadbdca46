"""Merkle trees against the recursive definition of RFC 6962 and against known values; maps against forgers."""

import hashlib
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.verify_proof import NotProvenError, root_from
from service.domain.merkle import (
    audit_path,
    leaf_hash,
    map_path,
    map_root,
    node_hash,
    root_of,
    separator_of,
    tagged,
    tagged_hash,
)

LEAVES = [bytes.fromhex(leaf) for leaf in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
# The roots over the first one, two, … of these leaves: the test data of the Certificate Transparency projects.
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = st.integers(1, 300)


def split_of(size: int) -> int:
    """The largest power of two below the size: the RFC's k."""
    return 1 << ((size - 1).bit_length() - 1)


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of section 2.1, letter by letter."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split_of(len(leaves))
    return hashlib.sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def defined_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.1, letter by letter."""
    if len(leaves) == 1:
        return []
    k = split_of(len(leaves))
    if index < k:
        return [*defined_path(index, leaves[:k]), defined_root(leaves[k:])]
    return [*defined_path(index - k, leaves[k:]), defined_root(leaves[:k])]


def numbered(size: int) -> list[bytes]:
    return [str(number).encode() for number in range(size)]


class TestTheRoot:
    @pytest.mark.parametrize("size", range(1, len(LEAVES) + 1))
    def test_is_the_known_one(self, size: int) -> None:
        assert root_of([leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == KNOWN_ROOTS[size - 1]

    def test_of_no_leaves_is_the_hash_of_nothing(self) -> None:
        assert root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    @given(SIZES)
    def test_is_what_the_definition_says(self, size: int) -> None:
        leaves = numbered(size)
        assert root_of([leaf_hash(leaf) for leaf in leaves]) == defined_root(leaves)

    @given(SIZES, st.integers(0, 6))
    def test_over_aligned_pieces_is_the_root_over_all(self, size: int, power: int) -> None:
        hashes = [leaf_hash(leaf) for leaf in numbered(size)]
        pieces = [hashes[at : at + 2**power] for at in range(0, size, 2**power)]
        assert root_of([root_of(piece) for piece in pieces]) == root_of(hashes)

    def test_a_leaf_is_never_taken_for_a_node(self) -> None:
        left, right = leaf_hash(b"a"), leaf_hash(b"b")
        assert leaf_hash(left + right) != node_hash(left, right)


class TestTheAuditPath:
    @given(st.data())
    def test_is_what_the_definition_says(self, data: st.DataObject) -> None:
        leaves = numbered(data.draw(SIZES))
        index = data.draw(st.integers(0, len(leaves) - 1))
        assert audit_path(index, [leaf_hash(leaf) for leaf in leaves]) == defined_path(index, leaves)

    @given(st.data())
    def test_goes_on_from_within_a_piece_to_the_pieces(self, data: st.DataObject) -> None:
        hashes = [leaf_hash(leaf) for leaf in numbered(data.draw(SIZES))]
        index = data.draw(st.integers(0, len(hashes) - 1))
        pieces = [hashes[at : at + 8] for at in range(0, len(hashes), 8)]
        within = audit_path(index % 8, pieces[index // 8])
        above = audit_path(index // 8, [root_of(piece) for piece in pieces])
        assert within + above == audit_path(index, hashes)

    @pytest.mark.parametrize("index", [-1, 3])
    def test_of_a_leaf_that_is_not_there_is_refused(self, index: int) -> None:
        with pytest.raises(IndexError):
            audit_path(index, [leaf_hash(leaf) for leaf in numbered(3)])


KEYS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=24)


def hashes_of(keys: list[str]) -> list[bytes]:
    """Each another one: two leaves of one key say different things."""
    return [tagged_hash("leaf", str(at).encode(), key.encode()) for at, key in enumerate(keys)]


def separators_of(keys: list[str]) -> list[str]:
    return [separator_of(one, other) for one, other in pairwise(keys)]


def defined_map(hashes: list[bytes], separators: list[str]) -> bytes:
    """As the root of RFC 6962, with what separates the parts in each node."""
    if len(hashes) == 1:
        return hashes[0]
    k = split_of(len(hashes))
    left, right = defined_map(hashes[:k], separators[: k - 1]), defined_map(hashes[k:], separators[k:])
    return hashlib.sha256(b"wallet-checkpoint/v2/node\x00" + left + right + separators[k - 1].encode()).digest()


def leads_to(root: bytes, at: int, key: str, hashes: list[bytes], between: list[str], **changed: Any) -> bool:
    """Whether the verifier believes that the key's only leaf is the one at that place."""
    path = map_path(at, hashes, between)
    inclusion = {
        "leaf_index": at,
        "tree_size": len(hashes),
        "path": [branch.hash.hex() for branch in path],
        "separators": [branch.separator for branch in path],
    }
    try:
        return root_from(hashes[at], inclusion | changed, key) == root
    except NotProvenError:
        return False


class TestTheMap:
    @given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=60))
    def test_has_the_root_of_the_definition_and_a_path_to_each_leaf(self, keys: set[str]) -> None:
        ordered = sorted(keys)
        hashes, separators = hashes_of(ordered), separators_of(ordered)
        root = map_root(hashes, separators)
        assert root == defined_map(hashes, separators)
        assert all(leads_to(root, at, key, hashes, separators) for at, key in enumerate(ordered))

    @given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=60), st.integers(0, 4))
    def test_over_aligned_pieces_is_the_map_over_all(self, keys: set[str], power: int) -> None:
        ordered, size = sorted(keys), 2**power
        hashes, separators = hashes_of(ordered), separators_of(ordered)
        starts = range(0, len(ordered), size)
        pieces = [map_root(hashes[at : at + size], separators[at : at + size - 1]) for at in starts]
        assert map_root(pieces, separators[size - 1 :: size]) == map_root(hashes, separators)

    @given(KEYS, st.data())
    def test_proves_one_leaf_of_a_key_at_most_however_it_was_forged(self, keys: list[str], data: st.DataObject) -> None:
        """Keys in any order and as often as somebody likes, separated by whatever they like."""
        separators = [data.draw(st.text("abc", max_size=3)) for _ in keys[1:]]
        hashes = hashes_of(keys)
        root = map_root(hashes, separators)
        proven = Counter(key for at, key in enumerate(keys) if leads_to(root, at, key, hashes, separators))
        assert max(proven.values(), default=0) <= 1

    @given(KEYS, st.text("abc", min_size=1, max_size=4), st.data())
    def test_shows_a_key_to_be_there_or_not_to_be_there_but_never_both(
        self, keys: list[str], wanted: str, data: st.DataObject
    ) -> None:
        separators = [data.draw(st.text("abc", max_size=3)) for _ in keys[1:]]
        hashes = hashes_of(keys)
        root = map_root(hashes, separators)
        places = [at for at in range(len(keys)) if leads_to(root, at, wanted, hashes, separators)]
        # The leaf that the search for it comes to is the only one that says anything about it.
        assert len(places) == 1

    @given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=40), st.data())
    def test_believes_no_other_place_size_or_separator(self, keys: set[str], data: st.DataObject) -> None:
        ordered = sorted(keys)
        hashes, separators = hashes_of(ordered), separators_of(ordered)
        root, at = map_root(hashes, separators), data.draw(st.integers(0, len(ordered) - 1))
        other = data.draw(st.integers(0, len(ordered) - 1).filter(lambda place: place != at))
        assert not leads_to(root, at, ordered[other], hashes, separators)
        assert not leads_to(root, at, ordered[at], hashes, separators, separators=[])
        branches = map_path(at, hashes, separators)
        longer = [f"{branches[0].separator}a", *(branch.separator for branch in branches[1:])]
        assert not leads_to(root, at, ordered[at], hashes, separators, separators=longer)

    def test_with_the_last_leaf_twice_is_another_one(self) -> None:
        hashes = hashes_of(["a", "b", "c"])
        assert map_root(hashes, ["b", "c"]) != map_root([*hashes, hashes[-1]], ["b", "c", "c"])

    def test_of_no_leaves_has_a_root_of_its_own(self) -> None:
        assert map_root([], []) == tagged_hash("empty") != root_of([])

    def test_takes_no_kind_of_hash_for_another(self) -> None:
        left, right = hashes_of(["a", "b"])
        kinds = ("leaf", "node", "wallet", "head", "checkpoint", "signature", "empty")
        assert len({tagged(kind, left, right) for kind in kinds}) == len(kinds)
        assert map_root([left, right], [""]) != tagged_hash("leaf", left, right)

    @pytest.mark.parametrize("index", [-1, 3])
    def test_has_no_path_to_a_leaf_that_is_not_there(self, index: int) -> None:
        with pytest.raises(IndexError):
            map_path(index, hashes_of(["a", "b", "c"]), ["b", "c"])

    @given(st.text(max_size=6), st.text(max_size=6))
    def test_separates_keys_by_as_little_as_it_takes(self, one: str, other: str) -> None:
        before, after = sorted((one, other))
        if before == after:
            with pytest.raises(AssertionError):
                separator_of(before, after)
            return
        separator = separator_of(before, after)
        assert before < separator <= after
        assert after.startswith(separator)
        assert separator[:-1] <= before
