"""The kernel's own assertions: balances change by movements alone, and each wallet's entries explain its new state."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.idempotency import IdempotencyClaim
from service.domain.policy import Policy
from service.domain.sealed import Sealed
from service.domain.wallets import Wallet, new_wallet
from service.ledger.batch import Batch, Draft, Loaded
from service.ledger.commands import Changes, State
from service.ledger.orders import RequestWithdrawal

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_ADA = new_wallet("wal_ada", "usr_ada", "INR", _NOW)._replace(available=5_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Distorted(RequestWithdrawal):
    """A rule with a defect: it returns the wallet otherwise than it found it."""

    distort: Callable[[Wallet], Wallet]

    def decide(self, state: State) -> Changes:
        changes = RequestWithdrawal.decide(self, state)
        return Changes(
            changes.record,
            movements=changes.movements,
            wallets=tuple(self.distort(wallet) for wallet in changes.wallets),
            answer=changes.answer,
        )


def withdrawal(number: int = 1, **overrides: Any) -> dict[str, Any]:
    return {
        "now": _NOW,
        "transaction_id": f"txn_{number}",
        "claim": IdempotencyClaim(f"usr_ada:{number}", f"fingerprint {number}", _NOW),
        "operation_id": f"wdr_{number}",
        "entry_id": f"ent_{number}",
        "user_id": "usr_ada",
        "token_version": 0,
        "amount": 100,
        "currency": "INR",
        "account_sealed": Sealed("00000000", b"sealed"),
        "account_masked": "•••• 0001",
        "category": None,
        "description": None,
        "metadata": {},
    } | overrides


def new_batch() -> Batch:
    return Batch(Loaded({"usr_ada": 0}, {_ADA.id: _ADA}, {}, {}), Policy())


_DISTORTIONS: dict[str, dict[str, Any]] = {
    "id": {"id": "wal_bo"},
    "user_id": {"user_id": "usr_bo"},
    "currency": {"currency": "USD"},
    "available": {"available": 1_000_000},
    "held": {"held": 1},
    "seq": {"seq": 7},
    "head_hash": {"head_hash": "f" * 64},
    "created_at": {"created_at": _NOW - timedelta(days=1)},
    "event_sequence": {"event_sequence": 9},
}


class TestARule:
    @pytest.mark.parametrize("field", _DISTORTIONS)
    def test_cannot_change_without_a_movement(self, field: str) -> None:
        command = _Distorted(**withdrawal(), distort=lambda wallet: wallet._replace(**_DISTORTIONS[field]))
        batch = new_batch()
        with pytest.raises(AssertionError, match=r"by movements alone|was not named as needed"):
            batch.run(command)
        assert not batch.writes(), "what the kernel refuses leaves nothing behind"

    def test_changes_everything_else(self) -> None:
        batch = new_batch()
        batch.run(_Distorted(**withdrawal(), distort=lambda wallet: wallet._replace(open_operations=3)))
        (update,) = batch.writes().wallet_updates
        assert (update.after.available, update.after.held, update.after.open_operations) == (4_900, 100, 3)


class TestABatch:
    """Entries and wallets are written by two statements: what one has and the other lacks must not be written."""

    def test_writes_as_many_entries_as_its_wallets_have_moved_on(self) -> None:
        batch = new_batch()
        for number in (1, 2, 3):
            batch.run(RequestWithdrawal(**withdrawal(number)))
        writes = batch.writes()
        (update,) = writes.wallet_updates
        assert update.after.seq - update.before.seq == len(writes.entries) == 3

    @pytest.mark.parametrize("lost", [0, 1, 2])
    def test_that_has_lost_an_entry_is_not_written(self, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
        settle_into = Draft.settle_into
        number = 0

        def losing(self: Draft, below: Draft) -> None:
            nonlocal number
            if number == lost:
                self.entries.clear()
            number += 1
            settle_into(self, below)

        monkeypatch.setattr(Draft, "settle_into", losing)
        batch = new_batch()
        for operation in (1, 2, 3):
            batch.run(RequestWithdrawal(**withdrawal(operation)))
        with pytest.raises(AssertionError, match="its entries"):
            batch.writes()

    def test_that_has_an_entry_of_an_unchanged_wallet_is_not_written(self) -> None:
        other, batch = new_batch(), new_batch()
        other.run(RequestWithdrawal(**withdrawal()))
        batch._state.entries += other.writes().entries
        with pytest.raises(AssertionError, match="its entries"):
            batch.writes()

    @pytest.mark.parametrize("field", ["available", "held", "head_hash"])
    def test_whose_wallet_is_not_what_its_last_entry_says_is_not_written(self, field: str) -> None:
        batch = new_batch()
        batch.run(RequestWithdrawal(**withdrawal()))
        wallet = batch._state.wallets[_ADA.id]
        batch._state.wallets[_ADA.id] = wallet._replace(**_DISTORTIONS[field])
        with pytest.raises(AssertionError, match="its entries"):
            batch.writes()
