"""One record of each kind, with another value in every field, so that no field can stand in for another unseen."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.domain.adjustments import Adjustment, AdjustmentStatus, AdjustmentType
from service.domain.conversions import Conversion
from service.domain.holds import Hold, HoldStatus, Taking
from service.domain.incidents import Incident, IncidentKind, IncidentStatus, Said, SaidEvent, Stands
from service.domain.operations import Operation, OperationStatus, OperationType
from service.domain.quotes import Quote, QuoteStatus, Rate
from service.domain.returns import Return, ReturnStatus, ReturnType
from service.domain.reversals import Reversal
from service.domain.rewards import Reward, RewardStatus
from service.domain.sealed import Sealed
from service.domain.transfers import Transfer
from service.domain.vouchers import Redemption, Voucher
from service.domain.wallets import Wallet, new_wallet

_START: Final = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
METADATA: Final = {"order": "7"}


def at(minute: int) -> datetime:
    """So many minutes after the start of all."""
    return _START + timedelta(minutes=minute)


def shown(minute: int) -> str:
    """The same, as the API shows it."""
    return f"2026-02-24T{12 + (34 + minute) // 60:02d}:{(34 + minute) % 60:02d}:56.789Z"


def build_wallet(**overrides: Any) -> Wallet:
    """Of asha's: 700 available and 30 held."""
    fields: dict[str, Any] = {"available": 700, "held": 30, "seq": 4, "updated_at": at(1)}
    return new_wallet("wal_asha", "usr_asha", "INR", at(0))._replace(**(fields | overrides))


def build_operation(**overrides: Any) -> Operation:
    """A deposit that the bank has carried out."""
    fields: dict[str, Any] = {
        "id": "dep_1",
        "type": OperationType.DEPOSIT,
        "user_id": "usr_asha",
        "wallet_id": "wal_asha",
        "amount": 500,
        "currency": "INR",
        "status": OperationStatus.SUCCESS,
        "account_sealed": Sealed("00000000", b"sealed"),
        "account_masked": "•••• 0001",
        "category": "salary",
        "description": "November",
        "metadata": METADATA,
        "failure_code": None,
        "failure_message": None,
        "bank_reference": "bnk_1",
        "attempts": 1,
        "request_id": "req_1",
        "created_at": at(2),
        "updated_at": at(3),
    }
    return Operation(**(fields | overrides))


def build_transfer(**overrides: Any) -> Transfer:
    """From asha to ravi."""
    fields: dict[str, Any] = {
        "id": "trf_1",
        "user_id": "usr_asha",
        "wallet_id": "wal_asha",
        "to_user_id": "usr_ravi",
        "to_wallet_id": "wal_ravi",
        "amount": 120,
        "currency": "INR",
        "status": OperationStatus.SUCCESS,
        "category": "gift",
        "description": "Diwali",
        "metadata": METADATA,
        "failure_code": None,
        "failure_message": None,
        "transaction_id": "txn_1",
        "request_id": "req_1",
        "created_at": at(2),
        "updated_at": at(3),
    }
    return Transfer(**(fields | overrides))


def build_hold(**overrides: Any) -> Hold:
    """Of asha's for ravi, of which a return took 40 and ravi captured 250."""
    fields: dict[str, Any] = {
        "id": "hld_1",
        "user_id": "usr_asha",
        "wallet_id": "wal_asha",
        "to_user_id": "usr_ravi",
        "to_wallet_id": "wal_ravi",
        "amount": 300,
        "captured_amount": 250,
        "currency": "INR",
        "status": HoldStatus.CAPTURED,
        "category": "rent",
        "description": "A deposit",
        "metadata": METADATA,
        "transaction_id": "txn_1",
        "request_id": "req_1",
        "expires_at": at(50),
        "created_at": at(2),
        "updated_at": at(3),
        "takings": (Taking("rtn_1", 25), Taking("rtn_2", 15)),
    }
    return Hold(**(fields | overrides))


def build_adjustment(**overrides: Any) -> Adjustment:
    """A credit of asha's that a second admin approved."""
    fields: dict[str, Any] = {
        "id": "adj_1",
        "type": AdjustmentType.CREDIT,
        "user_id": "usr_asha",
        "wallet_id": "wal_asha",
        "amount": 60,
        "currency": "INR",
        "status": AdjustmentStatus.SUCCESS,
        "reason": "A goodwill",
        "category": "service",
        "description": "Late parcel",
        "metadata": METADATA,
        "requested_by": "usr_admin",
        "decided_by": "usr_other_admin",
        "decided_at": at(4),
        "rejection_reason": None,
        "available_after": 760,
        "held_after": 30,
        "transaction_id": "txn_1",
        "request_id": "req_1",
        "created_at": at(2),
        "updated_at": at(5),
    }
    return Adjustment(**(fields | overrides))


def build_conversion(**overrides: Any) -> Conversion:
    """100.00 INR into 1.20 USD."""
    fields: dict[str, Any] = {
        "id": "cnv_1",
        "user_id": "usr_asha",
        "quote_id": "quo_1",
        "wallet_id": "wal_asha",
        "to_wallet_id": "wal_asha_usd",
        "amount": 10_000,
        "currency": "INR",
        "to_amount": 120,
        "to_currency": "USD",
        "rate": Rate(12, 1_000, "table", at(1)),
        "margin_bp": 25,
        "status": OperationStatus.SUCCESS,
        "category": "travel",
        "description": "A trip",
        "metadata": METADATA,
        "transaction_id": "txn_1",
        "request_id": "req_1",
        "created_at": at(2),
        "updated_at": at(3),
    }
    return Conversion(**(fields | overrides))


