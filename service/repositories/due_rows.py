"""Rows that wait for their time: several workers may take from one collection, each row goes to one of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from pymongo.asynchronous.collection import AsyncCollection

from service.domain.server_clock import ServerTime

# Rows that are brought forward fall due within this, not all at one moment.
SPREAD_S: Final = 5.0
# The longest pause before a retry. A row that is due later has a chosen time, such as an expiry.
_LONGEST_PAUSE: Final = timedelta(minutes=10)


async def claim_due(
    collection: AsyncCollection[dict[str, Any]],
    *,
    now: datetime,
    lease_s: float,
    limit: int,
    among: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Takes up to `limit` rows with `due_at` ≤ now, the longest due first; `among` narrows them further."""
    return await take(
        collection, await see_due(collection, now=now, limit=limit, among=among), now=now, lease_s=lease_s
    )


async def see_due(
    collection: AsyncCollection[dict[str, Any]], *, now: datetime, limit: int, among: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Without taking them."""
    due = {**(among or {}), "due_at": {"$lte": now}}
    return await collection.find(due, sort=[("due_at", 1)], limit=limit, batch_size=limit).to_list()


async def take(
    collection: AsyncCollection[dict[str, Any]], seen: Sequence[dict[str, Any]], *, now: datetime, lease_s: float
) -> list[dict[str, Any]]:
    """Those of the rows that nobody else has taken meanwhile, by moving `due_at` on and counting the attempt.

    The claim is compare-and-set on `due_at`, so that two workers who saw the same row do not both get it.
    Nothing has to be written when the work ends in time: the row is deleted with what it led to, or,
    after a crash, falls due again.
    """
    if not seen:
        return []
    claim, until = uuid4().hex, now + timedelta(seconds=lease_s)
    result = await collection.update_many(
        {"_id": {"$in": [row["_id"] for row in seen]}, "due_at": {"$lte": now}},
        {"$set": {"due_at": until, "claim": claim}, "$inc": {"attempts": 1}},
    )
    if result.modified_count == len(seen):
        # The usual case: all of them are ours, and what was changed is known.
        return [{**row, "due_at": until, "claim": claim, "attempts": row["attempts"] + 1} for row in seen]
    return await collection.find({"claim": claim}).to_list()


async def bring_forward(
    collection: AsyncCollection[dict[str, Any]],
    time: ServerTime,
    *,
    lease_s: float,
    among: Mapping[str, Any] | None = None,
    also: Mapping[str, Any] | None = None,
) -> int:
    """Makes rows due earlier by as much as the server's clock was set back, and returns how many.

    What is due within `lease_s` stays: a worker may have it in hand. A lease that was given by the clock that was ahead
    keeps its length. `also` sets further fields. Rows that rightly wait are visited early too.
    """
    waiting = {"due_at": {"$gt": time.now + timedelta(seconds=lease_s), "$lte": time.highest_at + _LONGEST_PAUSE}}
    soon = {"$add": [time.now, {"$multiply": [{"$rand": {}}, SPREAD_S * 1000]}]}
    due_at = {"$max": [soon, {"$subtract": ["$due_at", milliseconds_back(time)]}]}
    updated = await collection.update_many({**(among or {}), **waiting}, [{"$set": {**(also or {}), "due_at": due_at}}])
    return updated.modified_count


def milliseconds_back(time: ServerTime) -> int:
    return time.set_back_by // timedelta(milliseconds=1)
