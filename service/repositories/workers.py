"""Queries on `workers`."""

from datetime import datetime
from typing import Any

from service.documents import WorkerDocument
from service.domain.workers import Worker
from service.repositories.records import from_row, to_row


async def put(worker: Worker) -> None:
    """In place of what it told before."""
    row = to_row(worker)
    await WorkerDocument.get_pymongo_collection().replace_one({"_id": row["_id"]}, row, upsert=True)


async def find_seen_between(begin: datetime, end: datetime) -> list[Worker]:
    """Finds those that run still, by their last word; the longest running first."""
    seen: dict[str, Any] = {"seen_at": {"$gte": begin, "$lte": end}, "stopped_at": None}
    found = await WorkerDocument.get_pymongo_collection().find(seen).sort("started_at", 1).to_list()
    return [from_row(Worker, row) for row in found]


async def last_seen_at() -> datetime | None:
    found = await WorkerDocument.get_pymongo_collection().find_one({}, {"seen_at": 1}, sort=[("seen_at", -1)])
    return None if found is None else found["seen_at"]
