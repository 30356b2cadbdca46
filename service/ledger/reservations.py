"""Reservations: money set aside in its wallet, which later leaves or comes back. Withdrawals, transfers that wait for
approval and holds all reserve in this one way; only the names of their entries differ.
"""

from datetime import datetime
from typing import NamedTuple, Protocol

from service.domain.entries import EntryType
from service.domain.wallets import Movement, Wallet
from service.ledger.commands import Command
from service.ledger.rules import (
    Subject,
    charged,
    movement_of,
    time_of,
    uncharged,
    with_one_fewer_open,
    with_one_more_open,
)


class Reservation(NamedTuple):
    """How the entries of one kind of reservation are called."""

    reserved: EntryType
    captured: EntryType
    released: EntryType


WITHDRAWAL = Reservation(EntryType.WITHDRAWAL, EntryType.WITHDRAWAL_SETTLEMENT, EntryType.WITHDRAWAL_REFUND)
HOLD = Reservation(EntryType.HOLD, EntryType.HOLD_CAPTURE, EntryType.HOLD_RELEASE)


class Reserving(Subject, Protocol):
    """`amount` is what was set aside at `created_at`."""

    @property
    def amount(self) -> int: ...
    @property
    def created_at(self) -> datetime: ...


class Step(NamedTuple):
    """The wallet with its counters as they will be, and the movement that follows."""

    wallet: Wallet
    movement: Movement


def reserve(
    kind: Reservation, wallet: Wallet, subject: Reserving, *, counterparty: str, command: Command, entry_id: str
) -> Step:
    """Counts for the limits from here on, and as open until it has been captured or released.

    It counts in the windows of the very time that `release` will give it back for, which may be later than that of
    this wallet: a transfer's is also that of its recipient.
    """
    at = subject.created_at
    assert at >= time_of(command.now, wallet), f"{subject.id} is older than what has happened in {wallet.id}"
    movement = movement_of(
        kind.reserved, wallet, subject.amount, subject, counterparty=counterparty, command=command, entry_id=entry_id
    )
    return Step(with_one_more_open(charged(wallet, subject.amount, at), at), movement)


def capture(
    kind: Reservation,
    wallet: Wallet,
    subject: Reserving,
    amount: int,
    *,
    counterparty: str,
    command: Command,
    entry_id: str,
) -> Step:
    """`amount` of what was set aside leaves; the rest, where there is one, has to follow by `release_part`."""
    movement = movement_of(
        kind.captured, wallet, amount, subject, counterparty=counterparty, command=command, entry_id=entry_id
    )
    return Step(with_one_fewer_open(wallet, time_of(command.now, wallet)), movement)


def release_part(
    kind: Reservation,
    wallet: Wallet,
    subject: Reserving,
    amount: int,
    *,
    counterparty: str,
    command: Command,
    entry_id: str,
) -> Step:
    """Releases `amount` of what is set aside. The amount limits get it back, the count does not."""
    movement = movement_of(
        kind.released, wallet, amount, subject, counterparty=counterparty, command=command, entry_id=entry_id
    )
    at = time_of(command.now, wallet)
    return Step(uncharged(wallet, amount, subject.created_at, at, is_whole=False), movement)


def release(
    kind: Reservation,
    wallet: Wallet,
    subject: Reserving,
    *,
    counterparty: str,
    command: Command,
    entry_id: str,
    amount: int | None = None,
    keeps_count: bool = False,
) -> Step:
    """Releases all of it, with its share of the limits; `amount` is the rest, where a part was released before.

    With `keeps_count` it still is one operation of its hour.
    """
    at = time_of(command.now, wallet)
    rest = subject.amount if amount is None else amount
    movement = movement_of(
        kind.released, wallet, rest, subject, counterparty=counterparty, command=command, entry_id=entry_id
    )
    closed = with_one_fewer_open(wallet, at)
    return Step(uncharged(closed, rest, subject.created_at, at, is_whole=not keeps_count), movement)
