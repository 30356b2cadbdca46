"""Queries on the simulated bank's journal."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from service.documents import BankOrder
from service.repositories.due_rows import claim_due

_DUPLICATE_KEY = 11000


async def insert_once(order: dict[str, Any]) -> dict[str, Any]:
    """The order as it stands in the journal: the new one, or the one that has this reference already."""
    try:
        await BankOrder.get_pymongo_collection().insert_one(order)
    except DuplicateKeyError:
        known: dict[str, Any] | None = await BankOrder.get_pymongo_collection().find_one_and_update(
            {"_id": order["_id"]}, {"$inc": {"submissions": 1}}, return_document=ReturnDocument.AFTER
        )
        assert known is not None, "the journal forgets nothing"  # noqa: S101 a witness that forgets is none
        return known
    return order


async def insert_missing(orders: Sequence[dict[str, Any]]) -> list[str]:
    """Many at once; an order whose reference the journal has already stays as it is, and is named."""
    try:
        await BankOrder.get_pymongo_collection().insert_many(orders, ordered=False)
    except BulkWriteError as error:
        refused = error.details["writeErrors"]
        if any(one["code"] != _DUPLICATE_KEY for one in refused):
            raise
        return [one["op"]["_id"] for one in refused]
    return []


async def find(reference: str) -> dict[str, Any] | None:
    return await BankOrder.get_pymongo_collection().find_one({"_id": reference})


async def claim(*, now: datetime, lease_s: float, limit: int) -> list[dict[str, Any]]:
    """Orders that are due to be executed or reported, taken for `lease_s` seconds."""
    return await claim_due(BankOrder.get_pymongo_collection(), now=now, lease_s=lease_s, limit=limit)


async def execute(order: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Ends an accepted order in one step with its payment; one that has ended stays as it is."""
    succeeded = order["outcome"] == "success"
    change: dict[str, Any] = {"$set": {"state": order["outcome"], "executed_at": now}}
    if succeeded:
        payment = {"at": now, "amount": order["amount"], "bank_reference": order["bank_reference"]}
        change["$push"] = {"payments": payment}
    executed: dict[str, Any] | None = await BankOrder.get_pymongo_collection().find_one_and_update(
        {"_id": order["_id"], "state": "accepted"}, change, return_document=ReturnDocument.AFTER
    )
    if executed is not None:
        return executed
    known = await find(order["_id"])
    assert known is not None, "the journal forgets nothing"  # noqa: S101 a witness that forgets is none
    return known


async def mark_reported(reference: str) -> None:
    await BankOrder.get_pymongo_collection().update_one({"_id": reference}, {"$unset": {"due_at": "", "claim": ""}})


async def report_later(reference: str, now: datetime, delay_s: float) -> None:
    await BankOrder.get_pymongo_collection().update_one(
        {"_id": reference}, {"$set": {"due_at": now + timedelta(seconds=delay_s)}}
    )


async def find_payments(day: date) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each payment of that day (UTC) beside its order, oldest first."""
    start = datetime.combine(day, time(), UTC)
    of_the_day = {"$gte": start, "$lt": start + timedelta(days=1)}
    rows = await BankOrder.get_pymongo_collection().find({"payments": {"$elemMatch": {"at": of_the_day}}}).to_list()
    paid = [(row, payment) for row in rows for payment in row["payments"] if payment["at"].date() == day]
    return sorted(paid, key=lambda pair: pair[1]["at"])
