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


HOUR: Final = timedelta(hours=1)
# How long after its end an hour may still get entries, besides the time for which a command may wait for its turn
# (WALLET_LEDGER_PATIENCE_S). An id is made with its command, and the first attempt begins within the patience. An
# attempt has 4 s for its reads and writes and 4 s for its commit, and the server ends after 5 s what a dead process
# left; isolating a culprit among 256 commands repeats that up to sixteen times: some 2 min. The clocks of the processes
# agree to within seconds. That is below 3 min together. Waiting for longer costs a quarter of an hour's entries to read
# at a trial balance; an entry that came too late would be missing from the sums for good.
_LATEST_COMMIT: Final = timedelta(minutes=15)


def hour_of(moment: datetime) -> datetime:
    """When the hour began in which the moment lies."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def closed_through(now: datetime, patience: timedelta) -> datetime:
    """The end of the last hour that no entry can join any more."""
    return hour_of(now - patience - _LATEST_COMMIT)
