"""Where the queues are, and how they stand: counted in their indexes, without looking at a row."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from beanie import Document

from service.documents import BankCallback, BankOrder, EventDocument, OutboxDocument, WebhookDeliveryDocument
from service.domain.dead_letters import Queue
from service.domain.workers import QueueState


class Home(NamedTuple):
    """Where a queue's rows live. Those that are records as well stay there for good, and are in the queue while they
    have a `due_at`.
    """

    document: type[Document]
    subject: str
    is_record: bool = True


HOMES: Final[Mapping[Queue, Home]] = {
    Queue.OUTBOX: Home(OutboxDocument, "subject_id", is_record=False),
    Queue.CALLBACKS: Home(BankCallback, "payload.reference"),
    Queue.EVENTS: Home(EventDocument, "subject_id"),
    Queue.DELIVERIES: Home(WebhookDeliveryDocument, "event_id"),
    Queue.BANK: Home(BankOrder, "_id"),
}
# Some ten thousand take a hundredth of a second. Beyond it, more is more.
_COUNTED: Final = 100_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def find_state(queue: Queue, now: datetime) -> QueueState:
    """Of any but the outbox, each of whose topics is a queue of its own."""
    return await _state(queue, {}, now)


async def find_topics(now: datetime) -> dict[str, QueueState]:
    """Reads the outbox, by topic; those that nothing is of are left out."""
    topics = sorted(await OutboxDocument.get_pymongo_collection().distinct("topic"))
    states = await asyncio.gather(*(_state(Queue.OUTBOX, {"topic": topic}, now) for topic in topics))
    return dict(zip(topics, states, strict=True))


async def _state(queue: Queue, among: dict[str, Any], now: datetime) -> QueueState:
    collection = HOMES[queue].document.get_pymongo_collection()
    due = {**among, "due_at": {"$lte": now}}
    # A date, so that rows without one are left out: they are records only.
    rows = await collection.count_documents({**among, "due_at": {"$gte": _EPOCH}}, limit=_COUNTED)
    oldest = await collection.find_one(due, {"due_at": 1}, sort=[("due_at", 1)]) if rows else None
    if oldest is None:
        return QueueState(rows, 0, None)
    return QueueState(rows, await collection.count_documents(due, limit=_COUNTED), oldest["due_at"])
