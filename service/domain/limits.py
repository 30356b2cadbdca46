"""Limits on what leaves a wallet, and the counters that they are held against.

Windows are those of the calendar: a day and a month in the zone of the wallet, an hour in UTC. What is counted is the
operation, in the windows in which it was asked for. An operation that comes to nothing gives its share back to those
windows that have counted it and still run.
"""

from datetime import UTC, date, datetime, timedelta, tzinfo
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

    @property
    def bound_amounts(self) -> bool:
        """Tells whether one of them is in money, not only in a number of payments."""
        return bool(self.per_transaction or self.per_day or self.per_month)


# `day_amount` and `month_amount` stay below this; their carries count how often the sum has passed it.
_CARRY = 2**53
# Times are kept in milliseconds.
_MOMENT = timedelta(milliseconds=1)


class Usage(NamedTuple):
    """What was counted in the windows named: '2026-11-21T12', '2026-11-21', '2026-11', and since when.

    A day or a month ends when a later date begins in the wallet's zone of that time. So each date has its limit once.
    A change of the zone may give a window a later date: see `change_zone`.
    `day_until` and `month_until` are the end that the window had before that change, None where there was none.
    `day_since` and `month_since` are when the counter began: payments from before are not in it. Counters of older
    releases lack them, and began with the date in UTC.

    A sum of payments may pass 64 bits: the day's is `day_carry` * 2^53 + `day_amount`, and likewise the month's. So no
    payment overflows a counter. One that stopped at a largest number would be wrong once something is given back.
    """

    hour: str = ""
    hour_count: int = 0
    day: str = ""
    day_amount: int = 0
    month: str = ""
    month_amount: int = 0
    day_carry: int = 0
    month_carry: int = 0
    day_since: datetime | None = None
    month_since: datetime | None = None
    day_until: datetime | None = None
    month_until: datetime | None = None

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


def usage_at(usage: Usage, at: datetime, zone: tzinfo = UTC) -> Usage:
    """Returns the counters at that time: a window that has ended counts for nothing."""
    return _counted(usage, 0, 0, at, zone)


def charge(usage: Usage, amount: int, at: datetime, zone: tzinfo = UTC) -> Usage:
    """One more operation. `at` is no earlier than that of any before it."""
    return _counted(usage, 1, amount, at, zone)


def _counted(usage: Usage, count: int, amount: int, at: datetime, zone: tzinfo) -> Usage:
    hour = _hour(at)
    today = at.astimezone(zone).isoformat()
    day, day_total, day_since, day_until = today[:10], amount, at, None
    month, month_total, month_since, month_until = today[:7], amount, at, None
    # Keep a later date: `change_zone` has extended this window.
    if usage.day >= day:
        day, day_total, day_since = usage.day, usage.day_total + amount, _began(usage.day_since, usage.day)
        day_until = usage.day_until
    if usage.month >= month:
        month, month_total = usage.month, usage.month_total + amount
        month_since, month_until = _began(usage.month_since, f"{usage.month}-01"), usage.month_until
    day_carry, day_amount = divmod(day_total, _CARRY)
    month_carry, month_amount = divmod(month_total, _CARRY)
    hour_count = count + usage.hour_count if usage.hour == hour else count
    return Usage(
        hour, hour_count, day, day_amount, month, month_amount, day_carry, month_carry,
        day_since, month_since, day_until, month_until,
    )  # fmt: skip


def change_zone(usage: Usage, at: datetime, before: tzinfo, after: tzinfo) -> Usage:
    """Makes the running day and month last in the new zone for at least as long as they would have in the old one.

    Each window ends with the date, in the new zone, that contains its last millisecond in the old zone. So no change
    gives a new limit early. The next changes go by the same end until it has passed: whoever changes back has the end
    from before. `at` is later than all that was counted.
    """
    if not usage.day:
        return usage
    now = usage_at(usage, at, before)
    day_until = _end_to_keep(now.day_until, at, _end_of_day(now, before))
    month_until = _end_to_keep(now.month_until, at, _end_of_month(now, before))
    return now._replace(
        day=(day_until - _MOMENT).astimezone(after).isoformat()[:10],
        month=(month_until - _MOMENT).astimezone(after).isoformat()[:7],
        day_until=day_until,
        month_until=month_until,
    )


