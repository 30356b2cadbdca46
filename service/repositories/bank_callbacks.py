"""Queries on `bank_callbacks`, the inbox."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from pymongo import UpdateMany, UpdateOne

from service.documents import BankCallback
from service.domain.incidents import SaidEvent
from service.repositories.due_rows import claim_due
from service.repositories.gathering import Gathered
from service.repositories.inserts import insert_missing
from service.tracing import current_traceparent


async def insert_once(callback_id: str, payload: dict[str, Any], request_id: str | None, now: datetime) -> bool:
    """False where a callback with this id is here already. No transaction, so none to spoil."""
    row = {
        "_id": callback_id,
        "payload": payload,
        "request_id": request_id,
        "attempts": 0,
        "received_at": now,
        "due_at": now,
    }
    if (traceparent := current_traceparent()) is not None:
        row["traceparent"] = traceparent
    return await _insert(row)


_insert = Gathered(partial(insert_missing, BankCallback))


async def claim(*, now: datetime, lease_s: float, limit: int) -> list[dict[str, Any]]:
    """Callbacks that wait to be applied, taken for `lease_s` seconds."""
    return await claim_due(BankCallback.get_pymongo_collection(), now=now, lease_s=lease_s, limit=limit)


async def mark_applied(callback_id: str, result: str, now: datetime) -> None:
    await _mark((callback_id, result, now))


async def _mark_many(applied: Sequence[tuple[str, str, datetime]]) -> Sequence[None]:
    """One update for each result: there are few of them. The time is the last one's."""
    ids_of: dict[str, list[str]] = defaultdict(list)
    for callback_id, result, _ in applied:
        ids_of[result].append(callback_id)
    applied_at = max(now for _, _, now in applied)
    await BankCallback.get_pymongo_collection().bulk_write(
        [
            UpdateMany(
                {"_id": {"$in": ids}},
                {"$set": {"applied_at": applied_at, "result": result}, "$unset": {"due_at": "", "claim": ""}},
            )
            for result, ids in ids_of.items()
        ],
        ordered=False,
    )
    return [None] * len(applied)


_mark = Gathered(_mark_many)


async def postpone(row: dict[str, Any], due_at: datetime) -> None:
    """Unless somebody has made it due, taken or applied it since it was claimed."""
    claimed = {"_id": row["_id"], "due_at": row["due_at"]}
    await BankCallback.get_pymongo_collection().update_one(claimed, {"$set": {"due_at": due_at}})


async def find_payload(callback_id: str) -> dict[str, Any] | None:
    """Finds what was said under this id; None where nothing was."""
    return await _find_payload(callback_id)


async def _find_payloads(callback_ids: Sequence[str]) -> list[dict[str, Any] | None]:
    named = {"_id": {"$in": list(callback_ids)}}
    rows = await BankCallback.get_pymongo_collection().find(named, {"payload": 1}).to_list()
    payloads = {row["_id"]: row["payload"] for row in rows}
    return [payloads.get(callback_id) for callback_id in callback_ids]


_find_payload = Gathered(_find_payloads)


async def find_last_words(references: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each reference the callback that was received last, where there is one."""
    stages: list[dict[str, Any]] = [
        {"$match": {"payload.reference": {"$in": list(references)}}},
        {"$sort": {"received_at": 1}},
        {"$group": {"_id": "$payload.reference", "last": {"$last": "$$ROOT"}}},
    ]
    rows = await BankCallback.get_pymongo_collection().aggregate(stages)
    return {row["_id"]: row["last"] async for row in rows}


async def hasten_returns(reference: str, now: datetime) -> None:
    """Those that wait for the operation's end, which has come, are due now; one in hand too, which may have looked
    before it.
    """
    await _hasten((reference, now))


async def _hasten_many(asked: Sequence[tuple[str, datetime]]) -> Sequence[None]:
    """Looks first: hardly ever is there any."""
    now = min(now for _, now in asked)
    waiting: dict[str, Any] = {"payload.reference": {"$in": [reference for reference, _ in asked]}}
    waiting |= {"payload.type": SaidEvent.RETURNED, "due_at": {"$exists": True}}
    if await BankCallback.get_pymongo_collection().find_one(waiting, {"_id": 1}) is not None:
        await BankCallback.get_pymongo_collection().update_many(waiting, {"$set": {"due_at": now}})
    return [None] * len(asked)


_hasten = Gathered(_hasten_many)


async def insert_reuse(
    callback_id: str, reuses: str, payload: dict[str, Any], request_id: str | None, now: datetime
) -> bool:
    """For what came with the id `reuses`, with which something else had come; False where it is here already."""
    row = {"payload": payload, "request_id": request_id, "attempts": 0, "received_at": now, "due_at": now}
    result = await BankCallback.get_pymongo_collection().update_one(
        {"_id": callback_id}, {"$setOnInsert": {**row, "reuses": reuses}}, upsert=True
    )
    return result.upserted_id is not None


async def note_incident(callback_id: str, incident_id: str) -> None:
    await _note_incident((callback_id, incident_id))


async def _note_incidents(noted: Sequence[tuple[str, str]]) -> Sequence[None]:
    updates = [UpdateOne({"_id": callback_id}, {"$set": {"incident_id": known}}) for callback_id, known in noted]
    await BankCallback.get_pymongo_collection().bulk_write(updates, ordered=False)
    return [None] * len(noted)


_note_incident = Gathered(_note_incidents)
