"""System accounts: the other side of every movement that is not between two wallets, and what was booked on them.

They have no document of their own, which every transaction would fight for: an account's balance is what the entries
that name it as counterparty took out of wallets, less what they put in.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple


class SystemAccount(StrEnum):
    BANK = "bank"
    FX = "house:fx"
    REWARDS = "house:rewards"
    ADJUSTMENTS = "house:adjustments"
    # What holds without a recipient are captured to: a purchase from the house itself.
    REVENUE = "house:revenue"


# Where the sums keep what wallets gave to wallets. It is no account: whatever it was debited, it was credited too.
BETWEEN_WALLETS: Final = "between_wallets"


class AccountSum(NamedTuple):
    """What was booked on one account in one currency, in minor units; more than 64 bits hold, where it comes to that.

    What a wallet receives is the account's debit, what a wallet gives its credit. So an account whose balance is
    negative has let wallets have that much: the bank's is what the house has there.
    """

    account: str
    currency: str
    debit: int
    credit: int

    @property
    def balance(self) -> int:
        return self.credit - self.debit


def add_up(sums: Iterable[AccountSum]) -> list[AccountSum]:
    """One for each account and currency, in the order of both."""
    totals: dict[tuple[str, str], AccountSum] = {}
    for one in sums:
        key = one.currency, one.account
        known = totals.get(key, AccountSum(one.account, one.currency, 0, 0))
        totals[key] = known._replace(debit=known.debit + one.debit, credit=known.credit + one.credit)
    return [totals[key] for key in sorted(totals)]


class StoredSums(NamedTuple):
    """The sums of all entries whose ids were made before `through`, the end of an hour."""

    through: datetime
    sums: tuple[AccountSum, ...]


class Correction(NamedTuple):
    """What has to be added to the stored sums of `through` and of every later hour; amounts may be negative.

    Stored sums are never changed: a correction says what was wrong with them, why, and who found it.
    """

    number: int
    through: datetime
    sums: tuple[AccountSum, ...]
    reason: str
    corrected_by: str
    created_at: datetime


def corrected_by_then(corrections: Iterable[Correction], moment: datetime) -> list[AccountSum]:
    """Returns what corrections add to the sums that reach up to this moment."""
    return [one for correction in corrections if correction.through <= moment for one in correction.sums]


def difference(due: Iterable[AccountSum], found: Iterable[AccountSum]) -> tuple[AccountSum, ...]:
    """Returns what `found` lacks of `due`, where they differ."""
    negated = [one._replace(debit=-one.debit, credit=-one.credit) for one in found]
    return tuple(one for one in add_up([*due, *negated]) if one.debit or one.credit)


HOUR: Final = timedelta(hours=1)
# How old the id of an entry may be when its transaction begins. A command that waits longer for its turn gets new ids.
ENTRY_ID_AGE: Final = timedelta(minutes=1)
# How far ahead of the server's time it may be. The server's logical clock stands still for up to 10 s when idle.
ENTRY_ID_AHEAD: Final = timedelta(minutes=1)
# How long after its end an hour may still get entries: 1 min (ENTRY_ID_AGE), 10 s for which the logical clock of an
# idle server may stand still, and as long as a transaction may last: 5 s here (database.TRANSACTION_LIFETIME_S), 60 s
# where MongoDB's own limit was left. The rest is margin for a server's clock that jumps by ten minutes between two
# primaries. Waiting for longer costs a quarter of an hour's entries to read at a trial balance.
_LATEST_COMMIT: Final = timedelta(minutes=15)


def hour_of(moment: datetime) -> datetime:
    """Returns when the hour began in which the moment lies."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def closed_through(now: datetime) -> datetime:
    """Returns the end of the last hour that no entry can join any more, by the server's logical clock at the snapshot.

    Why no entry can: times here are MongoDB's logical clock, which every reply carries, which never runs backwards
    (not even when another member with another clock becomes primary) and in whose order transactions commit. No clock
    of a process of ours takes part.

    1. A transaction that has read its wallets at time L writes no entry whose id is older than L - ENTRY_ID_AGE:
       the batch gives a new id to every entry whose command's id is older (IdWindow, made from L at each attempt).
       A process that was suspended before it read gets a later L. One that was suspended after it read finds its
       transaction ended by the server.
    2. A transaction that read at L commits at K <= L + its lifetime, or never.
    3. So an entry that commits at K has an id of K - ENTRY_ID_AGE - lifetime or later.
    4. Sums are made from a snapshot of time S: it has every entry that committed at or before S. What it lacks commits
       at K > S, so its id is later than S - ENTRY_ID_AGE - lifetime, which is later than S - _LATEST_COMMIT.
    """
    return hour_of(now - _LATEST_COMMIT)
