"""How long the bank may take: which rail an order takes, and by when its outcome is to be expected.

Pure: days are those of UTC, as in the bank's statements.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from service.domain.operations import OperationType

_DAY: Final = timedelta(days=1)
_FRIDAY: Final = 5
_BANKING_DAYS: Final = 3
# The pause, as a share of the time since the order was made: a slow order is asked about less and less often.
_SPARSE_SHARE: Final = 0.25
# The longest pause, so that an outcome is learned no later than this after the bank has it.
_SPARSE_MAX_S: Final = 3600.0


class Rail(StrEnum):
    """The way that the money takes at the bank."""

    INSTANT = "instant"
    # By the end of the banking day on which the order was submitted, or of the next one.
    SAME_DAY = "same_day"
    # By the end of the third banking day after that day.
    THREE_BANKING_DAYS = "three_banking_days"


def rail_of(rails: Mapping[str, str], default: str, operation_type: OperationType, currency: str) -> Rail:
    """By "INR:withdrawal", else "INR", else "withdrawal", else the default."""
    for name in (f"{currency}:{operation_type}", currency, operation_type.value):
        if name in rails:
            return Rail(rails[name])
    return Rail(default)


def expected_by(rail: Rail, submitted_at: datetime, holidays: Collection[date], instant: timedelta) -> datetime:
    """Returns when the outcome of an order that is submitted now is to be known."""
    if rail is Rail.INSTANT:
        return submitted_at + instant
    day = submitted_at.astimezone(UTC).date()
    if rail is Rail.SAME_DAY:
        return _end_of(day if _is_banking_day(day, holidays) else _next_banking_day(day, holidays))
    for _ in range(_BANKING_DAYS):
        day = _next_banking_day(day, holidays)
    return _end_of(day)


def pause_until_asked_s(made_at: datetime, now: datetime, expected: datetime, recheck_s: float) -> float:
    """The pause before an accepted order is asked about again: a quarter of its age, an hour at most, and not past
    `expected`. Never shorter than `recheck_s`.
    """
    waited_s = (now - made_at).total_seconds()
    pause_s = max(recheck_s, min(_SPARSE_MAX_S, waited_s * _SPARSE_SHARE))
    return max(recheck_s, min(pause_s, (expected - now).total_seconds()))


def _is_banking_day(day: date, holidays: Collection[date]) -> bool:
    return day.isoweekday() <= _FRIDAY and day not in holidays


def _next_banking_day(day: date, holidays: Collection[date]) -> date:
    day += _DAY
    while not _is_banking_day(day, holidays):
        day += _DAY
    return day


def _end_of(day: date) -> datetime:
    return datetime.combine(day + _DAY, time(), UTC)
