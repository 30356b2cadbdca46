"""Checks the portions of headroom of the bank's and the house's accounts.

Written out a second time like ledger_rules.py, and for the same reason.
"""

import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from scripts.ledger_rules import WALLET_PREFIX, Breach, Rule, is_shaped
from scripts.record_rules import Row, epoch_ms

_BANK: Final = "bank"
# They have a floor in every currency.
_ALWAYS_GUARDED: Final = frozenset({_BANK, "house:fx"})
_POINTS: Final = "PTS"
# These may take an account below its floor: the bank has taken the money back, or the points were promised.
_NEVER_REFUSED: Final = frozenset({"DEPOSIT_RETURN", "POINTS_EARNED"})
_COLLECTION: Final = "DEPOSIT_RETURN"
_RETURN_SHAPE: Final[Mapping[str, type]] = {"amount": int, "created_at": datetime}
_TIME_DIGITS: Final = 12
_POOL: Final = "pool"
# The ids of entries and the times of returns may differ from the order of commits: by a minute for an id older or newer
# than its transaction, ten seconds for an idle server's logical clock, and the lifetime of a transaction. Twice that
# has to fit in; the rest is margin.
_ORDER_MARGIN_MS: Final = 15 * 60 * 1000
# Every process looks at the server's clock every 2 s, so one notes within that time that it was set back.
_NOTICED: Final = timedelta(minutes=1)
_LEAP_SHAPE: Final[Mapping[str, type]] = {"noticed_at": datetime, "highest_at": datetime}
# A worker looks for outdated portions every ten seconds, once it runs.
_OUTDATED_FOR: Final = timedelta(minutes=10)
_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "account", "currency", "owner"), str),
    **dict.fromkeys(("headroom", "version"), int),
}

# Account and currency.
AccountCurrency = tuple[str, str]


class OutdatedPortion(NamedTuple):
    """One whose process has not been made to read the pool since its floor or its headroom was changed."""

    pair: AccountCurrency
    id: str
    floor_version: int
    of_pool: int


class Change(NamedTuple):
    """A change of what an account can still pay out. `at_ms` is its time in milliseconds."""

    at_ms: int
    amount: int
    is_refusable: bool


class BelowFloor(NamedTuple):
    """An account whose books are below the floor, by `-headroom`."""

    pair: AccountCurrency
    floor: int
    headroom: int

    @property
    def has_returns(self) -> bool:
        """Tells whether the bank takes money back here. Of other accounts the entries tell all."""
        return self.pair[0] == _BANK


class Descent:
    """Sums up what may have taken an account below its floor. Reads its changes from the newest to the oldest.

    Only returns and promised points may. While an account is below its floor everything else that takes is refused. So
    it can be as far below its floor as returns and points have taken since it was last at or above the floor, and no
    further. Where the order of times and the order of commits differ, an account can seem to have been at its floor
    later than it was: so what was taken within the margin before that moment counts too.
    """

    def __init__(self, headroom: int) -> None:
        self._headroom = headroom
        # When it was last at or above its floor, in milliseconds.
        self._last_above: int | None = None
        self.excused = 0

    def take(self, at_ms: int, change: int, *, is_refusable: bool) -> bool:
        """Says False, and takes nothing, where older changes no longer matter."""
        if self._last_above is not None and at_ms < self._last_above - _ORDER_MARGIN_MS:
            return False
        if change < 0 and not is_refusable:
            self.excused -= change
        self._headroom -= change
        if self._last_above is None and self._headroom >= 0:
            self._last_above = at_ms
        return True


class Positions:
    """Computes each account's position less what is promised, from entries and from what wallets owe."""

    def __init__(self, floors: Mapping[AccountCurrency, int] | None = None) -> None:
        """`floors` are those that the settings state; None where that is not to be looked at."""
        self._stated = floors
        self._due: Counter[AccountCurrency] = Counter()
        # Filled by `check`. Whether returns explain it is for a second look at the entries to say.
        self.below_floor: list[BelowFloor] = []
        # Filled by `check`. Whether the change is new is for the audit events to say.
        self.outdated: list[OutdatedPortion] = []

    def take(self, entry: Row) -> None:
        """A whole entry."""
        account = entry["counterparty"]
        if account.startswith(WALLET_PREFIX):
            return
        self._due[account, entry["currency"]] += change_of(entry)

    def owe(self, wallet: Row) -> None:
        """A whole wallet: what it owes, the bank has taken back already."""
        owed = wallet.get("owed", 0)
        if wallet["currency"] != _POINTS and isinstance(owed, int):
            self._due[_BANK, wallet["currency"]] -= owed

    def add_unbooked(self, returned: Row) -> None:
        """A deposit's return that waits for an admin: the bank has that money already."""
        amount = returned.get("amount")
        if isinstance(amount, int):
            self._due[_BANK, returned["currency"]] -= amount

    def check(self, portions: list[Row]) -> Iterator[Breach]:
        """All portions of one account and currency against what is due there."""
        found: dict[AccountCurrency, list[Row]] = {pair: [] for pair in self._due}
        for row in portions:
            if is_shaped(row, _SHAPE):
                found.setdefault((row["account"], row["currency"]), []).append(row)
            else:
                yield Breach(Rule.MALFORMED, str(row.get("_id")), "the portion lacks fields or has wrong types")
        for pair, rows in sorted(found.items()):
            yield from self._check_pair(pair, rows)

    def _check_pair(self, pair: AccountCurrency, rows: list[Row]) -> Iterator[Breach]:
        subject = " ".join(pair)
        pools = [row for row in rows if row["owner"] == _POOL]
        floor = pools[0].get("floor") if pools else 0 if pair[0] in _ALWAYS_GUARDED else None
        headroom = sum(row["headroom"] for row in rows)
        due = self._due[pair] - (floor or 0)
        if headroom != due:
            detail = f"the portions have {headroom}, the books {self._due[pair]} above a floor of {floor or 0}"
            yield Breach(Rule.HOUSE_POSITION, subject, detail)
        of_pool = max((_floor_version(pool) for pool in pools), default=0)
        for row in rows:
            if _floor_version(row) < of_pool:
                self.outdated.append(OutdatedPortion(pair, row["_id"], _floor_version(row), of_pool))
        if floor is not None and due < 0:
            self.below_floor.append(BelowFloor(pair, floor, due))
        if self._stated is not None:
            stated = self._stated.get(pair, 0 if pair[0] in _ALWAYS_GUARDED else None)
            if floor != stated:
                yield Breach(Rule.HOUSE_FLOOR, subject, f"its floor is {floor}, the settings state {stated}")


