"""A process's own portions of what the house can still give, and how one attempt at a batch uses them.

The process remembers its portions between batches, so that an ordinary batch reads nothing for them and writes one
document that nobody else writes. Every write has the portion's version as its guard: where another process has taken
from it meanwhile the attempt fails, what is remembered is dropped, and the next one reads it anew.
"""

from collections.abc import Iterable, Mapping, Sequence

from pymongo.asynchronous.client_session import AsyncClientSession

from service.domain.house_positions import (
    AccountCurrency,
    Portion,
    PortionUpdate,
    add_portion,
    is_own_enough,
    is_pool_overdrawn,
    rebalance,
    stored_floor,
    total_headroom,
)
from service.domain.policy import Policy
from service.ledger.batch import Batch, Headroom
from service.repositories import house_positions as position_repository


class PortionCache:
    """What one process remembers; `owner` is its name among the ledger processes."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.remembered: dict[AccountCurrency, Portion] = {}
        # Of accounts whose portions were loaded. A changed floor gives every portion a new version.
        self.floors: dict[AccountCurrency, int | None] = {}
        # Accounts whose pool was last read below 0: no remembered portion of them may be spent. Every portion got a
        # new version when that began, so a process that can write its portion knows of it.
        self.overdrawn: set[AccountCurrency] = set()

    def remember(self, portions: Iterable[Portion]) -> None:
        """Caches the portions as committed."""
        self.remembered |= {portion.pair: portion for portion in portions}

    def forget(self) -> None:
        """Clears the cache after a failed attempt: others may have taken from them, or the commit has happened."""
        self.remembered.clear()
        self.floors.clear()
        self.overdrawn.clear()


class AttemptPortions:
    """The portions that one attempt has read, beside those that its process remembers."""

    def __init__(self, cache: PortionCache, policy: Policy) -> None:
        self._owner = cache.owner
        self._remembered = dict(cache.remembered)
        self._floors = cache.floors
        self._overdrawn = cache.overdrawn
        self._policy = policy
        # Of these accounts every process's, as of the transaction's snapshot.
        self._all: dict[AccountCurrency, list[Portion]] = {}

    @property
    def headroom(self) -> Headroom:
        return Headroom(
            {pair: portion.headroom for pair, portion in self._remembered.items() if pair not in self._overdrawn},
            {pair: total_headroom(portions) for pair, portions in self._all.items()},
            self._floors,
        )

    def accounts_to_load(self, batch: Batch) -> list[AccountCurrency]:
        """Accounts of which all portions have to be read before the batch can be decided and written."""
        wanted = {*batch.exhausted} | {
            pair for pair, change in batch.headroom_changes.items() if self._needs_all_portions(pair, change)
        }
        return sorted(wanted - self._all.keys())

    def _needs_all_portions(self, pair: AccountCurrency, change: int) -> bool:
        own = self._remembered.get(pair)
        if own is None:
            return True
        if change >= 0 or not self.headroom.is_guarded(pair, self._policy):
            return False
        return own.headroom + change < 0 or pair in self._overdrawn

    async def load(self, pairs: Sequence[AccountCurrency], *, session: AsyncClientSession) -> None:
        found = await position_repository.find_of(pairs, session=session)
        self._all |= found
        for pair, portions in found.items():
            self._floors[pair] = stored_floor(pair, portions)
            if is_pool_overdrawn(portions):
                self._overdrawn.add(pair)
            else:
                self._overdrawn.discard(pair)

    async def write(
        self, changes: Mapping[AccountCurrency, int], *, session: AsyncClientSession
    ) -> list[Portion] | None:
        """Writes what the batch takes and gives, and returns this process's portions as they then are.

        None where another process has changed one meanwhile. In sorted order, as everything is that two may want.
        """
        updates: list[PortionUpdate] = []
        living: set[str] | None = None
        for pair in sorted(changes):
            own = self._own(pair, changes[pair])
            if own is not None:
                updates.append(PortionUpdate(own.id, own, own.with_headroom(own.headroom + changes[pair])))
                continue
            if living is None:
                living = await position_repository.find_living(session=session)
            change_portions = rebalance if self.headroom.is_guarded(pair, self._policy) else add_portion
            changed = change_portions(pair, self._all[pair], self._owner, changes[pair], living)
            updates += changed
            # Noted before the commit. If that fails, the process only reads all portions once more than needed.
            if is_pool_overdrawn([after for _, _, after in changed if after is not None]):
                self._overdrawn.add(pair)
        if updates and not await position_repository.write_guarded(updates, session=session):
            return None
        return [after for _, _, after in updates if after is not None and after.owner == self._owner]

    def _own(self, pair: AccountCurrency, change: int) -> Portion | None:
        """Returns this process's portion, where the change is a matter of that one alone."""
        portions = self._all.get(pair)
        if portions is None:
            return self._remembered[pair]
        own = [portion for portion in portions if portion.owner == self._owner]
        if not own or (
            self.headroom.is_guarded(pair, self._policy) and not is_own_enough(portions, self._owner, change)
        ):
            return None
        return own[0]
