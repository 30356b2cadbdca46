"""Checks wallets, entries, operations, the bank's journal and its callbacks, row by row, without any I/O.

Written out a second time on purpose: none of this calls the code that it judges, so that a defect there cannot
hide itself. Rows are documents as the driver gives them, since a corrupt one may not fit any class of ours.
"""

import hashlib
import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from scripts.record_rules import KINDS, Due, Kind, Row, Tally, epoch_ms

GENESIS: Final = "0" * 64
_FINAL: Final = frozenset({"success", "failed", "canceled"})
# A person has these; everything else that is open has to be in the outbox, or nobody would ever look after it.
_IN_REVIEW: Final = "requires_review"
_PURSUED: Final = frozenset({"pending", "processing"})
# Its owner has this one; the bank has not heard of it.
_UNAPPROVED: Final = "requires_approval"
# An admin has this one: the bank does not have it.
_BLOCKED: Final = "blocked"
_BLOCKED_FOR: Final = frozenset({"wallet_frozen", "user_deactivated", "wallet_owes"})
_UNDONE: Final = frozenset({"failed", "canceled"})
# Back-off ends at 10 min: a row that sleeps for longer was put to sleep by no worker, and its money stays where it is.
_DUE_AHEAD_LIMIT: Final = timedelta(hours=1)


class Rule(StrEnum):
    """Names of the rules, as a breach shows them."""

    MALFORMED = "malformed_document"

    SEQ_GAP = "seq_gap"
    SEQ_DUPLICATE = "seq_duplicate"
    ENTRY_TYPE = "entry_type"
    ENTRY_AMOUNT = "entry_amount"
    ENTRY_ARITHMETIC = "entry_arithmetic"
    ENTRY_CONTINUITY = "entry_continuity"
    ENTRY_OWNER = "entry_owner"
    BALANCE_NEGATIVE = "balance_negative"
    HASH = "entry_hash"
    HASH_CHAIN = "hash_chain"

    WALLET_UNKNOWN = "wallet_unknown"
    WALLET_BALANCE = "wallet_balance"
    WALLET_HEAD = "wallet_head"
    WALLET_HELD = "wallet_held"
    WALLET_OPEN = "wallet_open_operations"
    WALLET_USAGE = "wallet_usage"
    WALLET_OWED = "wallet_owed"
    CURRENCY_TOTAL = "currency_total"
    BANK_TOTAL = "bank_total"

    COUNTERPARTY = "counterparty"
    DOUBLE_ENTRY = "double_entry"
    ACCOUNT_SUMS = "account_sums"
    HOUSE_POSITION = "house_position"
    HOUSE_BELOW_FLOOR = "house_below_floor"
    HOUSE_FLOOR = "house_floor"
    HOUSE_PORTION = "house_portion_outdated"

    OPERATION_UNKNOWN = "operation_unknown"
    OPERATION_STATE = "operation_state"
    ENTRY_MISSING = "entry_missing"
    ENTRY_SURPLUS = "entry_surplus"
    ENTRY_MISMATCH = "entry_mismatch"
    OUTBOX_MISSING = "outbox_missing"
    OUTBOX_SURPLUS = "outbox_surplus"
    OUTBOX_ASLEEP = "outbox_asleep"
    ANSWER_BROKEN = "idempotency_answer"

    PAYMENT_MISSING = "payment_missing"
    PAYMENT_SURPLUS = "payment_surplus"
    PAYMENT_DOUBLE = "payment_double"
    ORDER_STATE = "order_state"
    ORDER_MISMATCH = "order_mismatch"
    SETTLEMENT_OVERDUE = "settlement_overdue"
    RETURN_SURPLUS = "return_surplus"
    RETURN_LINK = "return_link"
    INCIDENT_MISSING = "incident_missing"

    CALLBACK_OVERDUE = "callback_overdue"
    CALLBACK_CONTRADICTION = "callback_contradiction"
    CALLBACK_UNKNOWN_REFERENCE = "callback_unknown_reference"
    CALLBACK_GIVEN_UP = "callback_given_up"

    VOUCHER_STOCK = "voucher_stock"
    VOUCHER_USE = "voucher_use"

    EVENT_SEQUENCE = "event_sequence"
    EVENT_STATE = "event_state"


class Breach(NamedTuple):
    """A rule that does not hold, of which wallet, entry, operation or currency, and what stands there instead."""

    rule: str
    subject: str
    detail: str


