"""Queries on `registrations`. Every change is one compare-and-set."""

from datetime import datetime
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import RegistrationDocument
from service.domain.registrations import Registration
from service.repositories.records import from_row, to_row


async def insert(registration: Registration, *, session: AsyncClientSession) -> None:
    await RegistrationDocument.get_pymongo_collection().insert_one(to_row(registration), session=session)


async def find(registration_id: str, now: datetime) -> Registration | None:
    """None where it was used or has expired."""
    return await _find({"_id": registration_id}, now)


async def find_by_token(token_hash: str, now: datetime) -> Registration | None:
    return await _find({"token_hash": token_hash}, now)


async def find_newest(email: str, now: datetime, limit: int) -> list[Registration]:
    """Finds those of an address that may still be confirmed."""
    rows = RegistrationDocument.get_pymongo_collection().find(
        {"email": email, "expires_at": {"$gt": now}}, sort=[("_id", -1)], limit=limit
    )
    return [from_row(Registration, row) for row in await rows.to_list()]


async def _find(condition: dict[str, Any], now: datetime) -> Registration | None:
    found = RegistrationDocument.get_pymongo_collection()
    row = await found.find_one({**condition, "expires_at": {"$gt": now}})
    return None if row is None else from_row(Registration, row)


async def use_up(registration: Registration, now: datetime, *, session: AsyncClientSession) -> bool:
    """It and all others for its address. False where it was used since it was read."""
    collection = RegistrationDocument.get_pymongo_collection()
    done = await collection.update_one(
        {"_id": registration.id, "expires_at": {"$gt": now}}, {"$set": {"expires_at": now}}, session=session
    )
    others = {"email": registration.email, "expires_at": {"$gt": now}}
    await collection.update_many(others, {"$set": {"expires_at": now}}, session=session)
    return done.matched_count == 1
