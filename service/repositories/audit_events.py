"""Queries on `audit_events`. What money is concerned with, the ledger inserts with its other records."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import AuditEventDocument
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import to_rfc3339
from service.repositories.inserts import insert_missing
from service.repositories.records import from_row, to_row


class AuditFilter(NamedTuple):
    """What the list is narrowed to; times are from (inclusive) and to (exclusive)."""

    action: AuditAction | None = None
    subject_id: str | None = None
    actor_id: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


async def find_newest(wanted: AuditFilter, *, before_id: str | None, limit: int) -> list[AuditEvent]:
    """Newest first; `before_id` is the last one of the page before."""
    equal = {"action": wanted.action, "subject_id": wanted.subject_id, "actor_id": wanted.actor_id}
    condition: dict[str, Any] = {name: value for name, value in equal.items() if value is not None}
    times = {"$gte": wanted.created_from, "$lt": wanted.created_to}
    time_range = {operator: moment for operator, moment in times.items() if moment is not None}
    if time_range:
        condition["at"] = time_range
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = AuditEventDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(AuditEvent, row) for row in await found.to_list()]


async def find(event_id: str) -> AuditEvent | None:
    row = await AuditEventDocument.get_pymongo_collection().find_one({"_id": event_id})
    return None if row is None else from_row(AuditEvent, row)


async def find_first_times(action: AuditAction) -> dict[str, datetime]:
    """When it befell each subject first."""
    found = await AuditEventDocument.get_pymongo_collection().aggregate(
        [{"$match": {"action": action}}, {"$group": {"_id": "$subject_id", "at": {"$min": "$at"}}}]
    )
    return {row["_id"]: row["at"] for row in await found.to_list()}


async def stream_since(event_id: str, *, session: AsyncClientSession) -> AsyncIterator[dict[str, Any]]:
    """As the API shows them, oldest first, also those of actions that this version does not know."""
    found = AuditEventDocument.get_pymongo_collection().find(
        {"_id": {"$gte": event_id}}, sort=[("_id", 1)], session=session
    )
    async for row in found:
        event_id = row.pop("_id")
        yield {**row, "id": event_id, "at": to_rfc3339(row["at"])}


async def insert(event: AuditEvent, *, session: AsyncClientSession | None) -> None:
    """In the transaction of the deed, or by itself where nothing else changes: a login that was refused."""
    await AuditEventDocument.get_pymongo_collection().insert_one(to_row(event), session=session)


async def insert_many(events: Sequence[AuditEvent], *, session: AsyncClientSession) -> None:
    await AuditEventDocument.get_pymongo_collection().insert_many([to_row(event) for event in events], session=session)


async def ensure_many(events: Sequence[AuditEvent]) -> None:
    """By themselves; those that an attempt before has inserted stay as they are."""
    await insert_missing(AuditEventDocument, [to_row(event) for event in events])