def told_of(subject: str, found: Iterable[tuple[str, str]]) -> Iterator[Breach]:
    """Makes breaches of what rules found about one subject: each rule, and what stands there instead."""
    return (Breach(rule, subject, detail) for rule, detail in found)


class Effect(NamedTuple):
    available: int
    held: int
    direction: str


_CREDIT: Final = Effect(+1, 0, "credit")
_DEBIT: Final = Effect(-1, 0, "debit")
_RESERVE: Final = Effect(-1, +1, "debit")
_CAPTURE: Final = Effect(0, -1, "debit")
_RELEASE: Final = Effect(+1, -1, "credit")
_EFFECTS: Final[Mapping[str, Effect]] = {
    **dict.fromkeys(("DEPOSIT", "TRANSFER_IN", "CREDIT", "REVERSAL_IN", "CONVERSION_IN", "POINTS_EARNED"), _CREDIT),
    **dict.fromkeys(("TRANSFER_OUT", "DEBIT", "REVERSAL_OUT", "CONVERSION_OUT", "VOUCHER"), _DEBIT),
    "WITHDRAWAL_RETURN": _CREDIT,
    **dict.fromkeys(("DEPOSIT_RETURN", "POINTS_RETURN"), _DEBIT),
    **dict.fromkeys(("WITHDRAWAL", "HOLD"), _RESERVE),
    **dict.fromkeys(("WITHDRAWAL_SETTLEMENT", "HOLD_CAPTURE"), _CAPTURE),
    **dict.fromkeys(("WITHDRAWAL_REFUND", "HOLD_RELEASE"), _RELEASE),
}
# Whom an entry may name as its other side, by its type; what only sets money aside moves it to nobody yet.
_A_WALLET: Final = "a wallet"
_BANK: Final = "bank"
_ADJUSTMENTS: Final = "house:adjustments"
_REVENUE: Final = "house:revenue"
_ACCOUNTS: Final = frozenset({_BANK, "house:fx", "house:rewards", _ADJUSTMENTS, _REVENUE})
_COUNTERPARTIES: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(
        (
            *("DEPOSIT", "WITHDRAWAL", "WITHDRAWAL_SETTLEMENT", "WITHDRAWAL_REFUND"),
            *("WITHDRAWAL_RETURN", "DEPOSIT_RETURN"),
        ),
        frozenset({_BANK}),
    ),
    **dict.fromkeys(("TRANSFER_IN", "TRANSFER_OUT"), frozenset({_A_WALLET})),
    **dict.fromkeys(("REVERSAL_IN", "REVERSAL_OUT"), frozenset({_A_WALLET, _ADJUSTMENTS})),
    **dict.fromkeys(("CREDIT", "DEBIT"), frozenset({_ADJUSTMENTS})),
    **dict.fromkeys(("CONVERSION_IN", "CONVERSION_OUT"), frozenset({"house:fx"})),
    **dict.fromkeys(("POINTS_EARNED", "POINTS_RETURN", "VOUCHER"), frozenset({"house:rewards"})),
    **dict.fromkeys(("HOLD", "HOLD_RELEASE"), frozenset({_A_WALLET, *_ACCOUNTS})),
    "HOLD_CAPTURE": frozenset({_A_WALLET, _REVENUE}),
}
WALLET_PREFIX: Final = "wal_"
# The line of the sums that is no account: what wallets gave to wallets.
BETWEEN_WALLETS: Final = "between_wallets"

# Kinds of records that the bank hears of.
AT_THE_BANK: Final = frozenset({"deposits", "withdrawals"})
# Topics of rows that follow an operation's end instead of bringing it.
_AFTERMATH: Final = frozenset({"reward", "owed_notice", "hold_notice"})
# Topics of mails to people, which are about no operation.
_TO_PEOPLE: Final = frozenset({"password_reset", "password_notice", "factor_code", "factor_notice", "webhook_notice"})
_ORDER_KINDS: Final[Mapping[str, str]] = {"deposit": "collection", "withdrawal": "payout"}
# Incidents whose matter is not put right: until it is, the bank and the books may be apart over that operation.
_UNRESOLVED: Final = frozenset({"open", "explained"})
# What became of a callback, where the bank and the books are apart since. An incident tells of the first two.
_UNHEARD: Final[Mapping[str, tuple[Rule, str]]] = {
    "contradiction": (Rule.CALLBACK_CONTRADICTION, "the bank contradicts how {reference} ended"),
    "unknown_reference": (Rule.CALLBACK_UNKNOWN_REFERENCE, "the bank speaks of {reference}, which does not exist"),
    "given_up": (Rule.CALLBACK_GIVEN_UP, "what the bank said of {reference} could not be applied"),
}

