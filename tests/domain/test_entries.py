"""Movements of a wallet, what makes one impossible, and the hash that seals it."""

import json
from hashlib import sha256
from typing import Any

import pytest

from service.domain.entries import GENESIS_HASH, EntryType, entry_hash
from service.domain.events import status_of
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.wallets import ImpossibleMovement, Movement, Wallet, WalletStatus, apply_movement, new_wallet
from tests.records import at, build_transfer, build_voucher, build_wallet, shown


def _movement(entry_type: EntryType, amount: int, category: str | None = "rent") -> Movement:
    return Movement("wal_asha", entry_type, amount, "held", "hld_1", "txn_1", "bank", "ent_1", at(5), category)


class TestTheHash:
    @pytest.mark.parametrize("category", ["rent", "Miete für März", None])
    def test_is_of_all_fields_in_order_as_json(self, category: str | None) -> None:
        """As README tells others to compute it."""
        _, entry = apply_movement(build_wallet(), _movement(EntryType.HOLD, 50, category))
        fields: dict[str, Any] = {
            "available_after": 650,
            "available_before": 700,
            "amount": 50,
            "category": category,
            "counterparty": "bank",
            "created_at": shown(5),
            "currency": "INR",
            "direction": "debit",
            "held_after": 80,
            "held_before": 30,
            "id": "ent_1",
            "prev_hash": "0" * 64,
            "reference": "hld_1",
            "seq": 5,
            "status": "held",
            "transaction_id": "txn_1",
            "type": "HOLD",
            "user_id": "usr_asha",
            "wallet_id": "wal_asha",
        }
        if category is None:
            del fields["category"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert entry.hash == entry_hash(entry) == sha256(text.encode()).hexdigest()

    def test_is_not_of_itself(self) -> None:
        _, entry = apply_movement(build_wallet(), _movement(EntryType.HOLD, 50))
        assert entry_hash(entry._replace(hash="another")) == entry.hash


class TestAMovement:
    @pytest.mark.parametrize(
        ("entry_type", "amount"),
        [
            (EntryType.DEBIT, 700),
            (EntryType.HOLD, 700),
            (EntryType.HOLD_RELEASE, 30),
            (EntryType.HOLD_CAPTURE, 30),
            (EntryType.CREDIT, MAX_AMOUNT_MINOR - 730),
            (EntryType.CREDIT, 1),
        ],
    )
    def test_may_take_and_bring_all_there_is_room_for(self, entry_type: EntryType, amount: int) -> None:
        _, entry = apply_movement(build_wallet(), _movement(entry_type, amount))
        assert entry.amount == amount

    @pytest.mark.parametrize(
        ("entry_type", "amount"),
        [
            (EntryType.DEBIT, 701),
            (EntryType.HOLD, 701),
            (EntryType.HOLD_RELEASE, 31),
            (EntryType.HOLD_CAPTURE, 31),
            (EntryType.CREDIT, MAX_AMOUNT_MINOR - 729),
            (EntryType.CREDIT, 0),
            (EntryType.CREDIT, -1),
            (EntryType.DEBIT, -1),
        ],
    )
    def test_is_impossible_beyond_it(self, entry_type: EntryType, amount: int) -> None:
        with pytest.raises(ImpossibleMovement, match=rf"^{entry_type} of {amount} on wal_asha at seq 4$"):
            apply_movement(build_wallet(), _movement(entry_type, amount))


def test_not_every_record_has_a_status() -> None:
    assert status_of(build_transfer()) == "success"
    assert status_of(build_voucher()) is None


def test_a_new_wallet_is_empty_and_in_its_owners_zone() -> None:
    wallet = new_wallet("wal_1", "usr_1", "INR", at(1), "Asia/Tokyo")
    assert wallet == Wallet(
        id="wal_1",
        user_id="usr_1",
        currency="INR",
        available=0,
        held=0,
        status=WalletStatus.ACTIVE,
        seq=0,
        head_hash=GENESIS_HASH,
        created_at=at(1),
        updated_at=at(1),
        owner_time_zone="Asia/Tokyo",
    )
    assert new_wallet("wal_1", "usr_1", "INR", at(1)).owner_time_zone is None
