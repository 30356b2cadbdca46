"""Checkpoints as values: numbers, links, times, signatures, tiles."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.domain.checkpoints import (
    LISTS,
    MAPS,
    NO_CHECKPOINT_HASH,
    Leaf,
    TileName,
    canonical_json,
    checkpoint_hash,
    checkpoint_view,
    make_checkpoint,
    make_tile,
    place_among,
    place_within,
)
from service.domain.merkle import tagged

_KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
_NOW = datetime(2026, 2, 24, 12, 0, 0, 123_000, tzinfo=UTC)
_LEAVES = [Leaf(f"wal_{name}", number, f"{number:064x}") for number, name in enumerate("bdf")]
_TILE = make_tile(_LEAVES)
_NAMES = [TileName(_TILE.id, "wal_b")]


class TestTheSeries:
    def test_starts_with_one_and_links_each_to_the_one_before(self) -> None:
        first = make_checkpoint(None, _NAMES, 3, _NOW, _KEY)
        second = make_checkpoint(first, _NAMES, 3, _NOW + timedelta(hours=1), _KEY)
        assert (first.number, first.prev_hash) == (1, NO_CHECKPOINT_HASH)
        assert (second.number, second.prev_hash) == (2, checkpoint_hash(first))
        assert first.root == _TILE.id

    def test_never_runs_backwards_in_time(self) -> None:
        first = make_checkpoint(None, _NAMES, 3, _NOW, _KEY)
        assert make_checkpoint(first, _NAMES, 3, _NOW - timedelta(seconds=5), _KEY).created_at == _NOW

    def test_is_signed_over_what_is_published(self) -> None:
        view = checkpoint_view(make_checkpoint(None, _NAMES, 3, _NOW, _KEY))
        signature = base64.b64decode(view.pop("signature"))
        assert view["created_at"] == "2026-02-24T12:00:00.123Z"
        assert view["version"] == MAPS
        _KEY.public_key().verify(signature, tagged("signature", canonical_json(view)))
        with pytest.raises(InvalidSignature):
            _KEY.public_key().verify(signature, tagged("signature", canonical_json(view | {"wallets": 4})))

    def test_was_signed_without_a_tag_and_a_version_before(self) -> None:
        view = checkpoint_view(make_checkpoint(None, _NAMES, 3, _NOW, _KEY, LISTS))
        signature = base64.b64decode(view.pop("signature"))
        assert "version" not in view
        _KEY.public_key().verify(signature, canonical_json(view))

    def test_a_checkpoints_hash_seals_its_signature_too(self) -> None:
        first = make_checkpoint(None, _NAMES, 3, _NOW, _KEY)
        assert checkpoint_hash(first) != checkpoint_hash(first._replace(signature="another"))


class TestTiles:
    @pytest.mark.parametrize(
        "changed",
        [
            _LEAVES[:2],
            [*_LEAVES[:2], _LEAVES[2]._replace(seq=9)],
            [*_LEAVES[:2], _LEAVES[2]._replace(head_hash="a" * 64)],
            [*_LEAVES[:2], _LEAVES[2]._replace(wallet_id="wal_g")],
        ],
    )
    def test_are_called_after_their_content(self, changed: list[Leaf]) -> None:
        assert make_tile(changed).id != _TILE.id
        assert make_tile(list(_LEAVES)) == _TILE
        assert make_tile(_LEAVES, LISTS).id != _TILE.id

    def test_are_not_made_of_leaves_out_of_order_or_twice(self) -> None:
        for leaves in (_LEAVES[::-1], [*_LEAVES, _LEAVES[-1]]):
            with pytest.raises(AssertionError):
                make_tile(leaves)

    @pytest.mark.parametrize(
        ("wallet_id", "among", "within"),
        [
            ("wal_a", None, None),
            ("wal_b", 0, 0),
            ("wal_c", 0, None),
            ("wal_f", 0, 2),
            ("wal_g", 0, None),
            ("wal_m", 1, None),
        ],
    )
    def test_tell_where_a_wallet_is(self, wallet_id: str, among: int | None, within: int | None) -> None:
        assert place_among([*_NAMES, TileName("x", "wal_m")], wallet_id) == among
        assert place_within(_TILE, wallet_id) == within
