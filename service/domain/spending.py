"""Spending: which entries count as money spent, and what they come to by month and category."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from service.domain.entries import EntryType

_MONTHS_IN_YEAR = 12

# What somebody pays, when they order it: a withdrawal counts at acceptance, so its settlement does not count again.
# What is only set aside (HOLD), exchanged (CONVERSION_OUT) or redeemed (VOUCHER) is not spent; a hold is, on capture.
PAYING = frozenset({EntryType.WITHDRAWAL, EntryType.TRANSFER_OUT, EntryType.HOLD_CAPTURE, EntryType.DEBIT})
# What came back of it. It counts in the month in which it comes back, which may thereby show less than nothing.
RETURNING = frozenset({EntryType.WITHDRAWAL_REFUND, EntryType.REVERSAL_IN, EntryType.WITHDRAWAL_RETURN})


class MonthlySum(NamedTuple):
    """The entries of one month, category and type together; `month` is 2026-01."""

    month: str
    category: str | None
    type: EntryType
    amount: int
    entries: int


@dataclass(slots=True)
class Spent:
    """Minor units and numbers of entries. Spent is what was paid less what came back."""

    paid: int = 0
    returned: int = 0
    paid_count: int = 0
    returned_count: int = 0

    @property
    def spent(self) -> int:
        return self.paid - self.returned

    def add(self, one: MonthlySum) -> None:
        if one.type in PAYING:
            self.paid += one.amount
            self.paid_count += one.entries
        else:
            assert one.type in RETURNING, one.type  # noqa: S101 what counts on neither side must not be asked for
            self.returned += one.amount
            self.returned_count += one.entries


@dataclass(slots=True)
class MonthlySpending:
    month: str
    total: Spent = field(default_factory=Spent)
    by_category: dict[str | None, Spent] = field(default_factory=dict)


def months_from_to(from_month: str, to_month: str) -> list[str]:
    """'2026-11', '2027-01' → ['2026-11', '2026-12', '2027-01']; empty where they are the other way round."""
    first, last = _number(from_month), _number(to_month)
    return [f"{number // _MONTHS_IN_YEAR:04}-{number % _MONTHS_IN_YEAR + 1:02}" for number in range(first, last + 1)]


def start_of(month: str, *, later: int = 0) -> datetime:
    """Returns the first moment of the month that is `later` months after this one, in UTC."""
    year, index = divmod(_number(month) + later, _MONTHS_IN_YEAR)
    return datetime(year, index + 1, 1, tzinfo=UTC)


def _number(month: str) -> int:
    year, number = month.split("-")
    return int(year) * _MONTHS_IN_YEAR + int(number) - 1


def add_up(months: Sequence[str], sums: Iterable[MonthlySum]) -> list[MonthlySpending]:
    """Every month in the order given, also those in which nothing happened."""
    by_month = {month: MonthlySpending(month) for month in months}
    for one in sums:
        month = by_month[one.month]
        month.total.add(one)
        month.by_category.setdefault(one.category, Spent()).add(one)
    return list(by_month.values())


def spending_view(month: MonthlySpending) -> dict[str, Any]:
    """Returns the month as the API shows it: the categories on which most was spent first."""
    by_category = sorted(month.by_category.items(), key=lambda item: (-item[1].spent, item[0] or ""))
    return {
        "month": month.month,
        **_spent_view(month.total),
        "categories": [{"category": category, **_spent_view(spent)} for category, spent in by_category],
    }


def _spent_view(spent: Spent) -> dict[str, int]:
    return {
        "spent": spent.spent,
        "paid": spent.paid,
        "returned": spent.returned,
        "paid_count": spent.paid_count,
        "returned_count": spent.returned_count,
    }
