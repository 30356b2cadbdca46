"""Rows that wait for their time: several workers may take from one collection, each row goes to one of them."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import uuid4

from beanie import Document
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import BankCallback, BankOrder, OutboxDocument


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


class Backlog(NamedTuple):
    """What waits in a queue to be taken. What is in somebody's hands, or is for later, is not due."""

    rows: int
    oldest_due_at: datetime | None


# By the names that metrics have for them.
QUEUES: Final[dict[str, type[Document]]] = {"outbox": OutboxDocument, "callbacks": BankCallback, "bank": BankOrder}
# Counting goes through an index, at some ten thousand rows in a hundredth of a second. Beyond it, more is more.
_COUNTED = 100_000


async def find_backlogs(now: datetime) -> dict[str, Backlog]:
    found = await asyncio.gather(*(_backlog(queue.get_pymongo_collection(), now) for queue in QUEUES.values()))
    return dict(zip(QUEUES, found, strict=True))


async def _backlog(collection: AsyncCollection[dict[str, Any]], now: datetime) -> Backlog:
    due = {"due_at": {"$lte": now}}
    oldest = await collection.find_one(due, {"due_at": 1}, sort=[("due_at", 1)])
    if oldest is None:
        return Backlog(0, None)
    return Backlog(await collection.count_documents(due, limit=_COUNTED), oldest["due_at"])
