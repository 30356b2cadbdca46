"""Sums that admins and services move alone in a day. Beyond the policy's sum another admin approves."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from service.domain.day_sums import Counted, DaySum, day_of, day_sum_id
from service.ledger.commands import State


class MovedAlone(NamedTuple):
    """The sums with the amount in them, and what the record of it keeps."""

    sums: tuple[DaySum, ...]
    counted: Counted


NOTHING = MovedAlone((), Counted())


def day_sum_ids(actors: Sequence[str], currency: str) -> tuple[str, ...]:
    """What a command has to name that calls count_alone."""
    return tuple(day_sum_id(actor, currency) for actor in actors)


def count_alone(actors: Sequence[str], amount: int, currency: str, now: datetime, state: State) -> MovedAlone | None:
    """Counts the amount for each of them. None where one would have moved more than the policy's sum that day.

    Decided in the transaction: of two requests at once, the second one counts the first.
    """
    ceiling = state.policy.adjustment_day_above.get(currency)
    if ceiling is None or not amount:
        return NOTHING
    known = {actor: state.record(day_sum_id(actor, currency), DaySum) for actor in actors}
    day = day_of(now, [one for one in known.values() if one is not None])
    sums = tuple(
        DaySum(day_sum_id(actor, currency), actor, currency, day, amount, now)
        if one is None
        else one._replace(day=day, amount=one.on(day) + amount, updated_at=max(now, one.updated_at))
        for actor, one in known.items()
    )
    if any(one.amount > ceiling for one in sums):
        return None
    return MovedAlone(sums, Counted(day, tuple(actors)))
