"""Queries on `outbox`."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from itertools import islice, zip_longest
from typing import Any

from pymongo import DeleteOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import OutboxDocument
from service.domain.outbox import OutboxRow, OutboxTopic
from service.domain.server_clock import ServerTime
from service.repositories import due_rows
from service.repositories.due_rows import see_due, take
from service.repositories.gathering import Gathered
from service.repositories.inserts import insert_in_slices


def _to_row(row: OutboxRow) -> dict[str, Any]:
    document = row._asdict()
    document["_id"] = document.pop("id")
    for name in ("traceparent", "claim"):
        if document[name] is None:
            del document[name]
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
        last_outcome=document.get("last_outcome"),
        claim=document.get("claim"),
    )


async def insert_many(rows: Sequence[OutboxRow], *, session: AsyncClientSession | None) -> None:
    """In the transaction that calls for them, or by themselves where nothing else changes."""
    await insert_in_slices(OutboxDocument.get_pymongo_collection(), rows, _to_row, session=session)


async def delete_many(ids: Sequence[str], *, session: AsyncClientSession) -> None:
    await OutboxDocument.get_pymongo_collection().delete_many({"_id": {"$in": list(ids)}}, session=session)


async def claim(*, now: datetime, lease_s: float, limit: int, topics: Sequence[OutboxTopic]) -> list[OutboxRow]:
    """Rows that are due, taken for `lease_s` seconds: whoever dies with one leaves it to the next."""
    seen = await _see_due(now, limit, topics)
    taken = await take(OutboxDocument.get_pymongo_collection(), seen, now=now, lease_s=lease_s)
    return [_from_row(document) for document in taken]


async def _see_due(now: datetime, limit: int, topics: Sequence[OutboxTopic]) -> list[dict[str, Any]]:
    """Where more is due than can be taken, each topic has its share, however many rows another one has."""
    collection = OutboxDocument.get_pymongo_collection()
    seen = await see_due(collection, now=now, limit=limit, among={"topic": {"$in": list(topics)}})
    if len(seen) < limit or len(topics) == 1:
        return seen
    queues = await asyncio.gather(
        *(see_due(collection, now=now, limit=limit, among={"topic": topic}) for topic in topics)
    )
    in_turn = (row for turn in zip_longest(*queues) for row in turn if row is not None)
    return list(islice(in_turn, limit))


async def _change_many(updates: Sequence[UpdateOne | DeleteOne]) -> Sequence[None]:
    await OutboxDocument.get_pymongo_collection().bulk_write(updates, ordered=False)
    return [None] * len(updates)


_change = Gathered(_change_many)


def _as_taken(row: OutboxRow) -> dict[str, str | None]:
    """Matches on the claim too: an id may be used again, a claim is not."""
    return {"_id": row.id, "claim": row.claim}


async def postpone(row: OutboxRow, due_at: datetime, outcome: str | None = None) -> None:
    """Counts the visit, and keeps what it came to. A row that has gone meanwhile stays gone."""
    change = {"$set": {"due_at": due_at, "last_outcome": outcome}, "$inc": {"visits": 1}}
    await _change(UpdateOne(_as_taken(row), change))


async def put_back(
    row: OutboxRow, due_at: datetime, outcome: str | None = None, *, expected_by: datetime | None = None
) -> None:
    """Without counting a visit: nobody was visited, or it says nothing about this row. `expected_by` is kept for
    figures: when an order that the bank has is to be done.
    """
    change = {"due_at": due_at} if outcome is None else {"due_at": due_at, "last_outcome": outcome}
    if expected_by is not None:
        change["expected_by"] = expected_by
    await _change(UpdateOne(_as_taken(row), {"$set": change}))


async def note_outcome(row: OutboxRow, outcome: str) -> None:
    """Keeps what the visit came to. The row stays due when its claim ends."""
    await _change(UpdateOne(_as_taken(row), {"$set": {"last_outcome": outcome}}))


async def delete(row: OutboxRow) -> None:
    """Outside a transaction, for a row whose operation has ended without it."""
    await _change(DeleteOne(_as_taken(row)))


async def bring_forward(time: ServerTime, *, lease_s: float) -> int:
    """As due_rows.bring_forward does; by topic, as the index has it."""
    topics = {"topic": {"$in": list(OutboxTopic)}}
    return await due_rows.bring_forward(OutboxDocument.get_pymongo_collection(), time, lease_s=lease_s, among=topics)
