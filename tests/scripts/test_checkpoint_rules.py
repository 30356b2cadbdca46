"""Rules of check-ledger for checkpoints that a small ledger does not reach: trees of several tiles."""

from collections.abc import Mapping
from typing import Any

from scripts.checkpoint_rules import TILE_LEAVES, Leaves, _map_root, _root, check_tile
from service.domain.checkpoints import LISTS, MAPS, Leaf, make_tile, name_tile, tree_root
from service.domain.entries import GENESIS_HASH

Row = dict[str, Any]


def leaf_rows(start: int, end: int) -> list[Row]:
    return [{"wallet_id": f"wal_{at:032x}", "seq": 0, "head_hash": GENESIS_HASH} for at in range(start, end)]


def breaches_of(tiles: list[list[Row]], known: Mapping[tuple[str, int], str]) -> list[tuple[str, str]]:
    names = [{"id": "x", "first_wallet_id": tile[0]["wallet_id"]} for tile in tiles]
    tree = Leaves({"_id": 7, "tiles": names, "wallets": sum(map(len, tiles))})
    found = [breach for at, tile in enumerate(tiles) for breach in tree.follow(at, tile, known)]
    return [(breach.rule, breach.detail) for breach in [*found, *tree.end()]]


_KNOWN = {(f"wal_{at:032x}", 0): GENESIS_HASH for at in range(3 * TILE_LEAVES)}


class TestATreeOfSeveralTiles:
    def test_is_sound_where_all_tiles_but_the_last_are_full(self) -> None:
        tiles = [leaf_rows(0, 256), leaf_rows(256, 512), leaf_rows(512, 600)]
        assert breaches_of(tiles, _KNOWN) == []

    def test_has_no_room_within(self) -> None:
        tiles = [leaf_rows(0, 256), leaf_rows(256, 511), leaf_rows(511, 600)]
        assert breaches_of(tiles, _KNOWN) == [("checkpoint_tree", "tile 1 is not full, and not the last")]

    def test_goes_up_from_tile_to_tile(self) -> None:
        tiles = [leaf_rows(256, 512), leaf_rows(0, 256)]
        ((rule, detail),) = breaches_of(tiles, _KNOWN)
        assert (rule, detail) == ("checkpoint_tree", f"wal_{0:032x} stands after wal_{511:032x}")

    def test_has_leaves_that_are_somebodys(self) -> None:
        rest = {key: value for key, value in _KNOWN.items() if key[0] != f"wal_{300:032x}"}
        ((rule, _),) = breaches_of([leaf_rows(0, 256), leaf_rows(256, 512)], rest)
        assert rule == "checkpoint_leaf"

    def test_has_the_root_that_the_service_computes(self) -> None:
        for size in (0, 1, 255, 256, 257, 700):
            leaves = [Leaf(**row) for row in leaf_rows(0, size)]
            for version in (LISTS, MAPS):
                starts = range(0, size, TILE_LEAVES)
                tiles = [make_tile(leaves[at : at + TILE_LEAVES], version) for at in starts]
                names = [name_tile(tile, tiles[at - 1] if at else None) for at, tile in enumerate(tiles)]
                roots = [bytes.fromhex(name.id) for name in names]
                separators = [name.separator or "" for name in names[1:]]
                root = _root(roots) if version == LISTS else _map_root(roots, separators)
                assert root.hex() == tree_root(names, version)

    def test_names_each_tile_as_its_leaves_make_it(self) -> None:
        for version in (LISTS, MAPS):
            tile = make_tile([Leaf(**row) for row in leaf_rows(0, 7)], version)
            columns = {
                "wallet_ids": [leaf.wallet_id for leaf in tile.leaves],
                "seqs": [leaf.seq for leaf in tile.leaves],
                "head_hashes": b"".join(bytes.fromhex(leaf.head_hash) for leaf in tile.leaves),
            }
            assert list(check_tile(tile.id, [1], [{"_id": tile.id, **columns}])) == []

    def test_is_separated_where_one_tile_ends_and_the_next_begins(self) -> None:
        tiles = [leaf_rows(0, 256), leaf_rows(256, 512)]
        first, second = (tile[0]["wallet_id"] for tile in tiles)
        for separator, is_sound in ((second, True), (first, False), (f"{second}0", False)):
            names = [{"id": "x", "first_wallet_id": first}]
            names.append({"id": "y", "first_wallet_id": second, "separator": separator})
            tree = Leaves({"_id": 7, "tiles": names, "wallets": 512})
            found = [breach.detail for at, tile in enumerate(tiles) for breach in tree.follow(at, tile, _KNOWN)]
            assert found == ([] if is_sound else ["tile 1 is not separated from the one before"])