_ENTRY_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "wallet_id", "user_id", "type", "direction", "currency", "status", "reference"), str),
    **dict.fromkeys(("transaction_id", "counterparty", "prev_hash", "hash"), str),
    **dict.fromkeys(("seq", "amount", "available_before", "available_after", "held_before", "held_after"), int),
    "created_at": datetime,
}
_WALLET_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "user_id", "currency", "head_hash"), str),
    **dict.fromkeys(("available", "held", "seq"), int),
}
_OPERATION_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "status", "currency"), str),
    "amount": int,
}
_OWNED_SHAPE: Final[Mapping[str, type]] = {**_OPERATION_SHAPE, "user_id": str, "wallet_id": str}
_ORDER_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "kind", "currency", "state"), str),
    "amount": int,
    "payments": list,
}


def is_shaped(row: Row, shape: Mapping[str, type]) -> bool:
    """Tells whether the fields are there with the types that they need; true and false are no numbers."""
    for field, wanted in shape.items():
        value = row.get(field)
        if not isinstance(value, wanted) or isinstance(value, bool):
            return False
    return True


_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def recomputed_hash(entry: Row) -> str:
    """SHA-256 over the entry as JSON in UTF-8: `_id` called `id`, without `hash`, keys sorted, no white space,
    the time as RFC 3339 in UTC with milliseconds and Z.
    """
    sealed = {"id" if field == "_id" else field: value for field, value in entry.items() if field != "hash"}
    sealed["created_at"] = entry["created_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return hashlib.sha256(_ENCODE(sealed).encode()).hexdigest()


class Chain:
    """The entries of one wallet in the order of `seq`, of which only the end is kept."""

    def __init__(self, wallet_id: str) -> None:
        self.wallet_id = wallet_id
        self.seq = 0
        self.available = 0
        self.held = 0
        self.head_hash = GENESIS
        # Of a sound wallet there is one.
        self.owners: set[tuple[str, str]] = set()

    def follow(self, entry: Row) -> Iterator[Breach]:
        """Takes the next entry in; what it says counts from here on, so that one defect is not reported twice."""
        subject = f"{self.wallet_id}#{entry.get('seq')}"
        if not is_shaped(entry, _ENTRY_SHAPE):
            yield Breach(Rule.MALFORMED, subject, f"entry {entry.get('_id')} lacks fields or has wrong types")
            return
        seq = entry["seq"]
        if seq == self.seq:
            yield Breach(Rule.SEQ_DUPLICATE, subject, "two entries have this number")
        elif seq != self.seq + 1:
            yield Breach(Rule.SEQ_GAP, subject, f"follows {self.seq}")
        yield from self._check_amounts(entry, subject)
        if entry["prev_hash"] != self.head_hash:
            yield Breach(Rule.HASH_CHAIN, subject, f"prev_hash {entry['prev_hash']} is not {self.head_hash}")
        hash_here = recomputed_hash(entry)
        if entry["hash"] != hash_here:
            yield Breach(Rule.HASH, subject, f"hash {entry['hash']} seals something else: it should be {hash_here}")
        self.seq = seq
        self.available, self.held = entry["available_after"], entry["held_after"]
        self.head_hash = entry["hash"]
        self.owners.add((entry["user_id"], entry["currency"]))

    def _check_amounts(self, entry: Row, subject: str) -> Iterator[Breach]:
        amount = entry["amount"]
        before = entry["available_before"], entry["held_before"]
        after = entry["available_after"], entry["held_after"]
        if amount <= 0:
            yield Breach(Rule.ENTRY_AMOUNT, subject, f"amount {amount}")
        if before != (self.available, self.held):
            yield Breach(Rule.ENTRY_CONTINUITY, subject, f"before {before}, the last after {self.available, self.held}")
        if min(after) < 0:
            yield Breach(Rule.BALANCE_NEGATIVE, subject, f"after {after}")
        effect = _EFFECTS.get(entry["type"])
        if effect is None:
            yield Breach(Rule.ENTRY_TYPE, subject, f"type {entry['type']}")
            return
        if entry["direction"] != effect.direction:
            yield Breach(Rule.ENTRY_TYPE, subject, f"{entry['type']} as a {entry['direction']}")
        due = before[0] + effect.available * amount, before[1] + effect.held * amount
        if after != due:
            detail = f"{entry['type']} of {amount} from {before} to {after} instead of {due}"
            yield Breach(Rule.ENTRY_ARITHMETIC, subject, detail)


def check_wallet(wallet_id: str, wallets: Sequence[Row], chain: Chain, tally: Tally) -> Iterator[Breach]:
    """The wallet against the end of its entries, and against what its operations account for."""
    if not wallets:
        if chain.seq:
            yield Breach(Rule.WALLET_UNKNOWN, wallet_id, f"entries up to {chain.seq} of a wallet that does not exist")
        if tally.held or tally.open:
            detail = f"{tally.open} open operations that hold {tally.held} of no wallet"
            yield Breach(Rule.WALLET_UNKNOWN, wallet_id, detail)
        return
    wallet = wallets[0]
    if not is_wallet(wallet):
        yield Breach(Rule.MALFORMED, wallet_id, "the wallet lacks fields or has wrong types")
        return
    balance = wallet["available"], wallet["held"]
    if balance != (chain.available, chain.held):
        detail = f"available and held {balance}, the last entry says {chain.available, chain.held}"
        yield Breach(Rule.WALLET_BALANCE, wallet_id, detail)
    if min(balance) < 0:
        yield Breach(Rule.BALANCE_NEGATIVE, wallet_id, f"available and held {balance}")
    if (wallet["seq"], wallet["head_hash"]) != (chain.seq, chain.head_hash):
        detail = f"seq {wallet['seq']} and {wallet['head_hash']}, the last entry is {chain.seq} with {chain.head_hash}"
        yield Breach(Rule.WALLET_HEAD, wallet_id, detail)
    yield from _check_counters(wallet, tally)
    foreign = chain.owners - {(wallet["user_id"], wallet["currency"])}
    if foreign:
        yield Breach(Rule.ENTRY_OWNER, wallet_id, f"entries of other users or currencies: {sorted(foreign)}")


def _check_counters(wallet: Row, tally: Tally) -> Iterator[Breach]:
    wallet_id = str(wallet["_id"])
    if wallet["held"] != tally.held:
        yield Breach(Rule.WALLET_HELD, wallet_id, f"held {wallet['held']}, its open operations hold {tally.held}")
    if wallet.get("open_operations") != tally.open:
        detail = f"open_operations {wallet.get('open_operations')}, there are {tally.open}"
        yield Breach(Rule.WALLET_OPEN, wallet_id, detail)
    owed, debts = wallet.get("owed", 0), wallet.get("debts") or []
    if owed != tally.owed:
        yield Breach(Rule.WALLET_OWED, wallet_id, f"owed {owed}, its returns lack {tally.owed}")
    if len(debts) != len(tally.debts) or {*debts} != tally.debts:
        yield Breach(Rule.WALLET_OWED, wallet_id, f"it owes for {debts}, open are {sorted(tally.debts)}")
    if tally.owed and wallet["available"]:
        detail = f"{wallet['available']} is available while {tally.owed} is owed"
        yield Breach(Rule.WALLET_OWED, wallet_id, detail)
    usage = tally.usage_differs(wallet.get("usage") or {})
    if usage is not None:
        yield Breach(Rule.WALLET_USAGE, wallet_id, usage)


def is_wallet(wallet: Row) -> bool:
    return is_shaped(wallet, _WALLET_SHAPE)


def is_entry(entry: Row) -> bool:
    return is_shaped(entry, _ENTRY_SHAPE)


def check_counterparty(entry: Row) -> Iterator[Breach]:
    """A whole entry's other side: known, fit for its type, and not the wallet itself."""
    subject, other = f"{entry['wallet_id']}#{entry['seq']}", entry["counterparty"]
    kind = _A_WALLET if other.startswith(WALLET_PREFIX) else other
    if kind not in _COUNTERPARTIES.get(entry["type"], {_A_WALLET, *_ACCOUNTS}):
        yield Breach(Rule.COUNTERPARTY, subject, f"{entry['type']} with {other}")
    elif other == entry["wallet_id"]:
        yield Breach(Rule.COUNTERPARTY, subject, f"{entry['type']} with the wallet itself")


def check_named(wallet_id: str, wallets: Sequence[Row], named_by: Sequence[Row]) -> Iterator[Breach]:
    """A wallet that entries name has to exist. Of those entries one is told, with how many there are."""
    if named_by and not wallets:
        (one,) = named_by
        detail = f"{one['entries']} entries name {wallet_id}, which does not exist; this is one"
        yield Breach(Rule.COUNTERPARTY, f"{one['wallet_id']}#{one['seq']}", detail)


def check_transaction(unequal: Row) -> Breach:
    """Reports a transaction in which wallets gave each other more, or less, than they received in one currency."""
    transaction_id, currency = unequal["_id"].get("transaction"), unequal["_id"].get("currency")
    detail = f"wallets gave each other {-unequal['change']} {currency} that none received"
    return Breach(Rule.DOUBLE_ENTRY, str(transaction_id), detail)


class Booked(NamedTuple):
    """Holds what wallets received from an account and what they gave to it, in minor units."""

    debit: int = 0
    credit: int = 0

    def plus(self, other: "Booked") -> "Booked":
        return Booked(self.debit + other.debit, self.credit + other.credit)

    @property
    def balance(self) -> int:
        return self.credit - self.debit


Sums = dict[tuple[str, str], Booked]
"""Keyed by currency and account."""


class Bookings:
    """Sums up entries, in any order, and compares the stored sums of each hour."""

    def __init__(self, stored: Sequence[Row], corrections: Sequence[Row] = ()) -> None:
        """`stored` in the order of their hours. A correction counts from the hour that it names."""
        self.totals: Sums = {}
        self._stored = [row for row in stored if isinstance(row.get("_id"), datetime)]
        self._malformed = [row for row in stored if not isinstance(row.get("_id"), datetime)]
        self._corrections = corrections
        # Ids begin with the milliseconds of their time, in 12 digits: those made before the hour's end are smaller.
        self._bounds = [f"ent_{epoch_ms(row['_id']):012x}" for row in self._stored]
        # By the first hour that has them; the last ones are in none yet.
        self._within: list[Sums] = [{} for _ in range(len(self._stored) + 1)]

    @property
    def hours(self) -> int:
        return len(self._stored) + len(self._malformed)

    def take(self, entry: Row) -> None:
        """A whole entry."""
        change = entry["available_after"] + entry["held_after"] - entry["available_before"] - entry["held_before"]
        if change == 0:
            return
        other = entry["counterparty"]
        key = entry["currency"], BETWEEN_WALLETS if other.startswith(WALLET_PREFIX) else other
        booked = Booked(max(change, 0), max(-change, 0))
        for sums in (self.totals, self._within[bisect_right(self._bounds, entry["_id"])]):
            sums[key] = sums.get(key, Booked()).plus(booked)

    def check(self) -> Iterator[Breach]:
        """Compares each hour with the one before and the entries between, so that one defect is reported once."""
        for row in self._malformed:
            yield Breach(Rule.MALFORMED, str(row.get("_id")), "the sums of no hour")
        corrections: list[tuple[datetime, Sums]] = []
        for row in self._corrections:
            corrected = _sums_in(row)
            if corrected is None or not isinstance(row.get("through"), datetime):
                yield Breach(Rule.MALFORMED, str(row.get("_id")), "a correction that lacks fields or has wrong types")
            else:
                corrections.append((row["through"], corrected))
        so_far: Sums = {}
        for row, within in zip(self._stored, self._within, strict=False):
            hour = row["_id"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
            due = defaultdict(Booked, so_far)
            for key, booked in within.items():
                due[key] = due[key].plus(booked)
            found = _sums_in(row)
            if found is None:
                yield Breach(Rule.MALFORMED, hour, "the hour's sums lack fields or have wrong types")
                so_far = due
                continue
            found = _corrected(found, [sums for through, sums in corrections if through <= row["_id"]])
            for key in sorted(due.keys() | found.keys()):
                stands, should_be = found.get(key, Booked()), due[key]
                if stands != should_be:
                    detail = f"{key[1]} in {key[0]} stands at {tuple(stands)}, its entries make {tuple(should_be)}"
                    yield Breach(Rule.ACCOUNT_SUMS, hour, detail)
            so_far = found


def _corrected(found: Sums, corrections: Sequence[Sums]) -> Sums:
    total = defaultdict(Booked, found)
    for sums in corrections:
        for key, booked in sums.items():
            total[key] = total[key].plus(booked)
    return dict(total)


def _sums_in(row: Row) -> Sums | None:
    sums: Sums = {}
    try:
        for one in row["sums"]:
            key = str(one["currency"]), str(one["account"])
            sums[key] = Booked(int(one["debit"].to_decimal()), int(one["credit"].to_decimal()))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        # The caller reports it.
        return None
    return sums


class Case(NamedTuple):
    """Gathers what carries one operation's id. `records` is keyed by collection."""

    id: str
    records: Mapping[str, Sequence[Row]]
    entries: Sequence[Row]
    outbox_rows: Sequence[Row]
    orders: Sequence[Row]
    incidents: Sequence[Row] = ()
    dead_letters: Sequence[Row] = ()

    @property
    def operation(self) -> Row | None:
        """The operation, where there is one that can be judged."""
        kind = self.kind
        if kind is None:
            return None
        found = self.records[kind.collection][0]
        return found if is_shaped(found, _OWNED_SHAPE if kind.has_owner else _OPERATION_SHAPE) else None

    @property
    def kind(self) -> Kind | None:
        """Tells the kind by the collection. The id's prefix must agree with it."""
        return next((kind for kind in KINDS if self.records.get(kind.collection)), None)

    def letters(self, state: str) -> list[Row]:
        """Lists the dead letters that were rows of the outbox."""
        return [one for one in self.dead_letters if (one.get("queue"), one.get("state")) == ("outbox", state)]

    @property
    def payments(self) -> list[Row]:
        return [payment for order in self.orders for payment in order.get("payments") or ()]

    @property
    def returns(self) -> list[Row]:
        """Lists what the bank has sent back, or taken back."""
        return [returned for order in self.orders for returned in order.get("returns") or ()]

    @property
    def is_disputed(self) -> bool:
        return any(incident.get("status") in _UNRESOLVED for incident in self.incidents)


def check_case(case: Case, now: datetime) -> Iterator[Breach]:
    """Compares one operation with its entries, its outbox row and the bank's journal."""
    operation, kind = case.operation, case.kind
    if operation is not None and kind is not None:
        yield from _check_state(case, operation, kind)
        yield from _check_entries(case, operation, kind)
        yield from _check_outbox(case, operation, kind, now)
        if kind.collection in AT_THE_BANK:
            yield from _check_payments(case, operation)
            # That the two are apart is known where there is an incident: people see to it.
            if not case.is_disputed:
                yield from _check_bank(case, operation)
        elif case.orders:
            yield Breach(Rule.OPERATION_STATE, case.id, f"the bank has an order of what is in {kind.collection}")
        return
    if kind is not None:
        yield Breach(Rule.MALFORMED, case.id, "the operation lacks fields or has wrong types")
        return
    outbox_rows = [row for row in case.outbox_rows if row.get("topic") not in _TO_PEOPLE]
    for what, rows in (("entry", case.entries), ("outbox row", outbox_rows), ("order at the bank", case.orders)):
        if rows:
            yield Breach(Rule.OPERATION_UNKNOWN, case.id, f"{what} ({len(rows)}) of an operation that does not exist")


def _check_state(case: Case, operation: Row, kind: Kind) -> Iterator[Breach]:
    others = [name for name, rows in case.records.items() if rows and name != kind.collection]
    if others or not case.id.startswith(f"{kind.prefix}_"):
        yield Breach(Rule.OPERATION_STATE, case.id, f"in {kind.collection}{' and in '.join(['', *others])}")
    if kind.collection in AT_THE_BANK and f"{operation.get('type')}s" != kind.collection:
        yield Breach(Rule.OPERATION_STATE, case.id, f"type {operation.get('type')} in {kind.collection}")
    if operation["status"] not in kind.statuses:
        yield Breach(Rule.OPERATION_STATE, case.id, f"status {operation['status']} in {kind.collection}")
    if operation["status"] == _BLOCKED and operation.get("failure_code") not in _BLOCKED_FOR:
        yield Breach(Rule.OPERATION_STATE, case.id, f"blocked for {operation.get('failure_code')}")
    if operation["amount"] <= 0:
        yield Breach(Rule.OPERATION_STATE, case.id, f"amount {operation['amount']}")


def _check_entries(case: Case, operation: Row, kind: Kind) -> Iterator[Breach]:
    """Compares the entries with the way to this state that they are closest to, of all ways that lead there."""
    entries = _summed(case.entries, kind.summed)
    found = Counter(str(entry.get("type")) for entry in entries)

    def distance(way: Sequence[Due]) -> int:
        types = Counter(due.type for due in way)
        return (types - found).total() + (found - types).total()

    way = min(kind.entries(operation), key=distance)
    due = Counter(one.type for one in way)
    state = f"{kind.collection[:-1]} in {operation['status']}"
    for entry_type in sorted(due - found):
        yield Breach(Rule.ENTRY_MISSING, case.id, f"{state} without {entry_type}")
    for entry_type in sorted(found - due):
        detail = f"{state} with {entry_type} {found[entry_type]} times instead of {due[entry_type]}"
        yield Breach(Rule.ENTRY_SURPLUS, case.id, detail)
    for entry in entries:
        fitting = [one for one in way if one.type == entry.get("type")]
        if fitting and not any(_is_as_due(entry, one) for one in fitting):
            said = {name: entry.get(name) for name in ("amount", "currency", "wallet_id")}
            yield Breach(Rule.ENTRY_MISMATCH, case.id, f"{entry.get('type')} has {said}, due is {fitting[0]}")
        is_owners = kind.has_owner and entry.get("wallet_id") == operation["wallet_id"]
        if is_owners and entry.get("user_id") != operation["user_id"]:
            detail = f"{entry.get('type')} has user_id {entry.get('user_id')}, the operation {operation['user_id']}"
            yield Breach(Rule.ENTRY_MISMATCH, case.id, detail)


def _summed(entries: Sequence[Row], types: frozenset[str]) -> Sequence[Row]:
    """Several entries of one of these types as one, where they agree in everything but the amount."""
    alike: dict[tuple[object, ...], Row] = {}
    others: list[Row] = []
    for entry in entries:
        if entry.get("type") not in types or not isinstance(entry.get("amount"), int):
            others.append(entry)
            continue
        key = tuple(entry.get(name) for name in ("type", "wallet_id", "user_id", "currency"))
        known = alike.get(key)
        alike[key] = {**entry, "amount": entry["amount"] + (0 if known is None else known["amount"])}
    return [*others, *alike.values()]


def _is_as_due(entry: Row, due: Due) -> bool:
    return (entry.get("amount"), entry.get("currency"), entry.get("wallet_id")) == (
        due.amount,
        due.currency,
        due.wallet_id,
    )


def _check_outbox(case: Case, operation: Row, kind: Kind, now: datetime) -> Iterator[Breach]:
    awaited = kind.awaited.get(operation["status"])
    rows = [row for row in case.outbox_rows if row.get("topic") not in _AFTERMATH]
    # A dead letter waits for a person, who puts it back.
    if awaited is not None and awaited not in {row.get("topic") for row in (*rows, *case.letters("dead"))}:
        yield Breach(Rule.OUTBOX_MISSING, case.id, f"{operation['status']}, and nothing will ever move it on")
    # What came back for an operation that has ended meanwhile goes with the worker's next visit.
    replayed = {letter.get("row_id") for letter in case.letters("replayed")}
    if awaited is None and any(row.get("_id") not in replayed for row in rows):
        yield Breach(Rule.OUTBOX_SURPLUS, case.id, f"still in the outbox in {operation['status']}")
    for row in case.outbox_rows:
        due_at = row.get("due_at")
        # What expires says itself when, and may well be asleep until then.
        latest = operation.get("expires_at") if row.get("topic") == "expiry" else None
        if not isinstance(due_at, datetime):
            # No worker's query for what is due would ever find it.
            yield Breach(Rule.MALFORMED, case.id, f"the outbox row is due at {due_at}")
        elif due_at - max(now, latest or now) > _DUE_AHEAD_LIMIT:
            detail = f"{operation['status']}, and nothing moves it on before {due_at.isoformat()}"
            yield Breach(Rule.OUTBOX_ASLEEP, case.id, detail)


def _check_payments(case: Case, operation: Row) -> Iterator[Breach]:
    """Finds what nothing excuses: the bank paid twice, or our own records do not name each other."""
    paid, return_id = len(case.payments), operation.get("return_id")
    if paid > 1:
        yield Breach(Rule.PAYMENT_DOUBLE, case.id, f"the bank paid {paid} times under one reference")
    if return_id is not None and (operation["status"], return_id) != ("success", f"rtn_{case.id.partition('_')[2]}"):
        yield Breach(Rule.RETURN_LINK, case.id, f"{operation['status']} with the return {return_id}")


def _check_bank(case: Case, operation: Row) -> Iterator[Breach]:
    """Compares the state with the bank's payments. One that is paid and open is on its way: see `waiting_since`."""
    status, paid = operation["status"], len(case.payments)
    if status == "success" and paid == 0:
        yield Breach(Rule.PAYMENT_MISSING, case.id, "success, but the bank's journal shows no payment")
    if (status in (*_UNDONE, _UNAPPROVED) or _is_unsubmitted(operation)) and paid > 0:
        yield Breach(Rule.PAYMENT_SURPLUS, case.id, f"{status}, but the bank paid")
    if operation.get("return_id") is not None and not case.returns:
        yield Breach(Rule.RETURN_SURPLUS, case.id, "returned here, but not by the bank's journal")
    for order in case.orders:
        if is_shaped(order, _ORDER_SHAPE):
            yield from _check_order(case.id, order, operation)
        else:
            yield Breach(Rule.MALFORMED, case.id, "the bank's order lacks fields or has wrong types")


def _check_order(operation_id: str, order: Row, operation: Row) -> Iterator[Breach]:
    ours = operation["amount"], operation["currency"], _ORDER_KINDS.get(operation["type"])
    theirs = order["amount"], order["currency"], order["kind"]
    if ours != theirs:
        yield Breach(Rule.ORDER_MISMATCH, operation_id, f"the bank's order says {theirs}, the operation {ours}")
    for payment in (*order["payments"], *(order.get("returns") or ())):
        if payment.get("amount") != operation["amount"]:
            detail = f"the bank moved {payment.get('amount')}, the operation says {operation['amount']}"
            yield Breach(Rule.ORDER_MISMATCH, operation_id, detail)
    # One that was blocked after an order may be canceled, and the bank refuse that order later: both come to nothing.
    is_ended = operation["status"] in (*_FINAL, _UNAPPROVED) or _is_unsubmitted(operation)
    is_alike = order["state"] == operation["status"] or (operation["status"], order["state"]) == ("canceled", "failed")
    if is_ended and not is_alike:
        detail = f"{operation['status']} here, {order['state']} at the bank"
        yield Breach(Rule.ORDER_STATE, operation_id, detail)
    if (order["state"] == "success") != bool(order["payments"]):
        detail = f"{order['state']} at the bank with {len(order['payments'])} payments"
        yield Breach(Rule.ORDER_STATE, operation_id, detail)


def _is_unsubmitted(operation: Row) -> bool:
    """Blocked before the bank ever heard of it."""
    return operation["status"] == _BLOCKED and not operation.get("attempts")


def waiting_since(case: Case) -> datetime | None:
    """Says when the bank paid what is open here, or sent back what is not returned here; None where neither is so."""
    operation = case.operation
    if operation is None:
        return None
    is_ended = operation["status"] in _FINAL
    if is_ended and case.is_disputed:
        return None
    on_the_way = case.payments if not is_ended else case.returns if operation.get("return_id") is None else ()
    if not on_the_way:
        return None
    moment = on_the_way[0].get("at")
    return moment if isinstance(moment, datetime) else None


def is_with_a_person(case: Case) -> bool:
    return case.operation is not None and (
        case.operation["status"] in (_IN_REVIEW, _BLOCKED) or bool(case.letters("dead"))
    )


def check_callback(callback: Row, letters: Sequence[Row], now: datetime, grace: timedelta | None) -> Iterator[Breach]:
    """Checks one row of the inbox and its dead letters.

    A callback that still waits after `grace` is a breach, unless it waits for a person; without `grace` it never is.
    A callback that contradicts the books is no breach where an incident tells of it. A return with such an incident
    waits for the end of its operation, and is looked at when it is due.
    """
    callback_id, result = str(callback.get("_id")), callback.get("result")
    payload = callback.get("payload")
    reference = payload.get("reference") if isinstance(payload, dict) else None
    if str(result) in _UNHEARD and callback.get("incident_id") is None:
        rule, detail = _UNHEARD[str(result)]
        yield Breach(rule, callback_id, detail.format(reference=reference))
    # Nothing became of one that has no result, even where it has lost its due_at and no worker would find it.
    if callback.get("due_at") is None and (result is not None or _is_aside(callback, letters)):
        return
    received_at, due_at = callback.get("received_at"), callback.get("due_at")
    if not isinstance(received_at, datetime):
        yield Breach(Rule.MALFORMED, callback_id, f"the callback was received at {received_at}")
        return
    since = due_at if callback.get("incident_id") is not None and isinstance(due_at, datetime) else received_at
    if grace is not None and now - since > grace:
        detail = f"what the bank said of {reference} waits since {(now - since).total_seconds():.0f} s"
        yield Breach(Rule.CALLBACK_OVERDUE, callback_id, detail)


def _is_aside(callback: Row, letters: Sequence[Row]) -> bool:
    """Put aside for a person, or given up by one."""
    ids = {letter.get("_id") for letter in letters if letter.get("state") in ("dead", "discarded")}
    return callback.get("dead_letter_id") in ids
