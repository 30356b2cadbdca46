"""A day of ours against the bank's statement: what each of its lines should have found here, and the other way.

Pure: lines, operations and returns are handed in.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from service.domain.bank_lines import (
    FLOWS,
    BankLine,
    Flow,
    LineNote,
    add_up_to,
    are_too_few_parts,
    without_corrections,
)
from service.domain.breaks import BreakKind, Facts, Finding
from service.domain.exact_json import exact
from service.domain.incidents import was_never_submitted
from service.domain.operations import Operation, OperationStatus

_DAY = timedelta(days=1)


class OurReturn(NamedTuple):
    """Money that came back, as we have it: under the operation that it belongs to."""

    id: str
    operation_id: str
    amount: int
    currency: str
    is_booked: bool


class OurLine(NamedTuple):
    """What our books say that the bank moved: one entry. `reference` is the operation, of returns too."""

    reference: str
    flow: Flow
    amount: int
    currency: str
    wallet_id: str
    at: datetime

    @property
    def is_return(self) -> bool:
        return self.flow in (Flow.RETURNED_PAYOUT, Flow.RETURNED_COLLECTION)


class DayTotal(NamedTuple):
    """Minor units of one currency that went one way; more than 64 bits hold, where it comes to that."""

    flow: Flow
    currency: str
    bank: int
    ours: int


class Reconciliation(NamedTuple):
    """One day compared, as 2026-11-20. `breaks` counts those that were seen, by kind; `set_aside` the lines of its
    statement that cannot be read, which are not among `lines`.
    """

    day: str
    first_compared_at: datetime
    compared_at: datetime
    comparisons: int
    lines: int
    ours: int
    totals: tuple[DayTotal, ...]
    breaks: dict[str, int]
    set_aside: int = 0
    # What was found and needs nobody, by `LineNote`.
    notes: Mapping[str, int] = {}


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Its beginning and its end in UTC, as the bank's statements have it."""
    start = datetime.combine(day, time(), UTC)
    return start, start + _DAY


def is_over(day: date, now: datetime, grace: timedelta) -> bool:
    """Complete, and so long ago that what was under way at its end has been booked on both sides."""
    return now >= day_bounds(day)[1] + grace


class Judged(NamedTuple):
    """What people have to look at, and what is told without that."""

    findings: list[Finding]
    notes: list[LineNote]


def judge_lines(
    reference: str,
    lines: Sequence[BankLine],
    operation: Operation | None,
    returns: Sequence[OurReturn],
    *,
    day: str,
    booked_before: datetime,
) -> Judged:
    """All that the bank has ever moved under a reference, against what we know of it.

    What was booked at `booked_before` or later may still be on its way to us.
    """
    wallet_id = None if operation is None else operation.wallet_id
    notes: list[LineNote] = []
    corrected = None if operation is None else without_corrections(lines, operation, len(returns))
    if corrected is not None:
        lines = corrected
        notes.append(LineNote.CORRECTED)
    payments = [line for line in lines if not line.is_return]
    returned = [line for line in lines if line.is_return]

    def finding(kind: BreakKind, expected: Facts, found: Facts) -> Finding:
        return Finding(kind, reference, expected, found, wallet_id, None if operation is None else reference, day)

    if operation is None:
        return Judged([finding(BreakKind.MISSING_HERE, {"operation": None}, _told(lines))], notes)
    findings: list[Finding] = []
    flow = FLOWS[operation.type, False]
    ours: Facts = {"amount": operation.amount, "currency": operation.currency, "flow": flow}
    if len(payments) > 1 and add_up_to(payments, operation):
        notes.append(LineNote.PAID_IN_PARTS)
    elif are_too_few_parts(payments, operation):
        findings.append(finding(BreakKind.PAID_IN_PARTS, ours, _told(payments)))
    else:
        findings += [finding(kind, *told) for kind, told in _judge_payments(payments, ours)]
    if payments and operation.status is not OperationStatus.SUCCESS:
        is_ended = operation.status in (
            OperationStatus.FAILED,
            OperationStatus.CANCELED,
            # The bank never heard of it from us.
            OperationStatus.REQUIRES_APPROVAL,
        ) or (operation.status is OperationStatus.BLOCKED and was_never_submitted(operation))
        told = {"status": operation.status.value}, {"status": "paid", **_told(payments)}
        if is_ended:
            findings.append(finding(BreakKind.STATE_DIFFERS, *told))
        elif min(line.booked_at for line in payments) < booked_before:
            findings.append(finding(BreakKind.UNAPPLIED, *told))
    findings += [finding(kind, *told) for kind, told in _judge_returns(operation, returned, returns, booked_before)]
    return Judged(findings, notes)


