"""What metrics tell of MongoDB: how much waits, and what waits for a person. Each goes by an index and is bounded."""

import asyncio
from datetime import datetime
from typing import Any, Final, NamedTuple

from pymongo.asynchronous.collection import AsyncCollection

from service.documents import BANK_DOCUMENTS, WALLET_DOCUMENTS, OutboxDocument
from service.domain.outbox import OutboxTopic

Collection = AsyncCollection[dict[str, Any]]

_DOCUMENTS: Final = {document.Settings.name: document for document in (*WALLET_DOCUMENTS, *BANK_DOCUMENTS)}
# The collections whose rows wait in `due_at`, by the names that metrics have for their queues.
_QUEUES: Final = {
    "outbox": "outbox",
    "callbacks": "bank_callbacks",
    "events": "events",
    "deliveries": "webhook_deliveries",
    "bank": "orders",
}
# Some ten thousand rows are counted in a hundredth of a second. Beyond this, more is more.
_COUNTED: Final = 100_000


class Backlog(NamedTuple):
    """What waits in a queue to be taken. What is in somebody's hands, or is for later, is not due."""

    rows: int
    oldest_due_at: datetime | None


async def find_backlogs(now: datetime) -> dict[str, Backlog]:
    queues = {queue: found for queue, name in _QUEUES.items() if (found := _collection(name)) is not None}
    backlogs = await asyncio.gather(*(_backlog(collection, now) for collection in queues.values()))
    return dict(zip(queues, backlogs, strict=True))


async def _backlog(collection: Collection, now: datetime) -> Backlog:
    due: dict[str, Any] = {"due_at": {"$lte": now}}
    if collection.name == OutboxDocument.Settings.name:
        # Its index has the topic in front.
        due["topic"] = {"$in": list(OutboxTopic)}
    oldest = await collection.find_one(due, {"due_at": 1}, sort=[("due_at", 1)])
    if oldest is None:
        return Backlog(0, None)
    return Backlog(await collection.count_documents(due, limit=_COUNTED), oldest["due_at"])


async def count_dead_letters() -> dict[str, int] | None:
    """By queue, all of them."""
    found = await _count("dead_letters", {"state": "dead"}, by="queue")
    return None if found is None else dict.fromkeys(_QUEUES, 0) | found


async def count_open_breaks() -> dict[str, int] | None:
    """By kind, those that there are."""
    return await _count("breaks", {"state": "open"}, by="kind")


async def count_open_incidents() -> int | None:
    incidents = _collection("incidents")
    return None if incidents is None else await incidents.count_documents({"status": "open"}, limit=_COUNTED)


async def find_last_replay() -> datetime | None:
    """When all wallets had last been held against their logs; None where they have not been yet."""
    duties = _collection("duties")
    found = None if duties is None else await duties.find_one({"_id": "replay"}, {"progress.last.finished_at": 1})
    last: dict[str, datetime] = ((found or {}).get("progress") or {}).get("last") or {}
    return last.get("finished_at")


async def _count(name: str, match: dict[str, Any], *, by: str) -> dict[str, int] | None:
    collection = _collection(name)
    if collection is None:
        return None
    stages: list[dict[str, Any]] = [
        {"$match": match},
        {"$limit": _COUNTED},
        {"$group": {"_id": f"${by}", "rows": {"$sum": 1}}},
    ]
    return {row["_id"]: row["rows"] async for row in await collection.aggregate(stages)}


def _collection(name: str) -> Collection | None:
    """None for what this version does not have."""
    document = _DOCUMENTS.get(name)
    return None if document is None else document.get_pymongo_collection()
