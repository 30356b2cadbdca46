"""Queries on `bank_callbacks`, the inbox."""

from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from service.documents import BankCallback
from service.repositories.due_rows import claim_due


async def insert_once(callback_id: str, payload: dict[str, Any], request_id: str | None, now: datetime) -> bool:
    """False where a callback with this id is here already. One document, so no transaction to spoil."""
    try:
        await BankCallback.get_pymongo_collection().insert_one(
            {
                "_id": callback_id,
                "payload": payload,
                "request_id": request_id,
                "attempts": 0,
                "received_at": now,
                "due_at": now,
            }
        )
    except DuplicateKeyError:
        return False
    return True


async def claim(*, now: datetime, lease_s: float, limit: int) -> list[dict[str, Any]]:
    """Callbacks that wait to be applied, taken for `lease_s` seconds."""
    return await claim_due(BankCallback.get_pymongo_collection(), now=now, lease_s=lease_s, limit=limit)


async def mark_applied(callback_id: str, result: str, now: datetime) -> None:
    await BankCallback.get_pymongo_collection().update_one(
        {"_id": callback_id},
        {"$set": {"applied_at": now, "result": result}, "$unset": {"due_at": "", "claim": ""}},
    )
