"""What is asked of a wallet's past: which entries, and what was in it after one of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from service.domain.entries import GENESIS_HASH, Direction, Entry, EntryType


class EntryFilter(NamedTuple):
    """Which entries are wanted; what is None or empty does not narrow.

    Amounts are minor units, both ends included. Created from `created_from` on and before `created_to`.
    """

    types: Sequence[EntryType] = ()
    category: str | None = None
    direction: Direction | None = None
    status: str | None = None
    reference: str | None = None
    counterparty: str | None = None
    amount_min: int | None = None
    amount_max: int | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


class BalancePoint(NamedTuple):
    """What was in a wallet after its entry number `seq`, whose hash is `hash`."""

    seq: int
    available: int
    held: int
    hash: str

    @property
    def balance(self) -> int:
        return self.available + self.held


BEFORE_THE_FIRST = BalancePoint(0, 0, 0, GENESIS_HASH)


def point_after(entry: Entry) -> BalancePoint:
    return BalancePoint(entry.seq, entry.available_after, entry.held_after, entry.hash)
