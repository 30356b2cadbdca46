"""Says what each record of the ledger requires: entries, and its share in the counters of its wallet.

Like `ledger_rules`, written out a second time on purpose, over documents as the driver gives them.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

Row = dict[str, Any]


class Due(NamedTuple):
    """An entry that has to be there."""

    type: str
    wallet_id: str
    amount: int
    currency: str


class Share(NamedTuple):
    """Holds a record's share in its wallet: held money, open records, what counts for the limits, what is owed."""

    held: int = 0
    open: int = 0
    counted: int = 0
    operations: int = 0
    owed: int = 0


class Kind(NamedTuple):
    """Describes one kind of record: its collection, its statuses, and what each requires.

    `entries` gives the ways in which a record may have come to its state, of which one has to fit.
    """

    collection: str
    prefix: str
    statuses: frozenset[str]
    # In these the outbox has a row of this topic, and in no other has it any.
    awaited: Mapping[str, str]
    entries: Callable[[Row], tuple[tuple[Due, ...], ...]]
    share: Callable[[Row], Share]
    fields: tuple[str, ...] = ()
    # Entries of these types may be several: what is due is their sum.
    summed: frozenset[str] = frozenset()
    # Whose idempotency key its answer stands under, and whether it belongs to one person's wallet.
    asked_by: str = "user_id"
    has_owner: bool = True


