"""Computes how much each account of the bank and the house can still pay out, and how ledger processes share it.

An account's position is what the house has there. A floor is the lowest that the position may become.
Headroom = position - floor - open withdrawals - debts of wallets. Debts are what wallets owe for deposits that the bank
has taken back, and such returns that no admin has booked yet. Every transaction would conflict on one document for each
account, so headroom is kept in portions: each ledger process writes its own, and takes from the others when its own is
too small.

Where an account has a floor only the pool, a portion that no process owns, may be below 0. Then no process may spend
its own portion alone, and each may add to it: whoever wants to take reads all portions, and fills the pool up before
anything is paid. When the pool goes below 0 every portion gets a new version, so every process that can write its
portion knows that.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from service.domain.accounts import SystemAccount
from service.domain.entries import EFFECTS, EntryType
from service.domain.money import POINTS

# Account and currency.
AccountCurrency = tuple[str, str]
Floors = Mapping[AccountCurrency, int]

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


def headroom_change_of_debt(currency: str, amount: int) -> dict[AccountCurrency, int]:
    """Reduces the bank's headroom by what a wallet newly owes: the bank has already taken that money.

    The same goes for a deposit's return that waits for an admin.
    """
    return {} if currency == POINTS or not amount else {(SystemAccount.BANK, currency): -amount}


def is_refusable(entry_type: EntryType) -> bool:
    """Tells whether a movement of this type is refused where it would take an account below its floor."""
    return entry_type not in _DECIDED_BEFORE


def floor_of(pair: AccountCurrency, floors: Floors) -> int | None:
    """Returns the floor; None means that nothing is refused."""
    return floors.get(pair, 0 if pair[0] in _ALWAYS_GUARDED else None)


class Portion(NamedTuple):
    """A share of an account's headroom; below 0 where more was taken back than there was.

    `floor` is the pool's alone: the floor that all portions together go by. The pool's `floor_version` counts how often
    its floor or its headroom was changed by other than the ledger. A process's portion has the number of the last such
    change that its owner has been made to read.
    """

    account: str
    currency: str
    owner: str
    headroom: int
    version: int = 0
    floor: int | None = None
    floor_version: int = 0

    @property
    def pair(self) -> AccountCurrency:
        return self.account, self.currency

    @property
    def id(self) -> str:
        return portion_id(self.pair, self.owner)

    def with_headroom(self, headroom: int) -> "Portion":
        """Returns the portion with the new headroom and the next version, so that writes based on the old one fail."""
        return self._replace(headroom=headroom, version=self.version + 1)


def portion_id(pair: AccountCurrency, owner: str) -> str:
    account, currency = pair
    return f"{account}/{currency}/{owner}"


class PortionUpdate(NamedTuple):
    """None in `before` makes a new portion, None in `after` deletes it."""

    id: str
    before: Portion | None
    after: Portion | None


def stored_floor(pair: AccountCurrency, portions: Iterable[Portion]) -> int | None:
    """Returns the pool's floor. Where there is no pool nothing was ever stated, and the usual floor holds."""
    return next((portion.floor for portion in portions if portion.owner == POOL), floor_of(pair, {}))


def total_headroom(portions: Iterable[Portion]) -> int:
    return sum(portion.headroom for portion in portions)


def is_pool_overdrawn(portions: Iterable[Portion]) -> bool:
    return any(portion.owner == POOL and portion.headroom < 0 for portion in portions)


def is_own_enough(portions: Collection[Portion], owner: str, change: int) -> bool:
    """Tells whether the change concerns the owner's portion alone.

    While the pool is below 0 nobody may spend a portion by itself, and everybody may add to their own.
    """
    headrooms = {portion.owner: portion.headroom for portion in portions}
    own = headrooms.get(owner)
    if own is None or own < 0:
        return False
    if is_pool_overdrawn(portions):
        return change >= 0
    return own + change >= 0 and min(headrooms.values()) >= 0


