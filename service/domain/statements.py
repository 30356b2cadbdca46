"""Statements: a wallet's movements over a period, from an opening balance to a closing one, held against its chain."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.entries import EFFECTS, Entry, entry_view
from service.domain.history import BalancePoint, point_after


class BrokenChain(Exception):
    """An entry does not follow from the one before, or the last one is not where the statement closes."""


class Statement(NamedTuple):
    """The frame of a statement: fixed by two numbers of the chain, whatever is added to the wallet meanwhile."""

    wallet_id: str
    currency: str
    created_from: datetime
    created_to: datetime
    opening: BalancePoint
    closing: BalancePoint

    @property
    def movements(self) -> int:
        return self.closing.seq - self.opening.seq


class Movement(NamedTuple):
    """One line of a statement: an entry, and what it did to the balance (available and held together).

    Money that is set aside still is the wallet's own, so that a reservation changes the balance by nothing.
    """

    entry: Entry
    change: int


@dataclass(slots=True)
class Tally:
    """Takes a statement's entries in order, adds up, and refuses what does not follow."""

    statement: Statement
    total_in: int = 0
    total_out: int = 0
    _reached: BalancePoint = field(init=False)

    def __post_init__(self) -> None:
        self._reached = self.statement.opening

    def take(self, entry: Entry) -> Movement:
        before = (entry.seq - 1, entry.available_before, entry.held_before, entry.prev_hash)
        if before != self._reached:
            raise BrokenChain(f"entry {entry.seq} of {entry.wallet_id} does not follow {self._reached}")
        effect = EFFECTS[entry.type]
        change = (effect.available + effect.held) * entry.amount
        if change > 0:
            self.total_in += change
        else:
            self.total_out -= change
        self._reached = point_after(entry)
        return Movement(entry, change)

    def finish(self) -> None:
        """To be called after the last entry: the sum and the chain have to end where the statement closes."""
        opening, closing = self.statement.opening, self.statement.closing
        if self._reached != closing or opening.balance + self.total_in - self.total_out != closing.balance:
            raise BrokenChain(f"{self.statement.wallet_id} ends at {self._reached} instead of {closing}")


def statement_view(tally: Tally, movements: list[Movement]) -> dict[str, Any]:
    """Returns the whole statement as the API shows it in JSON."""
    statement = tally.statement
    return {
        "wallet_id": statement.wallet_id,
        "currency": statement.currency,
        "from": to_rfc3339(statement.created_from),
        "to": to_rfc3339(statement.created_to),
        "opening": point_view(statement.opening),
        "closing": point_view(statement.closing),
        "total_in": tally.total_in,
        "total_out": tally.total_out,
        "movements": statement.movements,
        "rows": [_movement_view(movement) for movement in movements],
    }


def point_view(point: BalancePoint) -> dict[str, Any]:
    return {
        "seq": point.seq,
        "available": point.available,
        "held": point.held,
        "balance": point.balance,
        "hash": point.hash,
    }


def _movement_view(movement: Movement) -> dict[str, Any]:
    """The whole entry, so that the statement can be proved by what it says itself."""
    balance = movement.entry.available_after + movement.entry.held_after
    return entry_view(movement.entry) | {"change": movement.change, "balance": balance}
