"""Computes how much each account of the bank and the house can still pay out, and how ledger processes share it.

An account's position is what the house has there. A floor is the lowest that the position may become.
Headroom = position - floor - open withdrawals - debts of wallets. Debts are what wallets owe for deposits that the bank
has taken back, and such returns that no admin has booked yet. Every transaction would conflict on one document for each
account, so headroom is kept in portions: each ledger process writes its own, and takes from the others when its own is
too small.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from service.domain.accounts import SystemAccount
from service.domain.entries import EFFECTS, EntryType
from service.domain.money import POINTS

# Account and currency.
Pair = tuple[str, str]
Floors = Mapping[Pair, int]

# Owner of the shared portion.
POOL: Final = "pool"
# Money paid out through these accounts cannot be taken back. They have a floor in every currency, 0 unless stated.
_ALWAYS_GUARDED: Final = frozenset({SystemAccount.BANK, SystemAccount.FX})
# Movements that are never refused: the bank has already taken the money, or the points were already promised.
_DECIDED_BEFORE: Final = frozenset({EntryType.DEPOSIT_RETURN, EntryType.POINTS_EARNED})


def headroom_change(account: str, entry_type: EntryType, amount: int) -> int:
    """What one movement of a wallet with this account does to the account's headroom.

    The bank's follows what is available: a withdrawal takes its share when it is accepted, gives it back when it is
    released, and changes nothing when it is settled. The house's accounts follow the whole balance.
    """
    effect = EFFECTS[entry_type]
    if account == SystemAccount.BANK:
        return effect.available * amount
    return -(effect.available + effect.held) * amount


def headroom_change_of_debt(currency: str, amount: int) -> dict[Pair, int]:
    """Reduces the bank's headroom by what a wallet newly owes: the bank has already taken that money.

    The same goes for a deposit's return that waits for an admin.
    """
    return {} if currency == POINTS or not amount else {(SystemAccount.BANK, currency): -amount}


def is_refusable(entry_type: EntryType) -> bool:
    """Tells whether a movement of this type is refused where it would take an account below its floor."""
    return entry_type not in _DECIDED_BEFORE


def floor_of(pair: Pair, floors: Floors) -> int | None:
    """Returns the floor; None means that nothing is refused."""
    return floors.get(pair, 0 if pair[0] in _ALWAYS_GUARDED else None)


class Portion(NamedTuple):
    """A share of an account's headroom; below 0 where more was taken back than there was.

    `floor` and `changes` are the pool's alone: the floor that all portions together go by, and how often it was
    changed or the sum corrected by hand.
    """

    account: str
    currency: str
    owner: str
    headroom: int
    version: int = 0
    floor: int | None = None
    changes: int = 0

    @property
    def pair(self) -> Pair:
        return self.account, self.currency

    @property
    def id(self) -> str:
        return portion_id(self.pair, self.owner)

    def with_headroom(self, headroom: int) -> "Portion":
        """Returns the portion with the new headroom and the next version, so that writes based on the old one fail."""
        return self._replace(headroom=headroom, version=self.version + 1)


def portion_id(pair: Pair, owner: str) -> str:
    account, currency = pair
    return f"{account}/{currency}/{owner}"


class PortionUpdate(NamedTuple):
    """None in `before` makes a new portion, None in `after` deletes it."""

    id: str
    before: Portion | None
    after: Portion | None


def stored_floor(pair: Pair, portions: Iterable[Portion]) -> int | None:
    """Returns the pool's floor. Where there is no pool nothing was ever stated, and the usual floor holds."""
    return next((portion.floor for portion in portions if portion.owner == POOL), floor_of(pair, {}))


def total_headroom(portions: Iterable[Portion]) -> int:
    return sum(portion.headroom for portion in portions)


def has_enough(portions: Collection[Portion], owner: str, change: int) -> bool:
    """Tells whether the owner's portion covers the change alone and no other portion is negative."""
    own = [portion.headroom for portion in portions if portion.owner == owner]
    others = [portion.headroom for portion in portions if portion.owner != owner]
    return bool(own) and (change > 0 or own[0] + change >= 0) and min(others, default=0) >= 0


def gather(
    pair: Pair, portions: Collection[Portion], owner: str, change: int, living: Collection[str]
) -> list[PortionUpdate]:
    """Applies the change to the owner's portion, and fills that up from the others, as far as they have it.

    The owner takes what it lacks and a fair share, from the pool first. It takes over what is below 0 elsewhere, and
    the portions of processes that are gone. Where all together are below 0 the owner gets all of that, and every other
    portion 0 and a new version: nobody can spend a portion that they remember from before. Where there is no pool yet
    nothing was ever stated or booked, and it begins with the usual floor.
    """
    found = {portion.owner: portion for portion in portions}
    account, currency = pair
    own = found.get(owner) or Portion(account, currency, owner, 0)
    pool = found.get(POOL) or Portion(account, currency, POOL, 0, floor=floor_of(pair, {}))
    processes = sorted((one for one in portions if one.owner not in (owner, POOL)), key=lambda one: -one.headroom)
    left = {POOL: pool.headroom} | {one.owner: one.headroom for one in processes}
    has = own.headroom + change
    total = has + sum(left.values())
    gone = {one.owner for one in processes if one.owner not in living}
    fair = max(0, total) // (len(processes) - len(gone) + 2)
    for name, headroom in left.items():
        if total < 0 or headroom < 0 or name in gone:
            has, left[name] = has + headroom, 0
    # Enough for its own fair share, since nobody else keeps more than one.
    for name, headroom in left.items():
        taken = min(max(0, fair - has), max(0, headroom - (0 if name == POOL else fair)))
        has, left[name] = has + taken, headroom - taken
    updates = [PortionUpdate(own.id, found.get(owner), own.with_headroom(has))]
    # A new portion writes the pool too, so that it cannot be made beside a transaction that makes everybody reload.
    if POOL not in found or own.owner not in found or total < 0 or left[POOL] != pool.headroom:
        updates.append(PortionUpdate(pool.id, found.get(POOL), pool.with_headroom(left[POOL])))
    for one in processes:
        if one.owner in gone:
            updates.append(PortionUpdate(one.id, one, None))
        elif total < 0 or left[one.owner] != one.headroom:
            updates.append(PortionUpdate(one.id, one, one.with_headroom(left[one.owner])))
    return sorted(updates, key=lambda update: update.id)
