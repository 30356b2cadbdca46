"""Log entries: what each type of movement does to a wallet, and the hash chain that makes a change visible."""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from service.domain.clock import to_rfc3339

# The head of a wallet without entries: the chain has to start somewhere that everyone knows.
GENESIS_HASH = "0" * 64


class Direction(StrEnum):
    CREDIT = "credit"
    DEBIT = "debit"


class EntryType(StrEnum):
    DEPOSIT = "DEPOSIT"
    WITHDRAWAL = "WITHDRAWAL"
    WITHDRAWAL_SETTLEMENT = "WITHDRAWAL_SETTLEMENT"
    WITHDRAWAL_REFUND = "WITHDRAWAL_REFUND"
    TRANSFER_OUT = "TRANSFER_OUT"
    TRANSFER_IN = "TRANSFER_IN"
    CREDIT = "CREDIT"
    DEBIT = "DEBIT"
    HOLD = "HOLD"
    HOLD_CAPTURE = "HOLD_CAPTURE"
    HOLD_RELEASE = "HOLD_RELEASE"
    REVERSAL_OUT = "REVERSAL_OUT"
    REVERSAL_IN = "REVERSAL_IN"
    CONVERSION_OUT = "CONVERSION_OUT"
    CONVERSION_IN = "CONVERSION_IN"
    POINTS_EARNED = "POINTS_EARNED"
    VOUCHER = "VOUCHER"
    WITHDRAWAL_RETURN = "WITHDRAWAL_RETURN"
    DEPOSIT_RETURN = "DEPOSIT_RETURN"
    POINTS_RETURN = "POINTS_RETURN"


class Effect(NamedTuple):
    """What one unit of the amount does to the two parts of a balance, and how a statement calls it."""

    available: int
    held: int
    direction: Direction


_CREDIT = Effect(available=+1, held=0, direction=Direction.CREDIT)
_DEBIT = Effect(available=-1, held=0, direction=Direction.DEBIT)
# A reservation: the money is set aside, and later leaves or comes back. The balance changes only where it leaves.
_RESERVE = Effect(available=-1, held=+1, direction=Direction.DEBIT)
_CAPTURE = Effect(available=0, held=-1, direction=Direction.DEBIT)
_RELEASE = Effect(available=+1, held=-1, direction=Direction.CREDIT)

EFFECTS: dict[EntryType, Effect] = {
    EntryType.DEPOSIT: _CREDIT,
    EntryType.WITHDRAWAL: _RESERVE,
    EntryType.WITHDRAWAL_SETTLEMENT: _CAPTURE,
    EntryType.WITHDRAWAL_REFUND: _RELEASE,
    EntryType.TRANSFER_OUT: _DEBIT,
    EntryType.TRANSFER_IN: _CREDIT,
    EntryType.CREDIT: _CREDIT,
    EntryType.DEBIT: _DEBIT,
    EntryType.HOLD: _RESERVE,
    EntryType.HOLD_CAPTURE: _CAPTURE,
    EntryType.HOLD_RELEASE: _RELEASE,
    EntryType.REVERSAL_OUT: _DEBIT,
    EntryType.REVERSAL_IN: _CREDIT,
    EntryType.CONVERSION_OUT: _DEBIT,
    EntryType.CONVERSION_IN: _CREDIT,
    EntryType.POINTS_EARNED: _CREDIT,
    EntryType.VOUCHER: _DEBIT,
    EntryType.WITHDRAWAL_RETURN: _CREDIT,
    EntryType.DEPOSIT_RETURN: _DEBIT,
    EntryType.POINTS_RETURN: _DEBIT,
}


class Entry(NamedTuple):
    """One movement of one wallet, as it stands in `transaction_logs` forever.

    `counterparty` is the other side: a wallet's id or a system account (accounts.py). `created_at` never runs backwards
    along `seq`, whatever the clocks of several processes say.
    """

    id: str
    wallet_id: str
    user_id: str
    seq: int
    type: EntryType
    direction: Direction
    amount: int
    currency: str
    available_before: int
    available_after: int
    held_before: int
    held_after: int
    status: str
    reference: str
    transaction_id: str
    counterparty: str
    category: str | None
    created_at: datetime
    prev_hash: str
    hash: str


def entry_hash(entry: Entry) -> str:
    """SHA-256 over the entry as JSON: keys sorted, no white space, times in RFC 3339, without `hash` itself and without
    a `category` that is null.

    `prev_hash` is part of it, so that each entry seals all entries before it.
    """
    sealed = entry._asdict()
    del sealed["hash"]
    if entry.category is None:
        del sealed["category"]
    sealed["created_at"] = to_rfc3339(entry.created_at)
    return hashlib.sha256(orjson.dumps(sealed, option=orjson.OPT_SORT_KEYS)).hexdigest()


def entry_view(entry: Entry) -> dict[str, Any]:
    """Returns the entry as the API shows it."""
    view = entry._asdict()
    view["created_at"] = to_rfc3339(entry.created_at)
    return view
