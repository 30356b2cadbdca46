"""Queries on `outbox`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import OutboxDocument
from service.domain.outbox import OutboxRow, OutboxTopic
from service.repositories.due_rows import claim_due


def _to_row(row: OutboxRow) -> dict[str, Any]:
    document = row._asdict()
    document["_id"] = document.pop("id")
    if row.traceparent is None:
        del document["traceparent"]
    return document


def _from_row(document: dict[str, Any]) -> OutboxRow:
    return OutboxRow(
        id=document["_id"],
        topic=OutboxTopic(document["topic"]),
        subject_id=document["subject_id"],
        attempts=document["attempts"],
        visits=document["visits"],
        request_id=document["request_id"],
        due_at=document["due_at"],
        created_at=document["created_at"],
        traceparent=document.get("traceparent"),
    )


async def insert_many(rows: Sequence[OutboxRow], *, session: AsyncClientSession | None) -> None:
    """In the transaction that calls for them, or by themselves where nothing else changes."""
    await OutboxDocument.get_pymongo_collection().insert_many([_to_row(row) for row in rows], session=session)


async def delete_many(ids: Sequence[str], *, session: AsyncClientSession) -> None:
    await OutboxDocument.get_pymongo_collection().delete_many({"_id": {"$in": list(ids)}}, session=session)


async def claim(*, now: datetime, lease_s: float, limit: int) -> list[OutboxRow]:
    """Rows that are due, taken for `lease_s` seconds: whoever dies with one leaves it to the next."""
    taken = await claim_due(OutboxDocument.get_pymongo_collection(), now=now, lease_s=lease_s, limit=limit)
    return [_from_row(document) for document in taken]


async def postpone(row_id: str, due_at: datetime) -> None:
    """Counts the visit. A row that has gone meanwhile stays gone."""
    await OutboxDocument.get_pymongo_collection().update_one(
        {"_id": row_id}, {"$set": {"due_at": due_at}, "$inc": {"visits": 1}}
    )


async def delete(row_id: str) -> None:
    """Outside a transaction, for a row whose operation has ended without it."""
    await OutboxDocument.get_pymongo_collection().delete_one({"_id": row_id})
