"""Rows that wait for their time: several workers may take from one collection, each row goes to one of them."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from pymongo.asynchronous.collection import AsyncCollection


async def claim_due(
    collection: AsyncCollection[dict[str, Any]], *, now: datetime, lease_s: float, limit: int
) -> list[dict[str, Any]]:
    """Takes up to `limit` rows with `due_at` ≤ now by moving `due_at` on by `lease_s` and counting the attempt.

    The claim is compare-and-set on `due_at`, so that two workers who saw the same row do not both get it.
    Nothing has to be written when the work ends in time: the row is deleted with what it led to, or,
    after a crash, falls due again.
    """
    due = {"due_at": {"$lte": now}}
    seen = await collection.find(due, {"_id": 1}, sort=[("due_at", 1)], limit=limit).to_list()
    if not seen:
        return []
    claim = uuid4().hex
    await collection.update_many(
        {"_id": {"$in": [row["_id"] for row in seen]}, **due},
        {"$set": {"due_at": now + timedelta(seconds=lease_s), "claim": claim}, "$inc": {"attempts": 1}},
    )
    return await collection.find({"claim": claim}).to_list()
