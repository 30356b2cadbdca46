"""What the API shows of each record: every field, under the name that the documentation gives it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.domain.adjustments import adjustment_view
from service.domain.conversions import conversion_receipt_view, conversion_view
from service.domain.entries import EntryType, entry_view
from service.domain.events import EventType, event_of, event_view
from service.domain.holds import hold_receipt_view, hold_view
from service.domain.incidents import incident_view
from service.domain.operations import (
    Attempt,
    BankCall,
    OperationStatus,
    OperationType,
    Proposal,
    Release,
    Verdict,
    attempt_view,
    mask_account,
    operation_view,
    proposal_view,
    release_view,
)
from service.domain.quotes import QuoteStatus, quote_view
from service.domain.returns import ReturnStatus, return_view
from service.domain.reversals import reversal_view
from service.domain.rewards import reward_view
from service.domain.transfers import balance_view, receipt_view, transfer_view
from service.domain.vouchers import kept_voucher_view, redemption_receipt, redemption_view, voucher_view
from service.domain.wallets import Freeze, Movement, WalletStatus, apply_movement, wallet_view
from service.ledger.blocked_withdrawals import released_view
from service.ledger.reviews import decided_view
from tests.records import (
    METADATA,
    at,
    build_adjustment,
    build_conversion,
    build_hold,
    build_incident,
    build_operation,
    build_quote,
    build_redemption,
    build_return,
    build_reversal,
    build_reward,
    build_transfer,
    build_voucher,
    build_wallet,
    shown,
)

_SCHEMAS = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text())["components"]["schemas"]
_WALLET_BALANCE = {
    "wallet_id": "wal_asha",
    "currency": "INR",
    "available": 700,
    "held": 30,
    "balance": 730,
    "owed": 9,
}


def assert_shows(view: Mapping[str, Any], schema: str, expected: Mapping[str, Any], *left_out: str) -> None:
    """Exactly these values, and exactly the fields that the schema documents, save those left out."""
    assert view == expected
    assert set(view) == set(_SCHEMAS[schema]["properties"]) - set(left_out)


def _operation_as_shown(account_field: str = "source", **overrides: Any) -> dict[str, Any]:
    fields = {
        "id": "dep_1",
        "type": "deposit",
        "status": "success",
        "amount": 500,
        "currency": "INR",
        "wallet_id": "wal_asha",
        account_field: "•••• 0001",
        "category": "salary",
        "description": "November",
        "metadata": METADATA,
        "failure_code": None,
        "failure_message": None,
        "bank_reference": "bnk_1",
        "return_id": None,
        "returned_at": None,
        "expected_by": None,
        "created_at": shown(2),
        "updated_at": shown(3),
    }
    return fields | overrides


class TestMoney:
    def test_of_a_wallet(self) -> None:
        wallet = build_wallet(owed=9, status=WalletStatus.FROZEN, freeze=Freeze.OUT)
        expected = {
            "id": "wal_asha",
            "user_id": "usr_asha",
            "currency": "INR",
            "available": 700,
            "held": 30,
            "balance": 730,
            "owed": 9,
            "status": "frozen",
            "frozen": "out",
            "seq": 4,
            "created_at": shown(0),
            "updated_at": shown(1),
        }
        assert_shows(wallet_view(wallet), "WalletView", expected)

    def test_of_a_balance(self) -> None:
        assert_shows(balance_view(build_wallet(owed=9)), "BalanceView", _WALLET_BALANCE)

    def test_of_an_entry(self) -> None:
        movement = Movement(
            "wal_asha", EntryType.HOLD, 50, "held", "hld_1", "txn_1", "wal_ravi", "ent_1", at(5), "rent"
        )
        _, entry = apply_movement(build_wallet(), movement)
        expected = {
            "id": "ent_1",
            "wallet_id": "wal_asha",
            "user_id": "usr_asha",
            "seq": 5,
            "type": "HOLD",
            "direction": "debit",
            "amount": 50,
            "currency": "INR",
            "available_before": 700,
            "available_after": 650,
            "held_before": 30,
            "held_after": 80,
            "status": "held",
            "reference": "hld_1",
            "transaction_id": "txn_1",
            "counterparty": "wal_ravi",
            "category": "rent",
            "created_at": shown(5),
            "prev_hash": "0" * 64,
            "hash": entry.hash,
        }
        assert_shows(entry_view(entry), "EntryView", expected)

    def test_of_an_event(self) -> None:
        wallet = build_wallet(event_sequence=6)
        event = event_of(
            wallet, EventType.DEPOSIT_FAILED, "dep_1", "failed", "processing", {"id": "dep_1"}, "req_1", at(5)
        )
        expected = {
            "id": event.id,
            "type": "deposit.failed",
            "wallet_id": "wal_asha",
            "sequence": 7,
            "subject_id": "dep_1",
            "status": "failed",
            "previous_status": "processing",
            "data": {"id": "dep_1"},
            "request_id": "req_1",
            "created_at": shown(5),
        }
        assert_shows(event_view(event), "EventView", expected)
        assert (event.user_id, event.created_at) == ("usr_asha", at(5))

    def test_an_event_is_no_older_than_its_wallets_last_change(self) -> None:
        event = event_of(build_wallet(), EventType.WALLET_CLOSED, "wal_asha", "closed", None, {}, None, at(0))
        assert (event.created_at, event.sequence) == (at(1), 1)


class TestOperations:
    def test_of_a_deposit(self) -> None:
        assert_shows(operation_view(build_operation()), "DepositView", _operation_as_shown())

    def test_of_a_withdrawal_that_came_back(self) -> None:
        operation = build_operation(
            id="wdr_1",
            type=OperationType.WITHDRAWAL,
            failure_code="declined",
            failure_message="Declined",
            return_id="rtn_1",
            returned_at=at(6),
            expected_by=at(9),
        )
        expected = _operation_as_shown(
            "destination",
            id="wdr_1",
            type="withdrawal",
            failure_code="declined",
            failure_message="Declined",
            return_id="rtn_1",
            returned_at=shown(6),
            expected_by=shown(9),
        )
        assert_shows(operation_view(operation), "WithdrawalView", expected)

    def test_of_one_that_was_decided_in_review(self) -> None:
        operation = build_operation(proposal=Proposal(Verdict.SETTLE, "usr_admin", "Seen there", at(4)))
        proposal = {"verdict": "settle", "by": "usr_admin", "reason": "Seen there", "at": shown(4)}
        expected = _operation_as_shown(user_id="usr_asha", proposal=proposal)
        assert_shows(decided_view(operation), "DecidedView", expected, "destination")
        assert set(proposal) == set(_SCHEMAS["ProposalView"]["properties"])
        assert proposal_view(None) is None

    def test_of_one_that_was_blocked_and_released(self) -> None:
        operation = build_operation(
            type=OperationType.WITHDRAWAL,
            release=Release("usr_admin", "Spoke to her", at(4), despite_freeze=True, despite_deactivation=False),
        )
        release = {
            "by": "usr_admin",
            "reason": "Spoke to her",
            "at": shown(4),
            "despite_freeze": True,
            "despite_deactivation": False,
        }
        expected = _operation_as_shown("destination", type="withdrawal", user_id="usr_asha", release=release)
        assert_shows(released_view(operation), "DecidedWithdrawalView", expected)
        assert set(release) == set(_SCHEMAS["ReleaseView"]["properties"])
        assert release_view(None) is None

    @pytest.mark.parametrize("ended_at", [None, 5])
    def test_of_an_attempt(self, ended_at: int | None) -> None:
        attempt = Attempt(at(4), BankCall.FIND, "accepted", None if ended_at is None else at(ended_at))
        ended = None if ended_at is None else shown(ended_at)
        expected = {"at": shown(4), "call": "find", "outcome": "accepted", "ended_at": ended}
        assert_shows(attempt_view(attempt), "AttemptView", expected)

    @pytest.mark.parametrize(
        ("account", "masked"),
        [("bank-account-0001", "•••• 0001"), ("12345", "•••• 2345"), ("1234", "••••"), ("", "••••")],
    )
    def test_an_account_shows_its_last_four_characters_if_it_has_more(self, account: str, masked: str) -> None:
        assert mask_account(account) == masked


class TestPayments:
    def test_of_a_transfer(self) -> None:
        transfer = build_transfer(
            batch_id="tbt_1", reversal_id="rev_1", failure_code="lapsed", failure_message="Too late"
        )
        expected = {
            "id": "trf_1",
            "type": "transfer",
            "status": "success",
            "amount": 120,
            "currency": "INR",
            "from_wallet_id": "wal_asha",
            "to_wallet_id": "wal_ravi",
            "category": "gift",
            "description": "Diwali",
            "metadata": METADATA,
            "failure_code": "lapsed",
            "failure_message": "Too late",
            "transaction_id": "txn_1",
            "batch_id": "tbt_1",
            "reversal_id": "rev_1",
            "created_at": shown(2),
            "updated_at": shown(3),
        }
        assert_shows(transfer_view(transfer), "TransferView", expected)

    def test_a_receipt_shows_what_the_sender_has_left_and_not_what_the_other_has(self) -> None:
        sender = build_wallet(owed=9)
        ravis = build_wallet(id="wal_ravi", user_id="usr_ravi", available=5, held=0)
        receipt = receipt_view(build_transfer(), sender, ravis)
        assert receipt == transfer_view(build_transfer()) | {"from_wallet": _WALLET_BALANCE}
        own = ravis._replace(user_id="usr_asha")
        assert receipt_view(build_transfer(), sender, own)["to_wallet"] == balance_view(own)
        assert set(receipt_view(build_transfer(), None, None)) == set(_SCHEMAS["TransferView"]["properties"])

    def test_of_a_hold(self) -> None:
        expected = {
            "id": "hld_1",
            "type": "hold",
            "status": "captured",
            "amount": 300,
            "captured_amount": 250,
            "taken_amount": 40,
            "currency": "INR",
            "wallet_id": "wal_asha",
            "to_wallet_id": "wal_ravi",
            "category": "rent",
            "description": "A deposit",
            "metadata": METADATA,
            "expires_at": shown(50),
            "created_at": shown(2),
            "updated_at": shown(3),
            "transaction_id": "txn_1",
        }
        assert_shows(hold_view(build_hold()), "HoldView", expected)
        assert build_hold().left == 260

    @pytest.mark.parametrize(("viewer", "side"), [("usr_asha", "wallet"), ("usr_ravi", "to_wallet")])
    def test_a_holds_receipt_shows_each_side_its_own_wallet(self, viewer: str, side: str) -> None:
        wallets = {
            "wallet": build_wallet(),
            "to_wallet": build_wallet(id="wal_ravi", user_id="usr_ravi", available=5),
        }
        receipt = hold_receipt_view(build_hold(), viewer, wallets["wallet"], wallets["to_wallet"])
        assert receipt == hold_view(build_hold()) | {side: balance_view(wallets[side])}
        assert hold_receipt_view(build_hold(), "usr_house", *wallets.values()) == hold_view(build_hold())
        assert hold_receipt_view(build_hold(), viewer, None, None) == hold_view(build_hold())

    @pytest.mark.parametrize("minute", [None, 4])
    def test_of_an_adjustment(self, minute: int | None) -> None:
        decided_at = None if minute is None else at(minute)
        adjustment = build_adjustment(decided_at=decided_at, rejection_reason="No", reversal_id="rev_1")
        expected = {
            "id": "adj_1",
            "type": "credit",
            "status": "success",
            "amount": 60,
            "currency": "INR",
            "user_id": "usr_asha",
            "wallet_id": "wal_asha",
            "reason": "A goodwill",
            "category": "service",
            "description": "Late parcel",
            "metadata": METADATA,
            "requested_by": "usr_admin",
            "decided_by": "usr_other_admin",
            "decided_at": None if minute is None else shown(minute),
            "rejection_reason": "No",
            "available_after": 760,
            "held_after": 30,
            "transaction_id": "txn_1",
            "reversal_id": "rev_1",
            "created_at": shown(2),
            "updated_at": shown(5),
        }
        assert_shows(adjustment_view(adjustment), "AdjustmentView", expected)

    def test_of_a_reversal(self) -> None:
        expected = {
            "id": "rev_1",
            "original_id": "trf_1",
            "from_wallet_id": "wal_ravi",
            "to_wallet_id": "wal_asha",
            "amount": 120,
            "taken": 100,
            "shortfall": 20,
            "currency": "INR",
            "status": "success",
            "reason": "A mistake",
            "force": True,
            "category": "gift",
            "requested_by": "usr_admin",
            "transaction_id": "txn_2",
            "created_at": shown(9),
        }
        assert_shows(reversal_view(build_reversal()), "ReversalView", expected)

    def test_of_a_conversion(self) -> None:
        expected = {
            "id": "cnv_1",
            "type": "conversion",
            "status": "success",
            "quote_id": "quo_1",
            "from_wallet_id": "wal_asha",
            "to_wallet_id": "wal_asha_usd",
            "amount": 10_000,
            "currency": "INR",
            "to_amount": 120,
            "to_currency": "USD",
            "rate": "0.012",
            "margin_bp": 25,
            "category": "travel",
            "description": "A trip",
            "metadata": METADATA,
            "transaction_id": "txn_1",
            "created_at": shown(2),
            "updated_at": shown(3),
        }
        assert_shows(conversion_view(build_conversion()), "ConversionView", expected)
        source, target = build_wallet(owed=9), build_wallet(id="wal_asha_usd", currency="USD", available=120)
        receipt = expected | {"from_wallet": _WALLET_BALANCE, "to_wallet": balance_view(target)}
        assert_shows(conversion_receipt_view(build_conversion(), source, target), "ConversionReceipt", receipt)

    @pytest.mark.parametrize(
        ("stored", "minute", "status"),
        [
            (QuoteStatus.OPEN, 39, "open"),
            (QuoteStatus.OPEN, 40, "expired"),
            (QuoteStatus.USED, 39, "used"),
            (QuoteStatus.USED, 41, "used"),
        ],
    )
    def test_of_a_quote(self, stored: QuoteStatus, minute: int, status: str) -> None:
        quote = build_quote(status=stored, conversion_id="cnv_1")
        expected = {
            "id": "quo_1",
            "status": status,
            "from_currency": "INR",
            "to_currency": "USD",
            "amount": 10_000,
            "to_amount": 120,
            "rate": "0.012",
            "rate_source": "table",
            "rate_as_of": shown(1),
            "margin_bp": 25,
            "conversion_id": "cnv_1",
            "expires_at": shown(40),
            "created_at": shown(2),
        }
        assert_shows(quote_view(quote, at(minute)), "QuoteView", expected)


class TestReturnsAndIncidents:
    @pytest.mark.parametrize(
        ("status", "owed", "collected"),
        [(ReturnStatus.OWED, 120, 380), (ReturnStatus.SUCCESS, 0, 500), (ReturnStatus.REQUIRES_REVIEW, 0, 0)],
    )
    def test_of_a_return(self, status: ReturnStatus, owed: int, collected: int) -> None:
        expected = {
            "id": "rtn_1",
            "type": "deposit",
            "operation_id": "dep_1",
            "user_id": "usr_asha",
            "wallet_id": "wal_asha",
            "amount": 500,
            "currency": "INR",
            "collected": collected,
            "owed": owed,
            "status": status,
            "bank_reference": "bnk_ret_1",
            "return_code": "AC04",
            "return_message": "Account closed",
            "trouble": "insufficient_funds",
            "category": "salary",
            "decided_by": "usr_admin",
            "decided_at": shown(6),
            "transaction_id": "txn_1",
            "created_at": shown(4),
            "updated_at": shown(7),
        }
        assert_shows(return_view(build_return(status=status, owed=owed)), "ReturnView", expected)
        assert return_view(build_return(decided_at=None))["decided_at"] is None

    def test_of_an_incident(self) -> None:
        said = {
            "event": "payment.settled",
            "status": "success",
            "amount": 500,
            "currency": "INR",
            "bank_reference": "bnk_1",
            "code": "AC04",
            "message": "Account closed",
            "callback_id": "cb_1",
        }
        stands = {
            "status": "success",
            "amount": 400,
            "currency": "EUR",
            "bank_reference": "bnk_0",
            "return_id": "rtn_1",
        }
        expected = {
            "id": "inc_1",
            "kind": "other_amount",
            "status": "resolved",
            "reference": "dep_1_at_bank",
            "operation_id": "dep_1",
            "user_id": "usr_asha",
            "wallet_id": "wal_asha",
            "said": said,
            "stands": stands,
            "note": "The bank corrected it",
            "decided_by": "usr_admin",
            "decided_at": shown(30),
            "request_id": "req_1",
            "created_at": shown(20),
            "updated_at": shown(31),
        }
        assert_shows(incident_view(build_incident()), "IncidentView", expected)
        assert set(said) == set(_SCHEMAS["SaidView"]["properties"])
        assert set(stands) == set(_SCHEMAS["StandsView"]["properties"])

    def test_of_an_incident_about_nothing_known(self) -> None:
        view = incident_view(build_incident(stands=None, decided_at=None))
        assert (view["stands"], view["decided_at"]) == (None, None)


class TestPoints:
    def test_of_a_reward(self) -> None:
        expected = {
            "id": "rwd_1",
            "status": "success",
            "points": 15,
            "rules": {"welcome": 10, "weekend": 5},
            "operation_id": "dep_1",
            "wallet_id": "wal_asha_points",
            "transaction_id": "txn_1",
            "created_at": shown(8),
        }
        assert_shows(reward_view(build_reward()), "RewardView", expected)

    def test_of_a_voucher(self) -> None:
        expected = {
            "id": "vch_1",
            "title": "A cup of coffee",
            "description": "With milk",
            "cost": 100,
            "stock": 8,
            "per_user_limit": 2,
            "valid_from": shown(10),
            "valid_until": shown(100),
            "is_active": True,
        }
        assert_shows(voucher_view(build_voucher()), "VoucherView", expected)
        kept = {
            "stocked_total": 10,
            "created_at": shown(2),
            "updated_at": shown(3),
            "created_by": "usr_admin",
            "updated_by": "usr_other_admin",
        }
        assert_shows(kept_voucher_view(build_voucher()), "KeptVoucherView", expected | kept)

    def test_of_a_voucher_that_is_always_valid(self) -> None:
        view = voucher_view(build_voucher(valid_from=None, valid_until=None))
        assert (view["valid_from"], view["valid_until"]) == (None, None)

    def test_of_a_redemption(self) -> None:
        expected = {
            "id": "rdm_1",
            "voucher_id": "vch_1",
            "title": "A cup of coffee",
            "cost": 100,
            "code": "0A1B2",
            "wallet_id": "wal_asha_points",
            "transaction_id": "txn_1",
            "redeemed_at": shown(11),
        }
        assert_shows(redemption_view(build_redemption(), "0A1B2"), "RedemptionView", expected)
        # It is kept with the key, and so without the code.
        receipt = expected | {"code": None, "balance": _WALLET_BALANCE}
        assert_shows(redemption_receipt(build_redemption(), build_wallet(owed=9)), "RedemptionReceipt", receipt)
        assert redemption_receipt(build_redemption(), None) == expected | {"code": None}


def test_a_withdrawal_that_waits_has_another_status_than_one_that_is_done() -> None:
    waiting = build_operation(status=OperationStatus.REQUIRES_APPROVAL)
    assert operation_view(waiting) == _operation_as_shown(status="requires_approval")