def _end_to_keep(known: datetime | None, at: datetime, end: datetime) -> datetime:
    return end if known is None or known <= at else known


def give_back(usage: Usage, amount: int, *, count: int, charged_at: datetime) -> Usage:
    """Takes out what an operation of `charged_at` had counted for, where it was counted in these windows."""
    is_in_day = usage.day != "" and charged_at >= _began(usage.day_since, usage.day)
    is_in_month = usage.month != "" and charged_at >= _began(usage.month_since, f"{usage.month}-01")
    day_carry, day_amount = divmod(usage.day_total - amount * is_in_day, _CARRY)
    month_carry, month_amount = divmod(usage.month_total - amount * is_in_month, _CARRY)
    return usage._replace(
        hour_count=usage.hour_count - (count if usage.hour == _hour(charged_at) else 0),
        day_amount=day_amount,
        day_carry=day_carry,
        month_amount=month_amount,
        month_carry=month_carry,
    )


def _hour(at: datetime) -> str:
    return at.isoformat()[:13]


def _began(since: datetime | None, first_day: str) -> datetime:
    return since or datetime.fromisoformat(first_day).replace(tzinfo=UTC)


def limit_states(limits: Limits, usage: Usage, at: datetime, zone: tzinfo = UTC) -> tuple[LimitState, ...]:
    """Returns all four, from the shortest reach to the longest."""
    now = usage_at(usage, at, zone)
    next_hour = at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return (
        LimitState(LimitName.PER_TRANSACTION, limits.per_transaction or None, 0, None),
        LimitState(LimitName.COUNT_PER_HOUR, limits.count_per_hour or None, now.hour_count, next_hour),
        LimitState(LimitName.PER_DAY, limits.per_day or None, now.day_total, _end_of_day(now, zone)),
        LimitState(LimitName.PER_MONTH, limits.per_month or None, now.month_total, _end_of_month(now, zone)),
    )


def find_exceeded(limits: Limits, usage: Usage, amount: int, at: datetime, zone: tzinfo = UTC) -> Exceeded | None:
    """Finds the first limit that another operation of this amount would go beyond."""
    if not any(limits) or _fits_whatever_has_ended(limits, usage, amount):
        return None
    for state in limit_states(limits, usage, at, zone):
        if state.ceiling is None:
            continue
        step = 1 if state.limit is LimitName.COUNT_PER_HOUR else amount
        left = max(0, state.ceiling - state.used)
        if step > left:
            return Exceeded(state.limit, state.ceiling, left, state.resets_at)
    return None


def _fits_whatever_has_ended(limits: Limits, usage: Usage, amount: int) -> bool:
    """Tells quickly that nothing is exceeded: a window that has ended counts for less than its counter says.

    Nearly every payment is far below its limits, and finding out which windows still run costs ten times as much.
    """
    steps = (
        (limits.per_transaction, amount),
        (limits.per_day, usage.day_total + amount),
        (limits.per_month, usage.month_total + amount),
        (limits.count_per_hour, usage.hour_count + 1),
    )
    return all(not ceiling or used <= ceiling for ceiling, used in steps)


def _end_of_day(usage: Usage, zone: tzinfo) -> datetime:
    return _start_of(date.fromisoformat(usage.day) + timedelta(days=1), zone)


def _end_of_month(usage: Usage, zone: tzinfo) -> datetime:
    # The 28th exists in every month, and four days later it is the next one everywhere.
    return _start_of((date.fromisoformat(f"{usage.month}-28") + timedelta(days=4)).replace(day=1), zone)


def _start_of(day: date, zone: tzinfo) -> datetime:
    """Returns the first moment of that day. Where clocks leave midnight out, that is when it would have been."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
