"""Queries on `server_clock`. The server itself writes every time in it: no process's clock takes part."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import uuid4

from pymongo import ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import ServerClockDocument
from service.domain.server_clock import ServerTime

_ID: Final = "server"
_SEEN: Final = {"seen_at": "$$NOW"}
# Shorter ones make no difference to anybody who reads `leaps`.
_SHORTEST_LEAP: Final = timedelta(minutes=1)
# A clock that is set back more often is no clock.
_LEAPS_KEPT: Final = 100


class Repair(NamedTuple):
    """Taken by one worker for as long as its lease lasts."""

    claim: str
    time: ServerTime


def _collection() -> AsyncCollection[dict[str, Any]]:
    return ServerClockDocument.get_pymongo_collection()


async def note_time() -> ServerTime:
    """Reads the server's time, and keeps the latest that it has ever been, also for after a repair where it was later
    than it is now.
    """
    row = await _collection().find_one_and_update(
        {"_id": _ID},
        [{"$set": _SEEN | {"highest_at": {"$max": ["$highest_at", "$$NOW"]}, "leaps": _leaps()}}],
        {"leaps": 0},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    assert row is not None, "it was inserted where there was none"  # noqa: S101 for mypy
    return _time_of(row)


def _leaps() -> dict[str, Any]:
    """Adds each leap once, by whoever notices first. Where there never was any, the field stays away."""
    is_set_back = {"$gt": [{"$subtract": ["$highest_at", "$$NOW"]}, _ms(_SHORTEST_LEAP)]}
    is_new = {"$ne": [{"$last": "$leaps.highest_at"}, "$highest_at"]}
    added = {"$concatArrays": [{"$ifNull": ["$leaps", []]}, [{"noticed_at": "$$NOW", "highest_at": "$highest_at"}]]}
    return {"$cond": [{"$and": [is_set_back, is_new]}, {"$slice": [added, -_LEAPS_KEPT]}, "$leaps"]}


async def claim_repair(bound: timedelta, lease: timedelta) -> Repair | None:
    """None where the clock was not set back by more than `bound`, or another worker is at it."""
    is_set_back = {"$gt": [{"$subtract": ["$highest_at", "$$NOW"]}, _ms(bound)]}
    # A lease that ends later than any can was given by the clock that was ahead. A missing one is before every date.
    is_free = {
        "$or": [
            {"$lte": ["$repair_until", "$$NOW"]},
            {"$gt": ["$repair_until", {"$add": ["$$NOW", _ms(lease)]}]},
        ]
    }
    return await _take({"$expr": {"$and": [is_set_back, is_free]}}, uuid4().hex, lease)


async def renew_repair(repair: Repair, lease: timedelta) -> Repair | None:
    """None where another worker has taken it, or the server's clock has been ahead of that time meanwhile."""
    return await _take(_still(repair), repair.claim, lease)


async def _take(condition: Mapping[str, Any], claim: str, lease: timedelta) -> Repair | None:
    until = {"$add": ["$$NOW", _ms(lease)]}
    row = await _collection().find_one_and_update(
        {"_id": _ID, **condition},
        [{"$set": _SEEN | {"repair_claim": {"$literal": claim}, "repair_until": until}}],
        return_document=ReturnDocument.AFTER,
    )
    return None if row is None else Repair(claim, _time_of(row))


async def finish_repair(repair: Repair) -> bool:
    """From here on the present time counts as the latest. False under the same conditions as `renew_repair`."""
    finished = await _collection().update_one(
        {"_id": _ID, **_still(repair)},
        [{"$set": _SEEN | {"highest_at": "$$NOW"}}, {"$unset": ["repair_claim", "repair_until"]}],
    )
    return finished.matched_count == 1


def _still(repair: Repair) -> dict[str, Any]:
    return {"repair_claim": repair.claim, "highest_at": repair.time.highest_at}


def _time_of(row: Mapping[str, Any]) -> ServerTime:
    return ServerTime(row["seen_at"], row["highest_at"])


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
