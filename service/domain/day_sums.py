"""Day sums: what one admin, service or API key has moved alone in a day, without another admin's approval."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import NamedTuple

from service.domain.identifiers import Prefix


class DaySum(NamedTuple):
    """`actor_id` is a user or an API key, `day` a date in UTC, and `amount` in minor units what moved on it."""

    id: str
    actor_id: str
    currency: str
    day: str
    amount: int
    updated_at: datetime
    version: int = 0

    def on(self, day: str) -> int:
        return self.amount if self.day == day else 0


class Counted(NamedTuple):
    """What a record counts for in which sums; nothing where no sum is bounded, or where another admin approved it."""

    day: str | None = None
    actors: tuple[str, ...] = ()


def day_sum_id(actor_id: str, currency: str) -> str:
    return f"{Prefix.DAY_SUM.value}_{actor_id}_{currency}"


def day_of(at: datetime, known: Collection[DaySum]) -> str:
    """A clock that was set back begins no day anew."""
    return max((at.astimezone(UTC).date().isoformat(), *(one.day for one in known)))
