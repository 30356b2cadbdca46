"""Queries on how the simulated bank is doing."""

from datetime import datetime, timedelta
from typing import Any

from bson.int64 import Int64

from service.documents import BankConditions

_ID = "bank"


async def find() -> dict[str, Any] | None:
    return await BankConditions.get_pymongo_collection().find_one({"_id": _ID})


async def find_clock_offset() -> timedelta:
    """Finds how far the bank's clock is ahead of ours."""
    return timedelta(milliseconds=int((await find() or {}).get("clock_offset_ms", 0)))


async def go_down(until: datetime, *, hangs: bool) -> None:
    await _update({"$set": {"down_until": until, "hangs": hangs}})


async def come_up() -> None:
    await _update({"$set": {"down_until": None, "hangs": False}})


async def advance_clock(by: timedelta) -> None:
    """Forward only: what was due would otherwise be due again."""
    if by < timedelta():
        raise ValueError("the bank's clock never goes back")
    await _update({"$inc": {"clock_offset_ms": Int64(by // timedelta(milliseconds=1))}})


async def _update(change: dict[str, Any]) -> None:
    await BankConditions.get_pymongo_collection().update_one({"_id": _ID}, change, upsert=True)
