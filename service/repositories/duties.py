"""Queries on `duties`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from service.documents import DutyDocument
from service.domain.server_clock import ServerTime
from service.repositories import due_rows


class Duty(NamedTuple):
    """One that is taken until it is handed back, or for as long as its lease lasts."""

    name: str
    claim: str
    progress: dict[str, Any]


async def claim(name: str, *, now: datetime, lease_s: float) -> Duty | None:
    """None where it is not due yet, or another worker has it."""
    duties = DutyDocument.get_pymongo_collection()
    mine = uuid4().hex
    taken = {"$set": {"due_at": now + timedelta(seconds=lease_s), "claim": mine}}
    due = {"_id": name, "due_at": {"$lte": now}}
    row = await duties.find_one_and_update(due, taken, return_document=ReturnDocument.AFTER)
    if row is None and await duties.find_one({"_id": name}, {"_id": 1}) is None:
        try:
            await duties.insert_one({"_id": name, "progress": {}, **taken["$set"]})
        except DuplicateKeyError:
            return None
        return Duty(name, mine, {})
    return None if row is None else Duty(name, mine, row["progress"])


async def renew(duty: Duty, *, now: datetime, lease_s: float) -> bool:
    """False where the lease has run out and another worker has taken it."""
    renewed = await DutyDocument.get_pymongo_collection().update_one(
        {"_id": duty.name, "claim": duty.claim}, {"$set": {"due_at": now + timedelta(seconds=lease_s)}}
    )
    return renewed.matched_count == 1


async def hand_back(duty: Duty, due_at: datetime, progress: Mapping[str, Any]) -> bool:
    """False where it is another worker's by now, who goes on from what was handed back before."""
    handed = await DutyDocument.get_pymongo_collection().update_one(
        {"_id": duty.name, "claim": duty.claim}, {"$set": {"due_at": due_at, "claim": None, "progress": progress}}
    )
    return handed.matched_count == 1


async def find_progress(name: str) -> dict[str, Any]:
    """Empty where nobody has begun yet."""
    row = await DutyDocument.get_pymongo_collection().find_one({"_id": name}, {"progress": 1})
    return {} if row is None else dict(row["progress"])


async def bring_forward(time: ServerTime, *, lease_s: float) -> int:
    """As due_rows.bring_forward does."""
    return await due_rows.bring_forward(DutyDocument.get_pymongo_collection(), time, lease_s=lease_s)