@dataclass(slots=True)
class Tally:
    """The shares of all records of one wallet, those of the limits by their windows."""

    wallet_id: str
    held: int = 0
    open: int = 0
    owed: int = 0
    debts: set[str] = field(default_factory=set)
    count_by_hour: Counter[str] = field(default_factory=Counter)
    # What counts for the limits, and when it was made in milliseconds: 16 bytes each, of a wallet with millions too.
    counted: "array[int]" = field(default_factory=lambda: array("q"))
    counted_ms: "array[int]" = field(default_factory=lambda: array("q"))
    # The hour of the last record that was counted when it was made, whatever became of it since.
    counted_in: str = ""

    def add(self, share: Share, row: Row, *, is_counted: bool) -> None:
        moment = row["created_at"].isoformat()
        if is_counted:
            self.counted_in = max(self.counted_in, moment[:13])
        self.held += share.held
        self.open += share.open
        self.owed += share.owed
        if share.owed:
            self.debts.add(str(row["_id"]))
        self.count_by_hour[moment[:13]] += share.operations
        if share.counted:
            self.counted.append(share.counted)
            self.counted_ms.append(epoch_ms(row["created_at"]))

    def take(self, other: "Tally") -> None:
        self.held += other.held
        self.open += other.open
        self.owed += other.owed
        self.debts |= other.debts
        self.count_by_hour.update(other.count_by_hour)
        self.counted.extend(other.counted)
        self.counted_ms.extend(other.counted_ms)
        self.counted_in = max(self.counted_in, other.counted_in)

    def usage_differs(self, usage: Row) -> str | None:
        """Compares the wallet's counters with its records, window by window; None where they agree.

        Counters move on with whatever is counted, so that they can not stand in an hour before the last record's.
        """
        hour, count = str(usage.get("hour") or ""), usage.get("hour_count")
        if hour < self.counted_in:
            return f"the counters stand in {hour or 'no hour'}, the last operation is of {self.counted_in}"
        if count != self.count_by_hour[hour]:
            return f"hour_count of {hour or 'no window'} is {count}, the operations make {self.count_by_hour[hour]}"
        for window, first_day in (("day", ""), ("month", "-01")):
            named, found = usage.get(window), usage.get(f"{window}_amount")
            # A sum may pass 64 bits; its carry says how often it has passed 2^53. Older wallets have none.
            carried = usage.get(f"{window}_carry", 0)
            if isinstance(found, int) and isinstance(carried, int):
                found += carried * 2**53
            due = self._counted_since(usage.get(f"{window}_since"), f"{named}{first_day}" if named else None)
            if found != due:
                return f"{window}_amount of {named or 'no window'} is {found}, the operations make {due}"
        return None

    def _counted_since(self, since: object, first_day: str | None) -> int:
        """Counts what lies after the counter began. Old counters do not say when: they began with that day in UTC."""
        if first_day is None:
            return 0
        if not isinstance(since, datetime):
            since = datetime.fromisoformat(first_day).replace(tzinfo=UTC)
        since_ms = epoch_ms(since)
        return sum(amount for amount, made in zip(self.counted, self.counted_ms, strict=True) if made >= since_ms)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_ms(moment: datetime) -> int:
    """Counts milliseconds since 1970. Ids begin with that number, in hexadecimal digits."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


_PURSUED: Final = ("pending", "processing")
_IN_REVIEW: Final = "requires_review"
_UNAPPROVED: Final = "requires_approval"
_OWED: Final = "owed"
_BLOCKED: Final = "blocked"
_UNDONE: Final = ("failed", "canceled")


def _deposit_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    return ((_own(row, "DEPOSIT"),) if row["status"] == "success" else (),)


def _deposit_share(row: Row) -> Share:
    return Share(open=int(row["status"] in (*_PURSUED, _IN_REVIEW)))


def _withdrawal_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    ends = {"success": "WITHDRAWAL_SETTLEMENT"} | dict.fromkeys(_UNDONE, "WITHDRAWAL_REFUND")
    end = ends.get(row["status"])
    return ((_own(row, "WITHDRAWAL"), *(() if end is None else (_own(row, end),))),)


def _withdrawal_share(row: Row) -> Share:
    """Counts nothing of a withdrawal that the bank sent back, whatever became of the money since."""
    share = _reserved_share(row)
    return share if row.get("return_id") is None else share._replace(counted=0, operations=0)


def _reserved_share(row: Row) -> Share:
    """Holds the amount while the record is open, and counts it unless it came to nothing.

    After a wrong code it still counts as an operation.
    """
    is_open = row["status"] not in ("success", *_UNDONE)
    is_counted = row["status"] not in _UNDONE
    amount = row["amount"]
    operations = int(is_counted or row.get("keeps_count") is True)
    return Share(amount * is_open, int(is_open), amount * is_counted, operations)


def _transfer_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    held, released = _own(row, "HOLD"), _own(row, "HOLD_RELEASE")
    paid = _own(row, "TRANSFER_OUT"), Due("TRANSFER_IN", row["to_wallet_id"], row["amount"], row["currency"])
    match row["status"]:
        case "success":
            return paid, (held, released, *paid)
        case "requires_approval":
            return ((held,),)
        case _:
            return ((held, released),)


def _transfer_share(row: Row) -> Share:
    """Counts nothing of a transfer that was reversed: its sender may send as much again."""
    share = _reserved_share(row)
    return share if row.get("reversal_id") is None else share._replace(counted=0, operations=0)


def _hold_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    held, captured = _own(row, "HOLD"), row["captured_amount"]
    # Each part that a return took came back first; a hold of which nothing is left was taken.
    parts = tuple(_own(row, "HOLD_RELEASE")._replace(amount=amount) for amount in _takings(row))
    left = row["amount"] - sum(_takings(row))
    match row["status"]:
        case "held":
            return ((held, *parts),)
        case "taken":
            return ((held, *parts),)
        case "captured":
            rest, to = left - captured, row["to_wallet_id"]
            taken = _own(row, "HOLD_CAPTURE")._replace(amount=captured)
            paid = () if to is None else (Due("TRANSFER_IN", to, captured, row["currency"]),)
            back = () if not rest else (_own(row, "HOLD_RELEASE")._replace(amount=rest),)
            return ((held, *parts, taken, *paid, *back),)
        case _:
            return ((held, *parts, _own(row, "HOLD_RELEASE")._replace(amount=left)),)


def _takings(row: Row) -> list[int]:
    """Lists the amounts that returns took of a hold. Rows of earlier releases have none."""
    takings = row.get("takings") or []
    return [one["amount"] for one in takings if isinstance(one, dict) and isinstance(one.get("amount"), int)]


def _hold_share(row: Row) -> Share:
    """The rest of a capture gives its amount back, but the hold still was one; so does what a return took."""
    match row["status"]:
        case "held":
            left = row["amount"] - sum(_takings(row))
            return Share(left, 1, left, 1)
        case "captured":
            return Share(counted=row["captured_amount"], operations=1)
        case _:
            return Share()


def _adjustment_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    return ((_own(row, str(row["type"]).upper()),) if row["status"] == "success" else (),)


def _adjustment_share(row: Row) -> Share:
    return Share(open=int(row["status"] == _UNAPPROVED))


def _reversal_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    taken = row["amount"] - row["shortfall"]
    due = (
        ("REVERSAL_OUT", row["from_wallet_id"], taken),
        ("REVERSAL_IN", row["to_wallet_id"], taken),
        ("REVERSAL_IN", row["to_wallet_id"], row["shortfall"]),
    )
    return (tuple(Due(kind, to, amount, row["currency"]) for kind, to, amount in due if to is not None and amount),)


def _conversion_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    arrived = Due("CONVERSION_IN", row["to_wallet_id"], row["to_amount"], row["to_currency"])
    return ((_own(row, "CONVERSION_OUT"), arrived),)


def _conversion_share(row: Row) -> Share:
    """Conversions of older releases lack `is_counted`, and do not count."""
    return Share(counted=row["amount"], operations=1) if row.get("is_counted") is True else Share()


def _return_entries(row: Row) -> tuple[tuple[Due, ...], ...]:
    """Requires entries for what a return has moved: nothing while it waits for a person, else what is not owed."""
    moved = {"success": row["amount"], _OWED: row["amount"] - _owed(row)}.get(row["status"], 0)
    return ((_own(row, f"{row['type']}_return".upper())._replace(amount=moved),) if moved else (),)


def _return_share(row: Row) -> Share:
    return Share(open=int(row["status"] in (_IN_REVIEW, _OWED)), owed=_owed(row) if row["status"] == _OWED else 0)


def _owed(row: Row) -> int:
    """Reads what the wallet still owes. Rows of earlier releases do not say, and owe nothing."""
    owed = row.get("owed", 0)
    return owed if isinstance(owed, int) else 0


def _no_share(row: Row) -> Share:  # noqa: ARG001 as its neighbours
    return Share()


def _own(row: Row, entry_type: str) -> Due:
    return Due(entry_type, row["wallet_id"], row["amount"], row["currency"])


# What counts for the limits from the moment it is made.
COUNTED_KINDS: Final = frozenset({"withdrawals", "transfers", "holds"})
# What a record needs to be counted.
TALLIED: Final[Mapping[str, type]] = {"wallet_id": str, "status": str, "amount": int, "created_at": datetime}

KINDS: Final = (
    Kind(
        "deposits",
        "dep",
        frozenset({*_PURSUED, "success", "failed", _IN_REVIEW}),
        dict.fromkeys(_PURSUED, "bank_order"),
        _deposit_entries,
        _deposit_share,
        fields=("return_id",),
    ),
    Kind(
        "withdrawals",
        "wdr",
        frozenset({*_PURSUED, "success", *_UNDONE, _IN_REVIEW, _UNAPPROVED, _BLOCKED}),
        {**dict.fromkeys(_PURSUED, "bank_order"), _UNAPPROVED: "expiry"},
        _withdrawal_entries,
        _withdrawal_share,
        fields=("return_id", "failure_code", "attempts"),
    ),
    Kind(
        "transfers",
        "trf",
        frozenset({"success", "canceled", _UNAPPROVED}),
        {_UNAPPROVED: "expiry"},
        _transfer_entries,
        _transfer_share,
        fields=("to_wallet_id", "reversal_id"),
    ),
    Kind(
        "holds",
        "hld",
        frozenset({"held", "captured", "released", "expired", "taken"}),
        {"held": "expiry"},
        _hold_entries,
        _hold_share,
        fields=("to_wallet_id", "captured_amount", "takings", "expires_at"),
    ),
    Kind(
        "adjustments",
        "adj",
        frozenset({"success", "rejected", _UNAPPROVED}),
        {},
        _adjustment_entries,
        _adjustment_share,
        asked_by="requested_by",
    ),
    Kind(
        "reversals",
        "rev",
        frozenset({"success"}),
        {},
        _reversal_entries,
        _no_share,
        fields=("from_wallet_id", "to_wallet_id", "shortfall"),
        asked_by="requested_by",
        has_owner=False,
    ),
    Kind(
        "conversions",
        "cnv",
        frozenset({"success"}),
        {},
        _conversion_entries,
        _conversion_share,
        fields=("to_wallet_id", "to_amount", "to_currency", "is_counted"),
    ),
    Kind(
        "returns",
        "rtn",
        frozenset({"success", _OWED, _IN_REVIEW}),
        {},
        _return_entries,
        _return_share,
        fields=("operation_id", "owed"),
        summed=frozenset({"DEPOSIT_RETURN", "POINTS_RETURN"}),
    ),
)
