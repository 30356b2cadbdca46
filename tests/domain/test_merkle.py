"""Merkle trees against the recursive definition of RFC 6962 and against known values."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.merkle import audit_path, leaf_hash, node_hash, root_of

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
