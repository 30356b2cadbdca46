"""Limits on what leaves a wallet, and the counters that they are held against.

Windows are those of the calendar in UTC: an hour, a day, a month. What is counted is the operation, in the windows in
which it was asked for; an operation that comes to nothing gives its share back to those of them that still run.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple


class LimitName(StrEnum):
    PER_TRANSACTION = "per_transaction"
    PER_DAY = "per_day"
    PER_MONTH = "per_month"
    COUNT_PER_HOUR = "count_per_hour"


class Limits(NamedTuple):
    """Minor units, and for the hour a number. 0 is no limit; None, in an override, leaves the usual one."""

    per_transaction: int | None = None
    per_day: int | None = None
    per_month: int | None = None
    count_per_hour: int | None = None


# What an amount of a counter stays below; how often it has passed that is its carry.
_CARRY = 2**53


class Usage(NamedTuple):
    """What was counted in the windows named: '2026-11-21T12', '2026-11-21', '2026-11'.

    A sum of payments has no bound, and 64 bits do: the day's is `day_carry` * 2^53 + `day_amount`, and likewise the
    month's. So no payment can overflow a counter, and whatever is given back leaves it exact. It would not be, if the
    counter stopped at its largest number: nobody could tell what is left of it once something is given back.
    """

    hour: str = ""
    hour_count: int = 0
    day: str = ""
    day_amount: int = 0
    month: str = ""
    month_amount: int = 0
    day_carry: int = 0
    month_carry: int = 0

    @property
    def day_total(self) -> int:
        return self.day_carry * _CARRY + self.day_amount

    @property
    def month_total(self) -> int:
        return self.month_carry * _CARRY + self.month_amount


class Exceeded(NamedTuple):
    """`left` is what would still pass; `resets_at` is None where waiting does not help."""

    limit: LimitName
    ceiling: int
    left: int
    resets_at: datetime | None


class LimitState(NamedTuple):
    """One limit as it stands: without a ceiling nothing runs out."""

    limit: LimitName
    ceiling: int | None
    used: int
    resets_at: datetime | None


def effective_limits(usual: Limits, override: Limits | None) -> Limits:
    if override is None:
        return usual
    return Limits(*(own if own is not None else default for own, default in zip(override, usual, strict=True)))


def usage_at(usage: Usage, at: datetime) -> Usage:
    """The counters at that time: a window that has ended counts for nothing."""
    hour, day, month = _windows(at)
    return _usage(
        (hour, usage.hour_count if usage.hour == hour else 0),
        (day, usage.day_total if usage.day == day else 0),
        (month, usage.month_total if usage.month == month else 0),
    )


def charge(usage: Usage, amount: int, at: datetime) -> Usage:
    hour, day, month = _windows(at)
    return _usage(
        (hour, 1 + (usage.hour_count if usage.hour == hour else 0)),
        (day, amount + (usage.day_total if usage.day == day else 0)),
        (month, amount + (usage.month_total if usage.month == month else 0)),
    )


def give_back(usage: Usage, amount: int, *, count: int, charged_at: datetime, at: datetime) -> Usage:
    """Takes out what an operation of `charged_at` had counted for, where the window of that time still runs."""
    now = usage_at(usage, at)
    hour, day, month = _windows(charged_at)
    return _usage(
        (now.hour, now.hour_count - (count if now.hour == hour else 0)),
        (now.day, now.day_total - (amount if now.day == day else 0)),
        (now.month, now.month_total - (amount if now.month == month else 0)),
    )


def _usage(hour: tuple[str, int], day: tuple[str, int], month: tuple[str, int]) -> Usage:
    """From each window's name and total."""
    day_carry, day_amount = divmod(day[1], _CARRY)
    month_carry, month_amount = divmod(month[1], _CARRY)
    return Usage(*hour, day[0], day_amount, month[0], month_amount, day_carry, month_carry)


def limit_states(limits: Limits, usage: Usage, at: datetime) -> tuple[LimitState, ...]:
    """All four, from the shortest reach to the longest."""
    now = usage_at(usage, at)
    next_hour, next_day, next_month = _window_ends(at)
    return (
        LimitState(LimitName.PER_TRANSACTION, limits.per_transaction or None, 0, None),
        LimitState(LimitName.COUNT_PER_HOUR, limits.count_per_hour or None, now.hour_count, next_hour),
        LimitState(LimitName.PER_DAY, limits.per_day or None, now.day_total, next_day),
        LimitState(LimitName.PER_MONTH, limits.per_month or None, now.month_total, next_month),
    )


def find_exceeded(limits: Limits, usage: Usage, amount: int, at: datetime) -> Exceeded | None:
    """The first limit that another operation of this amount would go beyond."""
    if not any(limits):
        return None
    for state in limit_states(limits, usage, at):
        if state.ceiling is None:
            continue
        step = 1 if state.limit is LimitName.COUNT_PER_HOUR else amount
        left = max(0, state.ceiling - state.used)
        if step > left:
            return Exceeded(state.limit, state.ceiling, left, state.resets_at)
    return None


def _windows(at: datetime) -> tuple[str, str, str]:
    text = at.isoformat()
    return text[:13], text[:10], text[:7]


def _window_ends(at: datetime) -> tuple[datetime, datetime, datetime]:
    hour = at.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    # The 28th exists in every month, and four days later it is the next one everywhere.
    next_month = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    return hour + timedelta(hours=1), day + timedelta(days=1), next_month
