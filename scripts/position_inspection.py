"""Compares the portions of the house's headroom with the books, and looks why accounts are below their floors."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

from scripts.ledger_reader import Reader
from scripts.ledger_rules import Breach, is_entry
from scripts.position_rules import (
    BelowFloor,
    Leaps,
    OutdatedPortion,
    Positions,
    check_below_floor,
    check_outdated,
)
from scripts.record_rules import Row

_BY_ID: Final = (("_id", 1),)
_NEWEST: Final = (("_id", -1),)
_UNBOOKED: Final = {"status": "requires_review", "type": "deposit"}
_POOL_CHANGES: Final = ("house_floor.changed", "house_position.corrected")


async def inspect_positions(reader: Reader, positions: Positions, now: datetime) -> tuple[int, list[Breach]]:
    """Returns how many portions there are, and what is wrong. `positions` has taken all entries and wallets before."""
    async for returned in reader.find(reader.wallet["returns"], _BY_ID, ("amount", "currency"), _UNBOOKED):
        positions.add_unbooked(returned)
    portions = [row async for row in reader.find(reader.wallet["house_positions"], _BY_ID)]
    breaches = list(positions.check(portions))
    for outdated in positions.outdated:
        breaches += check_outdated(outdated, await _changed_at(reader, outdated), now)
    for below in positions.below_floor:
        breach = await _check_below_floor(reader, below)
        breaches += [] if breach is None else [breach]
    return len(portions), breaches


async def _changed_at(reader: Reader, outdated: OutdatedPortion) -> datetime | None:
    of_pool = {"subject_id": "/".join(outdated.pair), "action": {"$in": list(_POOL_CHANGES)}}
    async for event in reader.find(reader.wallet["audit_events"], _NEWEST, ("at",), of_pool):
        at = event.get("at")
        return at if isinstance(at, datetime) else None
    return None


async def _check_below_floor(reader: Reader, below: BelowFloor) -> Breach | None:
    """Reads the entries of one account once more, from the newest on: rarely any, and never further than it must."""
    account, currency = below.pair
    of_account = {"counterparty": account, "currency": currency}
    entries = reader.find(reader.wallet["transaction_logs"], _NEWEST, condition=of_account)
    whole = (entry async for entry in entries if is_entry(entry))
    returns = _returns_of(reader, currency) if below.has_returns else None
    return await check_below_floor(below, whole, returns, await _leaps(reader))


def _returns_of(reader: Reader, currency: str) -> AsyncIterator[Row]:
    of_deposits = {"type": "deposit", "currency": currency}
    return reader.find(reader.wallet["returns"], [("created_at", -1)], ("amount", "created_at"), of_deposits)


async def _leaps(reader: Reader) -> Leaps:
    found = [row async for row in reader.find(reader.wallet["server_clock"], _BY_ID, ("leaps",))]
    return Leaps([leap for row in found for leap in row.get("leaps", ())])