def _made_ms(entry_id: str) -> int:
    """An entry whose id has no time is malformed, and counts as made just now."""
    try:
        return int(entry_id.partition("_")[2][:_TIME_DIGITS], 16)
    except ValueError:
        return sys.maxsize


def change_of(entry: Row) -> int:
    """Returns by how much a whole entry changed what its account can still pay out."""
    available: int = entry["available_after"] - entry["available_before"]
    held: int = entry["held_after"] - entry["held_before"]
    return available if entry["counterparty"] == _BANK else -available - held


def _floor_version(portion: Row) -> int:
    """Earlier releases called it `changes`, and had none in portions of processes."""
    version = portion.get("floor_version", portion.get("changes", 0))
    return version if isinstance(version, int) else 0


def check_outdated(outdated: OutdatedPortion, changed_at: datetime | None, now: datetime) -> Iterator[Breach]:
    """`changed_at` is the time of the last audit event of a change of the pool; None where there is none."""
    if changed_at is not None and changed_at > now - _OUTDATED_FOR:
        return
    since = "nobody knows when" if changed_at is None else changed_at.isoformat(timespec="seconds")
    detail = (
        f"its process has read change {outdated.floor_version} of the pool, the last is {outdated.of_pool} ({since})"
    )
    yield Breach(Rule.HOUSE_PORTION, outdated.id, detail)


class Leaps:
    """Times that the server's clock was set back from, as processes have noted them.

    Ids of entries follow the server's logical clock, which is never set back: it stands still until the server's clock
    has come to that time again. Returns carry the clock's own time meanwhile.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._leaps = [(row["noticed_at"] - _NOTICED, row["highest_at"]) for row in rows if is_shaped(row, _LEAP_SHAPE)]

    def latest_ms(self, made_at: datetime) -> int:
        """Returns the latest time that the logical clock can have told then. Of two moments, the later one's is not
        the smaller.
        """
        return epoch_ms(max([made_at, *(until for since, until in self._leaps if since <= made_at <= until)]))


async def check_below_floor(
    below: BelowFloor, entries: AsyncIterator[Row], returns: AsyncIterator[Row] | None, leaps: Leaps
) -> Breach | None:
    """Reads the account's entries and its deposits' returns, both from the newest to the oldest, as far as needed.

    A return counts whole, when it was made: what of it is collected, owed or waits for an admin changes later, and not
    what the bank has taken. So the entries of collections are passed over.
    """
    descent = Descent(below.headroom)
    streams = [_of_entries(entries, below)]
    if returns is not None:
        streams.insert(0, _of_returns(returns, leaps))
    async for change in _newest_first(*streams):
        if not descent.take(change.at_ms, change.amount, is_refusable=change.is_refusable):
            break
    if -below.headroom <= descent.excused:
        return None
    detail = f"{-below.headroom} below its floor of {below.floor}, of which returns account for {descent.excused}"
    return Breach(Rule.HOUSE_BELOW_FLOOR, " ".join(below.pair), detail)


async def _newest_first(*streams: AsyncIterator[Change]) -> AsyncIterator[Change]:
    """Merges streams that come newest first. Of changes of one moment, those of the stream named first come first."""
    heads = [await anext(stream, None) for stream in streams]
    while newest := max((head for head in heads if head is not None), key=lambda change: change.at_ms, default=None):
        number = next(number for number, head in enumerate(heads) if head is newest)
        yield newest
        heads[number] = await anext(streams[number], None)


async def _of_entries(entries: AsyncIterator[Row], below: BelowFloor) -> AsyncIterator[Change]:
    async for entry in entries:
        if not (below.has_returns and entry["type"] == _COLLECTION):
            yield Change(_made_ms(entry["_id"]), change_of(entry), entry["type"] not in _NEVER_REFUSED)


async def _of_returns(returns: AsyncIterator[Row], leaps: Leaps) -> AsyncIterator[Change]:
    async for returned in returns:
        if is_shaped(returned, _RETURN_SHAPE):
            yield Change(leaps.latest_ms(returned["created_at"]), -returned["amount"], is_refusable=False)
