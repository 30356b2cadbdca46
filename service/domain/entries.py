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


class Effect(NamedTuple):
    """What one unit of the amount does to the two parts of a balance, and how a statement calls it."""

    available: int
    held: int
    direction: Direction


EFFECTS: dict[EntryType, Effect] = {
    EntryType.DEPOSIT: Effect(available=+1, held=0, direction=Direction.CREDIT),
    # Accepted: the money is set aside.
    EntryType.WITHDRAWAL: Effect(available=-1, held=+1, direction=Direction.DEBIT),
    # Paid out by the bank: what was set aside leaves.
    EntryType.WITHDRAWAL_SETTLEMENT: Effect(available=0, held=-1, direction=Direction.DEBIT),
    # Declined by the bank: what was set aside comes back.
    EntryType.WITHDRAWAL_REFUND: Effect(available=+1, held=-1, direction=Direction.CREDIT),
}


class Entry(NamedTuple):
    """One movement of one wallet, as it stands in `transaction_logs` forever."""

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
    created_at: datetime
    prev_hash: str
    hash: str


def entry_hash(entry: Entry) -> str:
    """SHA-256 over the entry as JSON: keys sorted, no white space, times in RFC 3339, without `hash` itself.

    `prev_hash` is part of it, so that each entry seals all entries before it.
    """
    sealed = entry._asdict()
    del sealed["hash"]
    sealed["created_at"] = to_rfc3339(entry.created_at)
    return hashlib.sha256(orjson.dumps(sealed, option=orjson.OPT_SORT_KEYS)).hexdigest()


def entry_view(entry: Entry) -> dict[str, Any]:
    """The entry as the API shows it."""
    view = entry._asdict()
    view["created_at"] = to_rfc3339(entry.created_at)
    return view