def rebalance(
    pair: AccountCurrency, portions: Collection[Portion], owner: str, change: int, living: Collection[str]
) -> list[PortionUpdate]:
    """Applies a change that the owner's portion does not cover alone. For accounts with a floor.

    Where there is enough in all portions, the owner takes what it lacks and a fair share, from the pool first. Where
    there is not, the pool goes below 0, and stays there until somebody finds enough to fill it up. Either way the
    owner takes over what is below 0 elsewhere, and the portions of processes that are gone. Where there is no pool yet
    nothing was ever stated or booked, and it begins with the usual floor.
    """
    found = {portion.owner: portion for portion in portions}
    own, pool = _own_and_pool(pair, found, owner)
    headrooms = {POOL: pool.headroom, owner: own.headroom + change}
    headrooms |= {one.owner: one.headroom for one in portions if one.owner not in headrooms}
    total = sum(headrooms.values())
    taken_over = [
        name
        for name, headroom in headrooms.items()
        if name not in (owner, POOL) and (headroom < 0 or name not in living)
    ]
    rewritten = {owner}
    if total >= 0:
        gone = sum(name not in living for name in taken_over)
        _share(headrooms, owner, taken_over, fair=total // (len(headrooms) - gone))
    elif pool.headroom >= 0:
        # Every portion gets a new version, so that no process spends one that it remembers from before.
        headrooms = dict.fromkeys(headrooms, 0) | {POOL: total}
        rewritten |= headrooms.keys()
    else:
        # All processes know it already. What they have added to their portions since stays there.
        _move(headrooms, taken_over, POOL)
        if headrooms[owner] < 0:
            _move(headrooms, [owner], POOL)
        if change < 0:
            # Two that take at once must conflict: one may have paid by a total that the other has made too small.
            rewritten.add(POOL)
    return _updates(own, pool, found, headrooms, rewritten, living)


def add_portion(
    pair: AccountCurrency, portions: Collection[Portion], owner: str, change: int, living: Collection[str]
) -> list[PortionUpdate]:
    """Makes the owner's portion of an account without a floor, where a portion may be below 0.

    The pool takes over the portions of processes that are gone.
    """
    found = {portion.owner: portion for portion in portions}
    own, pool = _own_and_pool(pair, found, owner)
    headrooms = {POOL: pool.headroom} | {one.owner: one.headroom for one in portions} | {owner: own.headroom + change}
    _move(headrooms, [name for name in headrooms if name not in (owner, POOL) and name not in living], POOL)
    return _updates(own, pool, found, headrooms, {owner}, living)


def _own_and_pool(pair: AccountCurrency, found: Mapping[str, Portion], owner: str) -> tuple[Portion, Portion]:
    account, currency = pair
    pool = found.get(POOL) or Portion(account, currency, POOL, 0, floor=floor_of(pair, {}))
    return found.get(owner) or Portion(account, currency, owner, 0, floor_version=pool.floor_version), pool


def _move(headrooms: dict[str, int], names: Iterable[str], into: str) -> None:
    for name in names:
        headrooms[into] += headrooms[name]
        headrooms[name] = 0


def _share(headrooms: dict[str, int], owner: str, taken_over: Sequence[str], fair: int) -> None:
    """Leaves nobody below 0, and takes from the pool first, then from the richest."""
    _move(headrooms, taken_over, owner)
    if headrooms[POOL] < 0:
        _move(headrooms, [POOL], owner)
    richest_first = sorted(headrooms.keys() - {owner, POOL}, key=lambda name: (-headrooms[name], name))
    # Enough for its own fair share, since nobody else keeps more than one.
    for name in (POOL, *richest_first):
        kept = 0 if name == POOL else fair
        taken = min(max(0, fair - headrooms[owner]), max(0, headrooms[name] - kept))
        headrooms[owner] += taken
        headrooms[name] -= taken


def _updates(
    own: Portion,
    pool: Portion,
    found: Mapping[str, Portion],
    headrooms: Mapping[str, int],
    rewritten: Collection[str],
    living: Collection[str],
) -> list[PortionUpdate]:
    """Returns the updates in the order of their ids.

    `rewritten` get a new version although they keep their headroom.
    """
    # A new portion writes the pool too, so that it cannot be made beside a transaction that makes everybody reload.
    if POOL not in found or own.owner not in found:
        rewritten = {*rewritten, POOL}
    updates: list[PortionUpdate] = []
    for name, headroom in headrooms.items():
        before = found.get(name)
        now = own if name == own.owner else pool if name == POOL else found[name]
        if name not in (own.owner, POOL) and name not in living:
            updates.append(PortionUpdate(now.id, before, None))
        elif name in rewritten or headroom != now.headroom:
            updates.append(PortionUpdate(now.id, before, now.with_headroom(headroom)))
    return sorted(updates, key=lambda update: update.id)