def build_quote(**overrides: Any) -> Quote:
    """Open until minute 40."""
    fields: dict[str, Any] = {
        "id": "quo_1",
        "user_id": "usr_asha",
        "from_currency": "INR",
        "to_currency": "USD",
        "amount": 10_000,
        "to_amount": 120,
        "rate": Rate(12, 1_000, "table", at(1)),
        "margin_bp": 25,
        "status": QuoteStatus.OPEN,
        "conversion_id": None,
        "request_id": "req_1",
        "expires_at": at(40),
        "created_at": at(2),
        "updated_at": at(3),
    }
    return Quote(**(fields | overrides))


def build_return(**overrides: Any) -> Return:
    """Of asha's deposit: 500, of which 120 are owed."""
    fields: dict[str, Any] = {
        "id": "rtn_1",
        "type": ReturnType.DEPOSIT,
        "operation_id": "dep_1",
        "user_id": "usr_asha",
        "wallet_id": "wal_asha",
        "amount": 500,
        "currency": "INR",
        "status": ReturnStatus.OWED,
        "bank_reference": "bnk_ret_1",
        "return_code": "AC04",
        "return_message": "Account closed",
        "trouble": "insufficient_funds",
        "category": "salary",
        "decided_by": "usr_admin",
        "decided_at": at(6),
        "transaction_id": "txn_1",
        "request_id": "req_1",
        "created_at": at(4),
        "updated_at": at(7),
        "owed": 120,
    }
    return Return(**(fields | overrides))


def build_reversal(**overrides: Any) -> Reversal:
    """Of asha's transfer: ravi had 100 of the 120 left."""
    fields: dict[str, Any] = {
        "id": "rev_1",
        "original_id": "trf_1",
        "from_wallet_id": "wal_ravi",
        "to_wallet_id": "wal_asha",
        "amount": 120,
        "shortfall": 20,
        "currency": "INR",
        "status": "success",
        "reason": "A mistake",
        "is_forced": True,
        "category": "gift",
        "requested_by": "usr_admin",
        "transaction_id": "txn_2",
        "request_id": "req_2",
        "created_at": at(9),
    }
    return Reversal(**(fields | overrides))


def build_reward(**overrides: Any) -> Reward:
    fields: dict[str, Any] = {
        "id": "rwd_1",
        "user_id": "usr_asha",
        "wallet_id": "wal_asha_points",
        "operation_id": "dep_1",
        "points": 15,
        "rules": {"welcome": 10, "weekend": 5},
        "status": RewardStatus.SUCCESS,
        "transaction_id": "txn_1",
        "request_id": "req_1",
        "created_at": at(8),
    }
    return Reward(**(fields | overrides))


def build_voucher(**overrides: Any) -> Voucher:
    """Of 100 points, valid from minute 10 on and before minute 100; 8 of 10 are left."""
    fields: dict[str, Any] = {
        "id": "vch_1",
        "title": "A cup of coffee",
        "description": "With milk",
        "cost": 100,
        "stock": 8,
        "stocked_total": 10,
        "per_user_limit": 2,
        "valid_from": at(10),
        "valid_until": at(100),
        "is_active": True,
        "created_at": at(2),
        "updated_at": at(3),
        "created_by": "usr_admin",
        "updated_by": "usr_other_admin",
    }
    return Voucher(**(fields | overrides))


def build_redemption(**overrides: Any) -> Redemption:
    fields: dict[str, Any] = {
        "id": "rdm_1",
        "user_id": "usr_asha",
        "wallet_id": "wal_asha_points",
        "voucher_id": "vch_1",
        "title": "A cup of coffee",
        "cost": 100,
        "code_sealed": Sealed("00000000", b"sealed"),
        "transaction_id": "txn_1",
        "request_id": "req_1",
        "created_at": at(11),
    }
    return Redemption(**(fields | overrides))


def build_said(**overrides: Any) -> Said:
    """The bank says that asha's deposit was settled."""
    fields: dict[str, Any] = {
        "event": SaidEvent.SETTLED,
        "status": "success",
        "amount": 500,
        "currency": "INR",
        "bank_reference": "bnk_1",
        "code": "AC04",
        "message": "Account closed",
        "callback_id": "cb_1",
    }
    return Said(**(fields | overrides))


def build_incident(**overrides: Any) -> Incident:
    """Resolved by an admin."""
    fields: dict[str, Any] = {
        "id": "inc_1",
        "kind": IncidentKind.OTHER_AMOUNT,
        "status": IncidentStatus.RESOLVED,
        "reference": "dep_1_at_bank",
        "operation_id": "dep_1",
        "user_id": "usr_asha",
        "wallet_id": "wal_asha",
        "said": build_said(),
        "stands": Stands("success", 400, "EUR", "bnk_0", "rtn_1"),
        "note": "The bank corrected it",
        "decided_by": "usr_admin",
        "decided_at": at(30),
        "request_id": "req_1",
        "created_at": at(20),
        "updated_at": at(31),
    }
    return Incident(**(fields | overrides))
