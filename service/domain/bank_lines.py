"""The bank's lines as they are compared, and what several of them together are. Pure.

- A **correction**: on one day (UTC) the bank takes back by itself what it has booked wrongly. Both lines are left out
  where what remains is what our books say; else nothing is, and each line is judged as it stands.
- **Parts**: several payments of one order that add up to it exactly.
- A **batch booking**: one line under a reference of the bank's own, of exactly what all orders come to that are missing
  on that day in its currency and direction.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from service.domain.breaks import BreakKind, Finding
from service.domain.operations import Operation, OperationStatus, OperationType


class Flow(StrEnum):
    """Which way money went, and whether it came back."""

    PAYOUT = "payout"
    COLLECTION = "collection"
    RETURNED_PAYOUT = "returned_payout"
    RETURNED_COLLECTION = "returned_collection"
    # What the bank keeps for itself: under no order of ours.
    FEE = "fee"


FLOWS = {
    (OperationType.WITHDRAWAL, False): Flow.PAYOUT,
    (OperationType.DEPOSIT, False): Flow.COLLECTION,
    (OperationType.WITHDRAWAL, True): Flow.RETURNED_PAYOUT,
    (OperationType.DEPOSIT, True): Flow.RETURNED_COLLECTION,
}


class BankLine(NamedTuple):
    """One line of a statement as we keep it."""

    reference: str
    flow: Flow
    amount: int
    currency: str
    booked_at: datetime

    @property
    def is_return(self) -> bool:
        return self.flow in (Flow.RETURNED_PAYOUT, Flow.RETURNED_COLLECTION)


class LineNote(StrEnum):
    """What was found and needs nobody."""

    PAID_IN_PARTS = "paid_in_parts"
    CORRECTED = "corrected"


_NOT_PAID = (OperationStatus.FAILED, OperationStatus.CANCELED)


def add_up_to(payments: Sequence[BankLine], operation: Operation) -> bool:
    """Tells whether these are the operation, in one piece or in parts."""
    flow = FLOWS[operation.type, False]
    is_alike = all((line.currency, line.flow) == (operation.currency, flow) for line in payments)
    return bool(payments) and is_alike and sum(line.amount for line in payments) == operation.amount


def are_too_few_parts(payments: Sequence[BankLine], operation: Operation) -> bool:
    """Tells whether there are several payments which together are less than the operation."""
    flow = FLOWS[operation.type, False]
    is_alike = all((line.currency, line.flow) == (operation.currency, flow) for line in payments)
    return len(payments) > 1 and is_alike and sum(line.amount for line in payments) < operation.amount


def without_corrections(lines: Sequence[BankLine], operation: Operation, returns_here: int) -> list[BankLine] | None:
    """Returns the lines without those that the bank has corrected by itself; None where that does not explain them.

    `returns_here` is how many returns our books have: those are no corrections.
    """
    left = sorted(lines, key=lambda line: line.booked_at)
    taken_back = [line for line in left if line.is_return]
    if len(taken_back) <= returns_here:
        return None
    for back in taken_back[: len(taken_back) - returns_here]:
        wrong = next((line for line in reversed(left) if _is_undone_by(line, back)), None)
        if wrong is None:
            return None
        left.remove(wrong)
        left.remove(back)
    payments = [line for line in left if not line.is_return]
    is_explained = (
        add_up_to(payments, operation)
        if operation.status is OperationStatus.SUCCESS
        else operation.status in _NOT_PAID and not payments
    )
    return left if is_explained else None


_UNDOES = {Flow.RETURNED_PAYOUT: Flow.PAYOUT, Flow.RETURNED_COLLECTION: Flow.COLLECTION}


def _is_undone_by(line: BankLine, back: BankLine) -> bool:
    is_same_money = (line.flow, line.amount, line.currency) == (_UNDOES[back.flow], back.amount, back.currency)
    return is_same_money and line.booked_at <= back.booked_at and _day(line.booked_at) == _day(back.booked_at)


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def told_as_batches(strangers: Sequence[Finding], missing: Sequence[Finding]) -> list[Finding]:
    """The findings of one day, with one `batch_booking` in place of a line of nobody's and of all orders that it pays.

    `strangers` are of kind `missing_here`, `missing` of kind `missing_there`. What else could make the sum by chance is
    not tried: only all that is missing in one currency and direction.
    """
    groups: dict[tuple[object, object], list[Finding]] = defaultdict(list)
    for one in missing:
        groups[one.expected["flow"], one.expected["currency"]].append(one)
    told: list[Finding] = []
    for stranger in strangers:
        place = stranger.found["flow"], stranger.found["currency"]
        paid = groups.get(place, [])
        amount = sum(one.expected["amount"] for one in paid if isinstance(one.expected["amount"], int))
        if len(paid) > 1 and stranger.found["amount"] == amount:
            del groups[place]
            expected = {**paid[0].expected, "amount": amount, "operations": len(paid)}
            told.append(stranger._replace(kind=BreakKind.BATCH_BOOKING, expected=expected))
        else:
            told.append(stranger)
    return told + [one for group in groups.values() for one in group]
