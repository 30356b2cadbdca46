"""What metrics tell of MongoDB: how much waits, and what waits for a person. Each goes by an index and is bounded."""

import asyncio
from datetime import datetime
from typing import Any, Final, NamedTuple

from beanie import Document
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import (
    BankCallback,
    BankOrder,
    BreakDocument,
    DeadLetterDocument,
    DutyDocument,
    EventDocument,
    IncidentDocument,
    OutboxDocument,
    WebhookDeliveryDocument,
)
from service.domain.breaks import BreakKind, BreakState
from service.domain.dead_letters import DeadLetterState
from service.domain.incidents import IncidentStatus
from service.domain.outbox import OutboxTopic

Collection = AsyncCollection[dict[str, Any]]

# The collections whose rows wait in `due_at`, by the names that metrics have for their queues.
_QUEUES: Final[dict[str, type[Document]]] = {
    "outbox": OutboxDocument,
    "callbacks": BankCallback,
    "events": EventDocument,
    "deliveries": WebhookDeliveryDocument,
    "bank": BankOrder,
}
# Some ten thousand rows are counted in a hundredth of a second. Beyond this, more is more.
_COUNTED: Final = 100_000


class Backlog(NamedTuple):
    """What waits in a queue to be taken. What is in somebody's hands, or is for later, is not due."""

    rows: int
    oldest_due_at: datetime | None


async def find_backlogs(now: datetime) -> dict[str, Backlog]:
    found = await asyncio.gather(*(_backlog(queue.get_pymongo_collection(), now) for queue in _QUEUES.values()))
    return dict(zip(_QUEUES, found, strict=True))


async def _backlog(collection: Collection, now: datetime) -> Backlog:
    due: dict[str, Any] = {"due_at": {"$lte": now}}
    if collection.name == OutboxDocument.Settings.name:
        # Its index has the topic in front.
        due["topic"] = {"$in": list(OutboxTopic)}
    oldest = await collection.find_one(due, {"due_at": 1}, sort=[("due_at", 1)])
    if oldest is None:
        return Backlog(0, None)
    return Backlog(await collection.count_documents(due, limit=_COUNTED), oldest["due_at"])


async def count_dead_letters() -> dict[str, int]:
    """By queue, all of them."""
    dead = {"state": DeadLetterState.DEAD}
    return dict.fromkeys(_QUEUES, 0) | await _count(DeadLetterDocument, dead, by="queue")


async def count_open_breaks() -> dict[str, int]:
    """By kind, all of them."""
    kinds = dict.fromkeys((kind.value for kind in BreakKind), 0)
    return kinds | await _count(BreakDocument, {"state": BreakState.OPEN}, by="kind")


async def count_open_incidents() -> int:
    incidents = IncidentDocument.get_pymongo_collection()
    return await incidents.count_documents({"status": IncidentStatus.OPEN}, limit=_COUNTED)


async def find_last_replay() -> datetime | None:
    """When all wallets had last been held against their logs; None where they have not been yet."""
    duties = DutyDocument.get_pymongo_collection()
    found = await duties.find_one({"_id": "replay"}, {"progress.last.finished_at": 1})
    last: dict[str, datetime] = ((found or {}).get("progress") or {}).get("last") or {}
    return last.get("finished_at")


async def _count(document: type[Document], match: dict[str, Any], *, by: str) -> dict[str, int]:
    grouped = {"_id": f"${by}", "rows": {"$sum": 1}}
    stages: list[dict[str, Any]] = [{"$match": match}, {"$limit": _COUNTED}, {"$group": grouped}]
    found = await document.get_pymongo_collection().aggregate(stages)
    return {row["_id"]: row["rows"] async for row in found}