def _judge_payments(payments: Sequence[BankLine], ours: Facts) -> Iterable[tuple[BreakKind, tuple[Facts, Facts]]]:
    if len(payments) > 1:
        yield BreakKind.PAID_TWICE, ({"payments": 1}, _told(payments))
    if any((line.amount, line.currency, line.flow) != tuple(ours.values()) for line in payments):
        yield BreakKind.AMOUNT_DIFFERS, (ours, _told(payments))


def _judge_returns(
    operation: Operation, lines: Sequence[BankLine], ours: Sequence[OurReturn], booked_before: datetime
) -> Iterable[tuple[BreakKind, tuple[Facts, Facts]]]:
    settled = [line for line in lines if line.booked_at < booked_before]
    booked = [one for one in ours if one.is_booked]
    if len(settled) > len(ours):
        yield BreakKind.RETURN_MISSING_HERE, ({"returns": len(ours)}, {**_told(settled), "returns": len(settled)})
    elif len(settled) > len(booked):
        yield BreakKind.UNAPPLIED, ({"returns": len(booked)}, {**_told(settled), "returns": len(settled)})
    flow = FLOWS[operation.type, True]
    there = sorted((line.amount, line.currency, line.flow) for line in lines)
    here = sorted((one.amount, one.currency, flow) for one in ours)
    if len(there) == len(here) and there != here:
        amounts: Facts = {
            "amount": exact(sum(one.amount for one in ours)),
            "currency": operation.currency,
            "flow": flow,
        }
        yield BreakKind.RETURN_DIFFERS, (amounts, _told(lines))


def judge_ours(ours: OurLine, lines: Sequence[BankLine], day: str) -> list[Finding]:
    """Compares what our books say that the bank moved on that day with all that its statements have of it."""
    if any(line.is_return == ours.is_return for line in lines):
        # How often, and with which amount, is told where its lines are looked at.
        return []
    kind = BreakKind.RETURN_MISSING_THERE if ours.is_return else BreakKind.MISSING_THERE
    expected: Facts = {"amount": ours.amount, "currency": ours.currency, "flow": ours.flow}
    return [Finding(kind, ours.reference, expected, {"lines": 0}, ours.wallet_id, ours.reference, day)]


def fee_finding(day: str, currency: str, amount: int) -> Finding:
    """Returns all that the bank has kept for itself on a day in one currency. Our books have no entry for it."""
    expected: Facts = {"amount": 0, "currency": currency}
    return Finding(BreakKind.FEE, f"fees/{day}/{currency}", expected, {**expected, "amount": exact(amount)}, day=day)


def _told(lines: Sequence[BankLine]) -> dict[str, str | int | None]:
    """Of several lines the sum; where they are in several currencies, or go several ways, all of these."""
    return {
        "lines": len(lines),
        "amount": exact(sum(line.amount for line in lines)),
        "currency": "+".join(sorted({line.currency for line in lines})),
        "flow": "+".join(sorted({line.flow for line in lines})),
    }


def totals_of(bank: Iterable[tuple[Flow, str, int]], ours: Iterable[tuple[Flow, str, int]]) -> tuple[DayTotal, ...]:
    """Both sides by flow and currency."""
    sums: dict[tuple[Flow, str], list[int]] = defaultdict(lambda: [0, 0])
    for side, amounts in enumerate((bank, ours)):
        for flow, currency, amount in amounts:
            sums[flow, currency][side] += amount
    return tuple(DayTotal(flow, currency, *sums[flow, currency]) for flow, currency in sorted(sums))


class WatchedDay(NamedTuple):
    """A day that is to be compared: never compared yet, recent, or with something that nobody has dealt with.

    `due_at` is when it is to be compared next, past or future; `compared_at` None where it never was.
    """

    day: date
    compared_at: datetime | None
    due_at: datetime

    def age(self, now: datetime) -> timedelta:
        """Since its last comparison; of a day that was never compared, since it should have been."""
        return max(timedelta(), now - (self.compared_at or self.due_at))

    def is_overdue(self, now: datetime) -> bool:
        return now > self.due_at + OVERDUE_AFTER


# A comparison takes minutes and is tried every minute: after this long it is not under way, it does not happen.
OVERDUE_AFTER = timedelta(hours=1)


def watched_days(
    first: date,
    compared: dict[date, datetime],
    broken: Sequence[date],
    now: datetime,
    *,
    grace: timedelta,
    interval: timedelta,
    days_back: int,
) -> list[WatchedDay]:
    """The oldest first, from the first day with an entry on: those that never were compared, those that are recent,
    and those that have discrepancies which keep a day watched.
    """
    last = (now - grace).date() - _DAY
    days = {day for day in broken if day <= last}
    day = first
    while day <= last:
        days |= {day} if day not in compared or (last - day).days < days_back else set()
        day += _DAY
    return [
        WatchedDay(day, at, day_bounds(day)[1] + grace if at is None else at + interval)
        for day in sorted(days)
        for at in (compared.get(day),)
    ]
