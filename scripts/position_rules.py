"""Checks the portions of headroom of the bank's and the house's accounts.

Written out a second time like ledger_rules.py, and for the same reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from scripts.ledger_rules import WALLET_PREFIX, Breach, Rule, is_shaped
from scripts.record_rules import Row

_BANK: Final = "bank"
# They have a floor in every currency.
_ALWAYS_GUARDED: Final = frozenset({_BANK, "house:fx"})
_POINTS: Final = "PTS"
# These may take an account below its floor: the bank has taken the money back, or the points were promised.
_NEVER_REFUSED: Final = frozenset({"DEPOSIT_RETURN", "POINTS_EARNED"})
_POOL: Final = "pool"
_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "account", "currency", "owner"), str),
    **dict.fromkeys(("headroom", "version"), int),
}

# Account and currency.
Pair = tuple[str, str]


class Positions:
    """Computes each account's position less what is promised, from entries and from what wallets owe."""

    def __init__(self, floors: Mapping[Pair, int] | None = None) -> None:
        """`floors` are those that the settings state; None where that is not to be looked at."""
        self._stated = floors
        self._due: Counter[Pair] = Counter()
        # How far below its floor an account may be.
        self._excused: Counter[Pair] = Counter()

    def take(self, entry: Row) -> None:
        """A whole entry."""
        account = entry["counterparty"]
        if account.startswith(WALLET_PREFIX):
            return
        pair = account, entry["currency"]
        available = entry["available_after"] - entry["available_before"]
        held = entry["held_after"] - entry["held_before"]
        self._due[pair] += available if account == _BANK else -available - held
        if entry["type"] in _NEVER_REFUSED:
            self._excused[pair] += abs(available)

    def owe(self, wallet: Row) -> None:
        """A whole wallet: what it owes, the bank has taken back already."""
        owed = wallet.get("owed", 0)
        if wallet["currency"] != _POINTS and isinstance(owed, int):
            self._due[_BANK, wallet["currency"]] -= owed
            self._excused[_BANK, wallet["currency"]] += owed

    def add_unbooked(self, returned: Row) -> None:
        """A deposit's return that waits for an admin: the bank has that money already."""
        amount = returned.get("amount")
        if isinstance(amount, int):
            self._due[_BANK, returned["currency"]] -= amount
            self._excused[_BANK, returned["currency"]] += amount

    def check(self, portions: list[Row]) -> Iterator[Breach]:
        """All portions of one account and currency against what is due there."""
        found: dict[Pair, list[Row]] = {pair: [] for pair in self._due}
        for row in portions:
            if is_shaped(row, _SHAPE):
                found.setdefault((row["account"], row["currency"]), []).append(row)
            else:
                yield Breach(Rule.MALFORMED, str(row.get("_id")), "the portion lacks fields or has wrong types")
        for pair, rows in sorted(found.items()):
            yield from self._check_pair(pair, rows)

    def _check_pair(self, pair: Pair, rows: list[Row]) -> Iterator[Breach]:
        subject = " ".join(pair)
        pools = [row for row in rows if row["owner"] == _POOL]
        floor = pools[0].get("floor") if pools else 0 if pair[0] in _ALWAYS_GUARDED else None
        headroom = sum(row["headroom"] for row in rows)
        due = self._due[pair] - (floor or 0)
        if headroom != due:
            detail = f"the portions have {headroom}, the books {self._due[pair]} above a floor of {floor or 0}"
            yield Breach(Rule.HOUSE_POSITION, subject, detail)
        if floor is not None and due < 0 and -due > self._excused[pair]:
            detail = f"{-due} below its floor of {floor}, of which returns account for {self._excused[pair]}"
            yield Breach(Rule.HOUSE_BELOW_FLOOR, subject, detail)
        if self._stated is not None:
            stated = self._stated.get(pair, 0 if pair[0] in _ALWAYS_GUARDED else None)
            if floor != stated:
                yield Breach(Rule.HOUSE_FLOOR, subject, f"its floor is {floor}, the settings state {stated}")
