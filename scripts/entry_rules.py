"""Compares an entry with its record: status, category, transaction and counterparty, by the entry's type.

Written out a second time like `ledger_rules`, and for the same reason. An entry's hash proves that it stayed as it was
written; this proves that what was written is what its record says.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from scripts.record_rules import Row

_BANK: Final = "bank"
_ADJUSTMENTS: Final = "house:adjustments"
_REVENUE: Final = "house:revenue"
_FX: Final = "house:fx"
_REWARDS: Final = "house:rewards"
_FINAL: Final = frozenset({"success", "failed", "canceled", "captured", "released", "expired", "rejected", "taken"})


class EntryRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    STATUS = "entry_status"
    CATEGORY = "entry_category"
    TRANSACTION = "entry_transaction"
    OTHER_SIDE = "entry_counterparty"


class Said(NamedTuple):
    """Says what an entry of one type must show, given its record.

    `statuses` are those that the record may have had when the entry was written; None is every one that is not final.
    `is_last`: the record names the transaction that the entry belongs to. `is_part`: there may be several, each of a
    transaction of its own.
    """

    statuses: Callable[[Row], frozenset[str]] | None
    counterparties: Callable[[Row], tuple[str | None, ...]]
    is_last: bool = True
    is_part: bool = False


def _held(row: Row) -> frozenset[str]:  # noqa: ARG001 as its neighbours
    return frozenset({"held"})


def _paid(row: Row) -> frozenset[str]:
    """Lists the statuses that a paid return may have had: each part but the last one left something owed."""
    return {"success": frozenset({"owed", "success"}), "owed": frozenset({"owed"})}.get(
        str(row.get("status")), frozenset()
    )


def _rewards(row: Row) -> tuple[str]:  # noqa: ARG001 as its neighbours
    return (_REWARDS,)


def _current_status(row: Row) -> frozenset[str]:
    return frozenset({str(row.get("status"))})


def _bank(row: Row) -> tuple[str]:  # noqa: ARG001 as its neighbours
    return (_BANK,)


def _sender(row: Row) -> tuple[str | None]:
    return (row.get("wallet_id"),)


def _recipient(row: Row) -> tuple[str | None]:
    return (row.get("to_wallet_id"),)


def _payee(row: Row) -> tuple[str | None]:
    return (row.get("to_wallet_id") or _REVENUE,)


def _payee_at_first(row: Row) -> tuple[str | None, ...]:
    """A capture may have named the payee of a hold that was for the house."""
    return row.get("to_wallet_id") or _REVENUE, _REVENUE


def _adjustments(row: Row) -> tuple[str]:  # noqa: ARG001 as its neighbours
    return (_ADJUSTMENTS,)


def _exchange(row: Row) -> tuple[str]:  # noqa: ARG001 as its neighbours
    return (_FX,)


def _taken_by(row: Row) -> tuple[str | None]:
    return (row.get("to_wallet_id") or _ADJUSTMENTS,)


def _given_by(row: Row) -> tuple[str | None, ...]:
    """Names who gave: the house stands in for what the giver could not cover."""
    if row.get("shortfall"):
        return row.get("from_wallet_id") or _ADJUSTMENTS, _ADJUSTMENTS
    return (row.get("from_wallet_id") or _ADJUSTMENTS,)


# By the collection of the record and the type of the entry. A type that is not here calls for nothing further.
_SAID: Final[Mapping[str, Mapping[str, Said]]] = {
    "deposits": {"DEPOSIT": Said(_current_status, _bank, is_last=False)},
    "withdrawals": {
        "WITHDRAWAL": Said(None, _bank, is_last=False),
        "WITHDRAWAL_SETTLEMENT": Said(_current_status, _bank, is_last=False),
        "WITHDRAWAL_REFUND": Said(_current_status, _bank, is_last=False),
    },
    "transfers": {
        "HOLD": Said(None, _recipient, is_last=False),
        "HOLD_RELEASE": Said(_current_status, _recipient, is_last=False),
        "TRANSFER_OUT": Said(_current_status, _recipient),
        "TRANSFER_IN": Said(_current_status, _sender),
    },
    "holds": {
        "HOLD": Said(None, _payee_at_first, is_last=False),
        "HOLD_CAPTURE": Said(_current_status, _payee),
        "TRANSFER_IN": Said(_current_status, _sender),
        "HOLD_RELEASE": Said(_current_status, _payee),
    },
    "adjustments": {"CREDIT": Said(_current_status, _adjustments), "DEBIT": Said(_current_status, _adjustments)},
    "reversals": {"REVERSAL_OUT": Said(_current_status, _taken_by), "REVERSAL_IN": Said(_current_status, _given_by)},
    "conversions": {
        "CONVERSION_OUT": Said(_current_status, _exchange),
        "CONVERSION_IN": Said(_current_status, _exchange),
    },
    "returns": {
        "WITHDRAWAL_RETURN": Said(_current_status, _bank),
        "DEPOSIT_RETURN": Said(_paid, _bank, is_last=False, is_part=True),
        "POINTS_RETURN": Said(_paid, _rewards, is_last=False, is_part=True),
    },
}
# What a return took of a hold that was still held afterwards.
_TAKEN_PART: Final = Said(_held, _payee_at_first, is_last=False, is_part=True)
# Entries of these types begin something: what ends it is another transaction.
_BEGINNINGS: Final = frozenset({"WITHDRAWAL", "HOLD"})
# Fields that an inspection has to read, of entries and of records.
ENTRY_FIELDS: Final = ("seq", "status", "category", "transaction_id", "counterparty")
RECORD_FIELDS: Final = ("category", "transaction_id")

Found = tuple[EntryRule, str]
"""A rule that does not hold, and what stands there instead."""


def check_entries_say(collection: str, record: Row, entries: Sequence[Row]) -> Iterator[Found]:
    """Compares each entry with its record, and the transactions of the entries with each other."""
    by_type = _SAID.get(collection, {})
    begun: dict[bool, set[str]] = defaultdict(set)
    for entry in entries:
        entry_type = str(entry.get("type"))
        said = by_type.get(entry_type)
        if (collection, entry_type, entry.get("status")) == ("holds", "HOLD_RELEASE", "held"):
            said = _TAKEN_PART
        if said is not None:
            name = f"{entry_type} {entry.get('wallet_id')}#{entry.get('seq')}"
            yield from ((rule, f"{name} {detail}") for rule, detail in _check_entry(said, record, entry))
            if not said.is_part:
                begun[entry_type in _BEGINNINGS].add(str(entry.get("transaction_id")))
    if collection == "returns":
        yield from _check_latest(record, entries)
    both = begun[True] & begun[False]
    if both:
        yield EntryRule.TRANSACTION, f"what began it and what ended it are one transaction: {sorted(both)}"
    for transactions in begun.values():
        if len(transactions) > 1:
            yield EntryRule.TRANSACTION, f"one step of it has several transactions: {sorted(transactions)}"


def _check_latest(record: Row, entries: Sequence[Row]) -> Iterator[Found]:
    """A return names the transaction of its latest entry, which says how it is."""
    latest = [entry for entry in entries if entry.get("transaction_id") == record.get("transaction_id")]
    if entries and not latest:
        yield EntryRule.TRANSACTION, f"no entry is of {record.get('transaction_id')}, which the record names"
    for entry in latest:
        if entry.get("status") != record.get("status"):
            yield EntryRule.STATUS, f"the latest entry says {entry.get('status')}, the record {record.get('status')}"


def _check_entry(said: Said, record: Row, entry: Row) -> Iterator[Found]:
    status = str(entry.get("status"))
    if (status in _FINAL) if said.statuses is None else (status not in said.statuses(record)):
        yield EntryRule.STATUS, f"has status {status}, the record {record.get('status')}"
    if entry.get("category") != record.get("category"):
        yield EntryRule.CATEGORY, f"has category {entry.get('category')}, the record {record.get('category')}"
    if entry.get("counterparty") not in said.counterparties(record):
        due = " or ".join(str(one) for one in dict.fromkeys(said.counterparties(record)))
        yield EntryRule.OTHER_SIDE, f"is with {entry.get('counterparty')}, by the record it is with {due}"
    transaction_id = record.get("transaction_id")
    if said.is_last and entry.get("transaction_id") != transaction_id:
        yield EntryRule.TRANSACTION, f"is of {entry.get('transaction_id')}, the record of {transaction_id}"
